"""The gates' small real actions: a file written and looked for, the kernel asked for space, a hard link tried."""

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from stoker.bench.run.gates.deciding import apart_gate, exempt_gates, shared_gate, space_gate
from stoker.bench.run.gates.ranks import MARK, PROGRAM, packed
from stoker.bench.run.gates.request import Gate, GateReport, GateRequest
from stoker.bench.run.gates.sweeping import sweep
from stoker.bench.run.hosts.facts import SENTINEL, Request, TargetFacts, target_facts
from stoker.bench.run.hosts.preflight import is_here, look_at_hosts
from stoker.bench.run.hosts.separation import probe_separation
from stoker.bench.run.hosts.sources import local_name
from stoker.bench.run.hosts.start import Launch, heard_of
from stoker.core import clock, seed
from stoker.core.errors import UsageError
from stoker.storage.url import parse_url

LAUNCH_SECONDS: Final = 120.0
LOCAL_SCHEMES: Final = ("file", "direct")
Seen = dict[str, TargetFacts]


def run_gates(request: GateRequest) -> GateReport:
    """Make all gates and return what they found; nothing is left behind, and nothing is raised for a gate that is shut.

    Raises UsageError for a target that no scheme fits, and for none without a reason.
    """
    folder = _folder(request)
    if folder is None:
        return _report(request, "none", (), exempt_gates(request.exempt or _no_folder(request.target)))
    results = existing(Path(request.results))
    for place in {folder, results}:
        sweep(place)
    shared = folder if request.shared_target else results
    via, token, seen = _look(request, shared)
    spaces = seen
    if not request.shared_target:
        spaces = _look(request, folder)[2]
    record = probe_separation(folder, results, write=True)
    record["data_or_chkpt_path"], record["results_path"] = _plain(request.target), request.results
    gates = (
        space_gate(spaces, request),
        shared_gate(seen, token, str(shared)),
        apart_gate(record, suppressed=request.skip_separation),
    )
    return msgspec.structs.replace(_report(request, via, tuple(seen), gates), separation=record)


def _report(request: GateRequest, via: str, hosts: tuple[str, ...], gates: tuple[Gate, ...]) -> GateReport:
    return GateReport(
        target=parse_url(request.target).redacted if "://" in request.target else request.target,
        results=request.results,
        via=via,
        hosts=hosts,
        checked_at=clock.utc_text(),
        gates=gates,
    )


def _no_folder(target: str) -> str:
    """Return why there is nothing to look at. Raises UsageError when nothing was told."""
    if not target:
        raise UsageError("the gates need a target", expected="a folder, a URL, or why there is none")
    return f"{parse_url(target).scheme}:// is no file system: it has no space, folders or links of its own"


def _plain(target: str) -> str:
    return parse_url(target).path


def _folder(request: GateRequest) -> Path | None:
    """Return the folder to look at: the target or, before it is made, the nearest one above; None for no folder."""
    if request.exempt or not request.target:
        return None
    parsed = parse_url(request.target)
    return existing(Path(parsed.path)) if parsed.scheme in LOCAL_SCHEMES else None


def existing(place: Path) -> Path:
    """Return the place, or the nearest folder above it that is there."""
    place = Path(os.path.abspath(place))  # noqa: PTH100 - resolves `..` without following links
    while not place.is_dir() and place != place.parent:
        place = place.parent
    return place


def _look(request: GateRequest, place: Path) -> tuple[str, str, Seen]:
    """Return how the hosts were asked, what the file held, and what each host saw of the place."""
    if request.launch is not None and len(request.launch.hosts) > 0:
        return ("launcher", *_by_launcher(request.launch, place))
    names = [host.name for host in request.hosts]
    if not names or (len(names) == 1 and is_here(names[0])):
        return ("local", *_here(place))
    seen = look_at_hosts(names, str(place))
    looks = {name: host.target or TargetFacts(error=host.error) for name, host in seen.facts.items()}
    return "ssh", seen.token, looks


def _here(place: Path) -> tuple[str, Seen]:
    request = _request(place)
    try:
        return request.token, {local_name(): target_facts(msgspec.structs.replace(request, put=True))}
    finally:
        _remove(request)


def _request(place: Path) -> Request:
    token = seed.run_id()
    return Request(target=str(place), sentinel=SENTINEL.format(token=token), token=token)


def _remove(request: Request) -> None:
    with suppress(OSError):
        Path(request.target, request.sentinel).unlink(missing_ok=True)


def _by_launcher(launch: Launch, place: Path) -> tuple[str, Seen]:
    """Have every rank look, started by the very launcher that the run will use."""
    request = _request(place)
    try:
        ended = heard_of(launch, [sys.executable, "-P", "-c", PROGRAM, packed(request)], seconds=LAUNCH_SECONDS)
    finally:
        _remove(request)
    if ended is None:
        told = f"{launch.launcher.told} did not let all ranks look within {LAUNCH_SECONDS:.0f} s"
        return request.token, {local_name(): TargetFacts(error=told)}
    line = next((line for line in ended.stdout.splitlines() if line.startswith(MARK)), "")
    if line:
        return request.token, msgspec.json.decode(line.removeprefix(MARK), type=dict[str, TargetFacts])
    last = " ".join((ended.stderr or ended.stdout).split())[-300:]
    told = f"{launch.launcher.told} started no ranks (exit code {ended.returncode}): {last}"
    return request.token, {local_name(): TargetFacts(error=told)}
