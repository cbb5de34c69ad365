"""What the ranks of a run need of each other: to wait, and to agree on stopping, in one step."""

from typing import Protocol

from stoker.core.errors import StokerError


class RunAborted(StokerError):
    """Another rank failed: this rank ends with what it has."""


class Comm(Protocol):
    """The ranks of a run, seen from one of them.

    `host_rank` counts the ranks on the same host, from 0 to `host_size` - 1.
    """

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    @property
    def host_rank(self) -> int: ...

    @property
    def host_size(self) -> int: ...

    def barrier(self, stop: bool = False) -> bool:
        """Wait for all ranks; return whether any of them asked to stop. All ranks get the same answer.

        Raises RunAborted when the run is called off meanwhile.
        """


class SoloComm:
    """A run of a single rank."""

    rank = 0
    size = 1
    host_rank = 0
    host_size = 1

    def barrier(self, stop: bool = False) -> bool:
        """Return `stop`: there is nobody to wait for."""
        return stop
