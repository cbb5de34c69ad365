"""A trial of the launcher: every rank says where it is, and rank 0 tells."""

import sys
from collections import Counter
from typing import Final

import msgspec

from stoker.bench.run.hosts.sources import local_name
from stoker.bench.run.launch_mpi import world

MARK: Final = "stoker-trial "


class Trial(msgspec.Struct, frozen=True):
    """How many ranks met, where, by which library."""

    ranks: int
    ranks_by_host: dict[str, int]
    library: str


def main() -> None:
    """Meet the other ranks; rank 0 prints one line."""
    comm = world()
    names = comm.gather(local_name().encode())
    if names is not None:
        by_host = dict(Counter(name.decode() for name in names))
        told = msgspec.json.encode(Trial(comm.size, by_host, comm.library)).decode()
        sys.stdout.write(f"{MARK}{told}\n")
    comm.barrier()


if __name__ == "__main__":
    main()
