"""How many users a KV cache is to serve: as many as keep it at a load (qos), or as many as still add tokens (capacity).

The load is the share of the workers that serve, one for each user; requests that wait count as workers that are
missing. Users who are added come with workers of their own, so that the load really changes.
"""

from typing import Final, NamedTuple

from stoker.core.kvcache import KvPlan

USERS_MAX: Final = 100_000
_LOOK_SECONDS: Final = 5.0
_COOL_SECONDS: Final = 30.0
_BAND: Final = 0.1


class Load(NamedTuple):
    """What an autoscaler looks at."""

    seconds: float
    users: int
    workers: int
    busy: int
    waiting: int
    tokens: int

    @property
    def saturation(self) -> float:
        """Return the load, 0..1."""
        return min(1.0, (self.busy + self.waiting) / max(1, self.workers))


class Autoscaler:
    """Decides every few seconds; `steps` tells what it decided."""

    def __init__(self, plan: KvPlan) -> None:
        self._mode, self._target = plan.autoscaler, plan.target_saturation
        self._look_at = min(_LOOK_SECONDS, plan.duration_seconds / 10)
        self._every = self._look_at
        self._tokens = 0
        self._looked = 0.0
        self._best = (0.0, plan.users)
        self._settled = False
        self.steps: list[dict[str, float]] = []

    def users(self, load: Load) -> int:
        """Return how many users there are to be from now on."""
        if load.seconds < self._look_at or self._settled:
            return load.users
        rate = (load.tokens - self._tokens) / (load.seconds - self._looked)
        self._tokens, self._looked, self._look_at = load.tokens, load.seconds, load.seconds + self._every
        wanted = self._by_load(load) if self._mode == "qos" else self._by_tokens(load, rate)
        wanted = max(1, min(USERS_MAX, wanted))
        told = {"seconds": round(load.seconds, 3), "users": load.users, "to_users": wanted}
        self.steps.append({**told, "saturation": round(load.saturation, 4), "tokens_per_second": round(rate, 3)})
        return wanted

    def _by_load(self, load: Load) -> int:
        if load.saturation < self._target - _BAND:
            return load.users + max(1, load.users // 5)
        if load.saturation > self._target + _BAND:
            self._look_at += min(_COOL_SECONDS, 6 * self._every)
            return load.users - max(1, load.users // 10)
        return load.users

    def _by_tokens(self, load: Load, rate: float) -> int:
        best_rate, best_users = self._best
        if rate < best_rate:
            self._settled = True
            return best_users
        self._best = (rate, load.users)
        return load.users * 2 if len(self.steps) < 3 else load.users * 3 // 2
