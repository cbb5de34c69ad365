"""When a chain of differences is cut by a whole image: its length costs room, and time for whoever begins at its start.

A fixed number of steps is right for one rate of change only. What a chain costs is known when it is made: its bytes,
and about how long it takes to go through.
"""

from typing import Final

import msgspec

STEP_BYTES_PER_SECOND: Final = 2e9
"""How much of the images one step of a chain goes through in a second: it reads the old one, checks and writes the new
(`python -m benchmarks.pages`)."""


class Chain(msgspec.Struct, frozen=True):
    """What was made since the last whole image: how many differences, their bytes, and those of a whole image."""

    whole_bytes: int
    length: int = 0
    stored_bytes: int = 0

    def longer(self, stored_bytes: int) -> "Chain":
        """Return it with one difference more."""
        return Chain(self.whole_bytes, self.length + 1, self.stored_bytes + stored_bytes)

    def seconds(self) -> float:
        """Return about how long it takes to go through."""
        return (self.length * self.whole_bytes + self.stored_bytes) / STEP_BYTES_PER_SECOND


class AnchorPolicy(msgspec.Struct, frozen=True):
    """When the next image is a whole one; each rule alone suffices.

    stored_ratio_max  the differences take more than this part of a whole image
    seconds_max       going through them takes longer than this
    length_max        there are so many of them
    """

    stored_ratio_max: float = 0.5
    seconds_max: float = 10.0
    length_max: int = 1 << 30

    def due(self, chain: Chain) -> bool:
        """Tell whether the next image should be whole."""
        return (
            chain.length >= self.length_max
            or chain.stored_bytes > self.stored_ratio_max * chain.whole_bytes
            or chain.seconds() > self.seconds_max
        )
