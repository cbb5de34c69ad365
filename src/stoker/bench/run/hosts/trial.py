"""A trial of the launcher: every rank says where it is, and rank 0 tells."""

import os
import sys
from collections import Counter
from typing import Final

import msgspec

from stoker.bench.run.hosts.mpirun import PASSED_VARIABLE
from stoker.bench.run.hosts.sources import local_name
from stoker.bench.run.launch_mpi import world

MARK: Final = "stoker-trial "


class Trial(msgspec.Struct, frozen=True):
    """How many ranks met, where, by which library."""

    ranks: int
    ranks_by_host: dict[str, int]
    library: str
    variables_missing: tuple[str, ...] = ()


def main() -> None:
    """Meet the other ranks; rank 0 prints one line."""
    comm = world()
    wanted = os.environ.get(PASSED_VARIABLE, "").split(",")
    missing = [f"{name} on {local_name()}" for name in wanted if name and name not in os.environ]
    missing += [] if PASSED_VARIABLE in os.environ else [f"{PASSED_VARIABLE} on {local_name()}"]
    names, missed = comm.gather(local_name().encode()), comm.gather(",".join(missing).encode())
    if names is not None and missed is not None:
        by_host = dict(Counter(name.decode() for name in names))
        lacking = tuple(dict.fromkeys(name for line in missed for name in line.decode().split(",") if name))
        told = msgspec.json.encode(Trial(comm.size, by_host, comm.library, lacking)).decode()
        sys.stdout.write(f"{MARK}{told}\n")
    comm.barrier()


if __name__ == "__main__":
    main()
