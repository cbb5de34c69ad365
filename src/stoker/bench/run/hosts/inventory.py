"""What hosts are made of, asked before a run: a system's description is drafted from it, and held against it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from stoker.bench.run.hosts.facts import Request
from stoker.bench.run.hosts.preflight import AT_ONCE_MAX, ask, is_here
from stoker.bench.run.hosts.sources import kept_environment, local_name
from stoker.core.host_series import HostSeries


def inventory(names: Sequence[str] = ()) -> list[HostSeries]:
    """Return each host's facts as a series without samples, in the order of `names`; this host's when none is named.

    A host that cannot be asked has errors and no facts. Other hosts are asked over SSH, side by side.
    """
    asked = list(names) or [local_name()]
    with ThreadPoolExecutor(min(AT_ONCE_MAX, len(asked))) as pool:
        return list(pool.map(_one, asked))


def _one(name: str) -> HostSeries:
    told, _ = ask(name, Request(hardware=True))
    if told.error or told.hardware is None:
        return HostSeries(name, "ssh", errors=[told.error or "the host told nothing of its hardware"])
    found = told.hardware
    if is_here(name):
        found.start["environment"] = kept_environment()  # a login over SSH has not the environment of the run
    else:
        found.source = "ssh"
    return found
