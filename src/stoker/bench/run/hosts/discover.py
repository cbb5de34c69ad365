"""Which of several processes this one is, where nothing but the environment tells: Kubernetes Indexed Jobs, Slurm.

    STOKER_CONDUCTOR      host:port of the process with index 0, as the others reach it; it listens there
    STOKER_MEMBERS        how many processes there are, one a host (of an Indexed Job: its completions)
    STOKER_RANKS          how many ranks they take together, spread evenly, the first ones one more
    STOKER_MEETING_TOKEN  a secret that all know, 16 characters or more
    JOB_COMPLETION_INDEX  this one's number, from Kubernetes; else SLURM_PROCID, else STOKER_INDEX

No MPI is needed. Pure: the environment is passed in.
"""

import os
from collections.abc import Mapping
from typing import Final

import msgspec

from stoker.bench.run.hosts.lines import Place
from stoker.core.errors import UsageError

CONDUCTOR: Final = "STOKER_CONDUCTOR"
MEMBERS: Final = "STOKER_MEMBERS"
RANKS: Final = "STOKER_RANKS"
TOKEN: Final = "STOKER_MEETING_TOKEN"  # noqa: S105 - the variable's name, not a secret
JOIN: Final = "STOKER_JOIN_SECONDS"
INDEX_NAMES: Final = ("JOB_COMPLETION_INDEX", "SLURM_PROCID", "STOKER_INDEX")
JOIN_SECONDS: Final = 600.0
TOKEN_CHARACTERS_MIN: Final = 16


class Found(msgspec.Struct, frozen=True):
    """This process among `members`: its index, its ranks, and where they meet."""

    index: int
    members: int
    ranks: int
    place: Place
    found_by: str
    join_seconds: float = JOIN_SECONDS

    def mine(self) -> range:
        """Return the numbers of this process's ranks."""
        whole, more = divmod(self.ranks, self.members)
        first = self.index * whole + min(self.index, more)
        return range(first, first + whole + (self.index < more))


def discover(environment: Mapping[str, str] | None = None) -> Found | None:
    """Return which process this is, None where no conductor is named.

    Raises UsageError, naming the variable, for an environment that is only half set or makes no sense.
    """
    environment = os.environ if environment is None else environment
    if not environment.get(CONDUCTOR):
        return None
    name = next((name for name in INDEX_NAMES if environment.get(name, "") != ""), "")
    if not name:
        raise UsageError(f"{CONDUCTOR} is set, but no index", expected=f"one of {', '.join(INDEX_NAMES)}")
    index, members, ranks = (_number(environment, each) for each in (name, MEMBERS, RANKS))
    if not (0 <= index < members and 1 <= members <= ranks):
        told = f"{name}={index}, {MEMBERS}={members}, {RANKS}={ranks}"
        raise UsageError("processes and ranks do not fit", expected="index < members <= ranks", got=told)
    host, colon, port = environment[CONDUCTOR].rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) < 65536):
        raise UsageError(f"{CONDUCTOR}: bad place", where=environment[CONDUCTOR], expected="host:port")
    token = environment.get(TOKEN, "")
    if len(token) < TOKEN_CHARACTERS_MIN:
        raise UsageError(f"{TOKEN} is missing or short", expected=f"a secret of {TOKEN_CHARACTERS_MIN} characters")
    join = environment.get(JOIN, "")
    seconds = float(join) if join.replace(".", "", 1).isdecimal() else JOIN_SECONDS
    place = Place((host.strip("[]"),), int(port), token)
    return Found(index, members, ranks, place, f"{name}={index}", seconds)


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not (text.isdecimal() and len(text) < 10):
        raise UsageError(f"{name}: not a number", got=repr(text), expected="a whole number")
    return int(text)
