"""Where a loader stands, as plain data: enough to go on at the next sample, on as many ranks as one likes.

A state names the epoch's order (seed, order, window), the intervals of positions that were dealt out last, and how
many steps were taken of them. What is left follows from that. All ranks of a run are at the same step, so the state
of any rank continues all of them; states saved at different steps are joined by `merge_states`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from stoker.core.errors import UsageError
from stoker.loader.dealing import Dealing, Interval, joined
from stoker.loader.order import ORDERS, OrderRule

STATE_FORMAT: Final = "stoker-loader-state/1"


class LoaderState(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`intervals` were dealt to `world_size` ranks in batches of `batch_size`; `step` steps of that are done, after
    `steps_before` steps that the epoch took under earlier dealings. `world_size` 0: nothing was dealt yet.
    """

    epoch: int
    intervals: tuple[Interval, ...]
    rule: OrderRule
    files: int
    total_samples: int
    total_bytes: int
    batch_size: int = 0
    world_size: int = 0
    rank: int = 0
    step: int = 0
    steps_before: int = 0
    format: str = STATE_FORMAT

    def dealing(self) -> Dealing:
        """Return the dealing the state was taken in."""
        wide = self.rule.order == "dlio" or self.rule.window_samples > 0
        return Dealing(self.intervals, batch_size=self.batch_size, ranks=self.world_size, wide=wide)

    def left(self) -> tuple[Interval, ...]:
        """Return the intervals of positions that no rank has taken, given that all ranks are at this step."""
        return self.dealing().left(self.step) if self.world_size else self.intervals

    def untouched(self) -> bool:
        """Tell whether the epoch has not begun."""
        return self.steps_before == 0 and self.step == 0 and self.intervals == ((0, self.total_samples),)


def encode_state(state: LoaderState) -> dict[str, Any]:
    """Return the state as JSON-ready words and numbers."""
    plain = msgspec.to_builtins(state)
    assert isinstance(plain, dict)
    return plain


def decode_state(plain: Mapping[str, Any]) -> LoaderState:
    """Return the state that `encode_state` wrote, also after a trip through JSON.

    Raises UsageError for anything that is not such a state, or contradicts itself.
    """
    try:
        state = msgspec.convert(dict(plain), LoaderState, strict=True)
    except (msgspec.ValidationError, TypeError, ValueError) as error:
        raise _refused("of that form", str(error)) from error
    total = state.total_samples
    if state.format != STATE_FORMAT:
        raise _refused(STATE_FORMAT, state.format)
    if not (state.rule.order in ORDERS and state.rule.window_samples >= 0 and state.epoch >= 1 and state.files >= 1):
        raise _refused("an epoch from 1 and a known order", f"epoch {state.epoch}, order {state.rule.order!r}")
    if state.intervals != joined(state.intervals) or any(not 0 <= low < high <= total for low, high in state.intervals):
        raise _refused(f"ascending intervals below {total}", str(state.intervals[:4]))
    if min(state.batch_size, state.world_size, state.rank, state.step, state.steps_before) < 0:
        raise _refused("counts of at least 0", str(state.step))
    if state.world_size == 0 and state.step == 0 and state.rank == 0:
        return state
    if not (state.rank < state.world_size and state.batch_size >= 1 and state.step <= state.dealing().steps):
        raise _refused("a rank and a step of its dealing", f"rank {state.rank}, step {state.step}")
    return state


def _refused(expected: str, got: str) -> UsageError:
    return UsageError("loader state is no good", expected=expected, got=got, remedy="pass what state_dict() returned")


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the state that goes on with exactly what no rank has taken, from the states of all ranks of one run.

    Needed only when the ranks were not at the same step: after a crash, or with workers that run ahead.
    Raises UsageError unless there is one state from each rank, all of the same dealing.
    """
    parsed = sorted((decode_state(plain) for plain in states), key=lambda state: state.rank)
    if not parsed:
        raise UsageError("no loader states to merge", expected="the state of every rank", got="none")
    oldest = min(parsed, key=lambda state: state.epoch)
    ranks = [state.rank for state in parsed]
    if ranks != list(range(max(oldest.world_size, 1))):
        raise UsageError(
            "loader states are not of all ranks of one run",
            expected=f"ranks 0 to {max(oldest.world_size, 1) - 1}, one state each",
            got=str(ranks[:16]),
        )
    if oldest.world_size == 0:
        return encode_state(oldest)
    steps = [_steps_in(state, oldest) for state in parsed]
    if len(set(steps)) == 1:
        return encode_state(msgspec.structs.replace(oldest, step=steps[0]))
    merged = msgspec.structs.replace(
        oldest,
        intervals=oldest.dealing().left(steps),
        steps_before=oldest.steps_before + min(steps),
        step=0,
        rank=0,
        world_size=0,
        batch_size=0,
    )
    return encode_state(merged)


def _steps_in(state: LoaderState, oldest: LoaderState) -> int:
    """Return how many steps of the oldest state's dealing this rank has taken; all of them if it is an epoch ahead."""
    ahead = state.epoch == oldest.epoch + 1 and state.untouched()
    same: tuple[str, ...] = ("rule", "files", "total_samples", "total_bytes", "batch_size", "world_size")
    if not ahead:
        same = (*same, "epoch", "intervals", "steps_before")
    for name in same:
        if getattr(state, name) != getattr(oldest, name):
            raise UsageError(
                "loader states are of different runs",
                where=name,
                expected=str(getattr(oldest, name))[:80],
                got=str(getattr(state, name))[:80],
            )
    return oldest.dealing().steps if ahead else state.step
