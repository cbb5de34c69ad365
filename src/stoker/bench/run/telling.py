"""How far a run is, for whoever watches it."""

from typing import Any, Final

from stoker.bench.run.hosts.events import OnProgress, ProgressEvent
from stoker.bench.run.hosts.roll import Roll
from stoker.bench.run.record import RunRecord
from stoker.bench.workloads.progress import Progress
from stoker.bench.workloads.steps import PHASES, SAVE
from stoker.core import clock
from stoker.core.plan import TrainingPlan

__all__ = ("OnProgress", "ProgressEvent", "Teller")
_PROGRESS_SECONDS: Final = 0.2


class Teller:
    """Turns what the ranks tell into progress events, a few a second, and into the conductor's log."""

    def __init__(
        self, plan: TrainingPlan, record: RunRecord, progress: OnProgress | None, *, roll: Roll | None = None
    ) -> None:
        self._plan, self._record, self._progress, self._roll = plan, record, progress, roll
        self._told_ns = 0
        self._ranks: dict[int, Progress] = {}
        self._pass = (-1, -1)

    def close(self) -> None:
        """Tell, however short ago it was told, how far all came: which hosts were done first and last."""
        if self._progress is not None and self._ranks:
            slowest = min(self._ranks.values(), key=lambda told: (told.epoch, told.phase, told.step))
            self._progress(self._event(slowest, self._ranks))

    def tell(self, ranks: dict[int, Progress]) -> None:
        """Take the latest of every rank that has told anything."""
        self._ranks = ranks
        slowest = min(ranks.values(), key=lambda told: (told.epoch, told.phase, told.step))
        if (slowest.phase, slowest.epoch) != self._pass:
            self._pass = (slowest.phase, slowest.epoch)
            self._record.event("phase_seen", phase=PHASES[slowest.phase], epoch=slowest.epoch)
        now_ns = clock.monotonic_ns()
        if self._progress is None or now_ns - self._told_ns < _PROGRESS_SECONDS * 1e9:
            return
        self._told_ns = now_ns
        self._progress(self._event(slowest, ranks))

    def _event(self, slowest: Progress, ranks: dict[int, Progress]) -> ProgressEvent:
        count = len(ranks)
        rate = sum(told.bytes_per_second for told in ranks.values()) * self._plan.ranks / count
        elapsed_seconds = self._record.elapsed_seconds
        return ProgressEvent(
            phase=PHASES[slowest.phase],
            epoch=slowest.epoch,
            step=slowest.step,
            steps=slowest.steps,
            au_ratio=sum(told.au_ratio for told in ranks.values()) / count,
            bytes_per_second=rate,
            elapsed_seconds=elapsed_seconds,
            limit_seconds=self._limit_seconds(slowest, elapsed_seconds),
            **self._hosts(elapsed_seconds),
        )

    def _hosts(self, elapsed_seconds: float) -> dict[str, Any]:
        if self._roll is None:
            return {}
        origin_ns = clock.monotonic_ns() - round(elapsed_seconds * 1e9)
        done = list(self._roll.hosts_done())
        ends = [(host.last_ns - origin_ns) / 1e9 for host in done]
        return {
            "hosts": max(self._roll.hosts, 1),
            "hosts_done": len(done),
            "first_done_seconds": min(ends, default=None),
            "last_done_seconds": max(ends, default=None),
            "slowest_host": self._roll.slowest_host(),
        }

    def _limit_seconds(self, slowest: Progress, elapsed_seconds: float) -> float:
        plan = self._plan
        if plan.kvcache is not None:
            what = plan.kvcache
            return what.trials * what.duration_seconds + (what.trials - 1) * what.pause_seconds
        if plan.checkpoint is not None and slowest.phase >= SAVE:
            before = plan.checkpoint.writes if slowest.phase > SAVE else 0
            begun, every = before + slowest.step - 1, plan.checkpoint.writes + plan.checkpoint.reads
            return elapsed_seconds * every / begun if begun else 0.0
        if plan.duration_seconds or not plan.epochs or not slowest.steps:
            return plan.duration_seconds
        done = (slowest.epoch - 1 + slowest.step / slowest.steps) / plan.epochs
        return elapsed_seconds / done if done > 0 else 0.0
