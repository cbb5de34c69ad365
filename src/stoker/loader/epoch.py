"""One epoch as one rank will read it: the order, the dealing, and how many of its steps are to be taken."""

from collections.abc import Iterator
from typing import Final

import msgspec
import numpy as np

from stoker.loader.dealing import Dealing, Interval, joined
from stoker.loader.order import EpochOrder, Int64s, digest, visited_digest
from stoker.loader.state import LoaderState

_PIECE: Final = 1 << 18


class EpochPlan(msgspec.Struct, frozen=True):
    """Steps `first_step` to `last_step` (excluded) of `dealing`; the epoch took `steps_before` steps before that."""

    epoch: int
    order: EpochOrder
    dealing: Dealing
    rank: int
    first_step: int
    last_step: int
    steps_before: int
    total_samples: int

    @property
    def steps(self) -> int:
        """Return how many steps are to be taken."""
        return self.last_step - self.first_step

    def positions(self, first_step: int, last_step: int) -> Int64s:
        """Return the positions of this rank in the given steps of the dealing."""
        return self.dealing.positions(self.rank, first_step, last_step)

    def expected_digest(self) -> int:
        """Return the digest of what all ranks together will visit; computed from whichever is fewer, those or the rest.

        Time is O(samples), memory O(1).
        """
        before, after = self.dealing.left(self.first_step), self.dealing.left(self.last_step)
        rest = joined((*complement(before, self.total_samples), *after))
        if 2 * sum(stop - start for start, stop in rest) > self.total_samples:
            return visited_digest(self.order, _pieces(complement(rest, self.total_samples)))
        total = 0
        for piece in _pieces(((0, self.total_samples),)):
            total ^= digest(piece)
        return total ^ visited_digest(self.order, _pieces(rest))


def complement(intervals: tuple[Interval, ...], total: int) -> tuple[Interval, ...]:
    """Return the positions below `total` that ascending, disjoint intervals leave out."""
    borders = [0, *(border for interval in intervals for border in interval), total]
    return joined(zip(borders[::2], borders[1::2], strict=True))


def _pieces(intervals: tuple[Interval, ...]) -> Iterator[Int64s]:
    for start, stop in intervals:
        for low in range(start, stop, _PIECE):
            yield np.arange(low, min(low + _PIECE, stop))


def dealt_on(state: LoaderState, *, batch_size: int, world_size: int, rank: int) -> LoaderState:
    """Return the state as this rank continues it.

    Dealt to the same ranks in the same batches, the rest keeps its order exactly; otherwise it is dealt anew.
    """
    if (state.batch_size, state.world_size) == (batch_size, world_size):
        return msgspec.structs.replace(state, rank=rank)
    return msgspec.structs.replace(
        state,
        intervals=state.left(),
        steps_before=state.steps_before + state.step,
        step=0,
        batch_size=batch_size,
        world_size=world_size,
        rank=rank,
    )
