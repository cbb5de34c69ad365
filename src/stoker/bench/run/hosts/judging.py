"""From what the hosts tell to findings: what differs, what is missing, what is not shared. Pure."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import msgspec

from stoker.bench.run.hosts.facts import HostFacts, TargetFacts
from stoker.core.host_series import ClockOffset
from stoker.core.units import GiB, MiB, format_bytes, format_seconds

OPEN_FILES_WANTED: Final = 4096
SHARED_MEMORY_WANTED_BYTES: Final = 256 * MiB
CLOCK_WANTED_SECONDS: Final = 1.0
SPACE_LOW_BYTES: Final = 1 * GiB


class Check(msgspec.Struct, frozen=True):
    """One check: `status` is ok, note, warn or fail; `remedy` says what to do about anything but ok."""

    name: str
    status: str
    observed: str
    remedy: str = ""


class Asked(msgspec.Struct, frozen=True):
    """What was asked: the target, what its sentinel holds (empty: there is none), and the bytes that are needed."""

    target: str = ""
    token: str = ""
    needed_bytes: int = 0


def judge_hosts(
    facts: Mapping[str, HostFacts], asked: Asked, offsets: Mapping[str, ClockOffset] | None = None
) -> list[Check]:
    """Return the checks of all hosts: those that concern one host first, then what they must have in common."""
    checks = [check for name, host in facts.items() for check in _one(name, host)]
    reached = {name: host for name, host in facts.items() if not host.error}
    if reached:
        checks += [_same("stoker version", {name: host.stoker_version for name, host in reached.items()}, "fail")]
        checks += [_same("python version", {name: host.python for name, host in reached.items()}, "warn")]
        checks += [_locked(reached), *_targets(reached, asked), *_clocks(offsets or {})]
    return checks


def _one(name: str, host: HostFacts) -> Iterator[Check]:
    if host.error:
        yield Check(f"host {name}", "fail", host.error, host.remedy)
        return
    told = f"{host.host}, {host.cpus} CPUs, {format_bytes(host.memory_bytes)} of memory, {host.system}"
    yield Check(f"host {name}", "ok", told)
    if 0 <= host.open_files < OPEN_FILES_WANTED:
        yield Check(f"open files on {name}", "warn", f"limit {host.open_files}", f"ulimit -n {OPEN_FILES_WANTED} there")
    free = host.shared_memory_free_bytes
    if free is None or free < SHARED_MEMORY_WANTED_BYTES:
        told = "no /dev/shm" if free is None else f"{format_bytes(free)} free in /dev/shm"
        yield Check(f"shared memory on {name}", "warn", told, "enlarge /dev/shm there")


def _same(what: str, found: Mapping[str, str], status: str) -> Check:
    values = Counter(found.values())
    if len(values) == 1:
        return Check(what, "ok", f"{next(iter(values))} on {_hosts(len(found))}")
    usual = values.most_common(1)[0][0]
    others = ", ".join(f"{value} on {name}" for name, value in found.items() if value != usual)
    return Check(what, status, f"{usual} on {_hosts(values[usual])}, but {others}", "install the same on all hosts")


def _locked(hosts: Mapping[str, HostFacts]) -> Check:
    different = {name: host.not_locked for name, host in hosts.items() if host.not_locked}
    if not different:
        return Check("locked versions", "ok", f"as locked on {_hosts(len(hosts))}")
    told = "; ".join(f"{name}: {', '.join(packages[:5])}" for name, packages in different.items())
    same = len(set(different.values())) == 1 and len(different) == len(hosts)
    remedy = "pip install -r the lock file of this release"
    return Check("locked versions", "note" if same else "warn", told, remedy)


def _targets(hosts: Mapping[str, HostFacts], asked: Asked) -> Iterator[Check]:
    seen = {name: host.target for name, host in hosts.items() if host.target is not None}
    if not seen:
        return
    for name, target in seen.items():
        if target.error:
            yield Check(f"target on {name}", "fail", target.error, f"make {asked.target} the same place on every host")
        if target.credentials_missing:
            names = ", ".join(target.credentials_missing)
            yield Check(f"credentials on {name}", "note", f"not in its environment: {names}", "set them where we start")
    good = {name: target for name, target in seen.items() if not target.error}
    if asked.token and good:
        yield shared_check(good, asked)
    spaces = {name: target.free_bytes for name, target in good.items() if target.free_bytes is not None}
    if spaces:
        yield space_check(spaces, asked.needed_bytes)
    mounts = {
        name: f"{target.mount_type} {','.join(target.mount_options)}"
        for name, target in good.items()
        if target.mount_type
    }
    if mounts:
        yield _same("target mount", mounts, "warn")


def shared_check(seen: Mapping[str, TargetFacts], asked: Asked) -> Check:
    """Every host must see the file that one of them wrote: a folder of the same name is not the same folder.

    What it holds was drawn at random, and it has one inode wherever it is seen. Its device has one number only where
    that is of a disk: network file systems are numbered by each host for itself.
    """
    remedy = f"mount the same file system at {asked.target} on every host"
    blind = [name for name, target in seen.items() if target.found != asked.token]
    if blind:
        told = f"a file that one host wrote is not seen on {', '.join(blind)}"
        return Check("target shared", "fail", told, remedy)
    for what, found in (("inode", {target.inode for target in seen.values()}), ("device", _disks(seen))):
        if len(found) > 1:
            return Check("target shared", "fail", f"the file has {len(found)} {what} numbers on its hosts", remedy)
    return Check("target shared", "ok", f"a file that one host wrote is seen on {_hosts(len(seen))}")


def _disks(seen: Mapping[str, TargetFacts]) -> set[int]:
    """Return the devices that have a driver: major 0 is that of file systems without one."""
    return {target.device for target in seen.values() if target.device is not None and os.major(target.device)}


def space_check(spaces: Mapping[str, int], needed_bytes: int) -> Check:
    """The host that sees least space sees enough."""
    name = min(spaces, key=lambda host: spaces[host])
    free = spaces[name]
    told = f"{format_bytes(free)} free"
    if needed_bytes > free:
        missing = f"{told}, {format_bytes(needed_bytes)} needed, {format_bytes(needed_bytes - free)} too little"
        return Check("target space", "fail", f"{missing} (on {name})", "free some space, or ask for less")
    low = free < SPACE_LOW_BYTES
    return Check("target space", "warn" if low else "ok", told, "free some space before generating" if low else "")


def _clocks(offsets: Mapping[str, ClockOffset]) -> Iterator[Check]:
    if not offsets:
        return
    name = max(offsets, key=lambda host: abs(offsets[host].seconds))
    worst = offsets[name]
    told = f"at most {format_seconds(abs(worst.seconds))} apart, give or take {format_seconds(worst.error_seconds)}"
    apart = abs(worst.seconds) - worst.error_seconds > CLOCK_WANTED_SECONDS
    remedy = f"set the clock of {name}, by NTP for instance" if apart else ""
    yield Check("clocks", "warn" if apart else "ok", f"{told} ({name})", remedy)


def _hosts(count: int) -> str:
    return f"{count} host{'' if count == 1 else 's'}"


def failed(checks: Sequence[Check]) -> list[Check]:
    """Return the checks that keep a run from being started."""
    return [check for check in checks if check.status == "fail"]
