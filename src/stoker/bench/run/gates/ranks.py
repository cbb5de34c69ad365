"""The gates' look on every rank of a launcher: rank 0 writes a file, all look for it, rank 0 removes it and tells."""

import sys
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Final

import msgspec

from stoker.bench.run.hosts.facts import Request, TargetFacts, target_facts
from stoker.bench.run.hosts.sources import local_name
from stoker.bench.run.launch_mpi import world

MARK: Final = "stoker-gates "
PROGRAM: Final = "from stoker.bench.run.gates.ranks import main; main()"


class Look(msgspec.Struct, frozen=True):
    """What one rank saw."""

    rank: int
    host: str
    target: TargetFacts


def packed(request: Request) -> str:
    """Return a request as one word that no shell changes."""
    return urlsafe_b64encode(msgspec.json.encode(request)).decode()


def main() -> None:
    """Look with the other ranks; rank 0 prints one line."""
    comm = world()
    request = msgspec.json.decode(urlsafe_b64decode(sys.argv[1]), type=Request)
    mine = target_facts(msgspec.structs.replace(request, put=True)) if comm.rank == 0 else TargetFacts()
    comm.barrier()
    try:
        if comm.rank:
            mine = target_facts(request)
        told = comm.gather(msgspec.json.encode(Look(comm.rank, local_name(), mine)))
    finally:
        if comm.rank == 0:
            target_facts(msgspec.structs.replace(request, remove=True))
    if told is not None:
        looks = by_host(msgspec.json.decode(each, type=Look) for each in told)
        sys.stdout.write(f"{MARK}{msgspec.json.encode(looks).decode()}\n")
    comm.barrier()


def by_host(looks: Iterable[Look]) -> dict[str, TargetFacts]:
    """Return what each host saw: of its ranks the one that saw something else than the first, else the first."""
    found: dict[str, TargetFacts] = {}
    for look in looks:
        first = found.setdefault(look.host, look.target)
        if not first.error and (look.target.error or look.target.found != first.found):
            found[look.host] = look.target
    return found


if __name__ == "__main__":
    main()
