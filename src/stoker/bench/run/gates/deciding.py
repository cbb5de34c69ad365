"""From what the hosts saw to the gates' answers. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from stoker.bench.rules.mlperf import RULES
from stoker.bench.run.gates.request import (
    APART,
    DISK_FULL,
    EXEMPT,
    FAILED,
    NOT_SHARED,
    PASSED,
    PROBE_FAILED,
    SHARED,
    SPACE,
    Gate,
    GateRequest,
)
from stoker.bench.run.hosts.facts import TargetFacts
from stoker.bench.run.hosts.judging import Asked, shared_check, space_check
from stoker.core.units import format_bytes

HOSTS_TOLD_MAX: Final = 8


def gate(rule: str, state: str, observed: str, **facts: Any) -> Gate:
    """Return a gate's answer with the name, what holds and the remedy that the catalogue of rules has for it."""
    entry = RULES[rule]
    known = {"expected": entry.tested, "remedy": entry.remedy if state == FAILED else ""}
    return Gate(id=rule, name=entry.name, state=state, observed=observed, **{**known, **facts})


def space_gate(seen: Mapping[str, TargetFacts], request: GateRequest) -> Gate:
    """Enough bytes, and enough inodes, as the host sees it that sees least."""
    spaces = {name: target.free_bytes for name, target in seen.items() if target.free_bytes is not None}
    if not spaces:
        return gate(SPACE, FAILED, f"free space cannot be told: {_errors(seen)}", code=PROBE_FAILED)
    inodes = [target.free_files for target in seen.values() if target.free_files is not None]
    available, free_files = min(spaces.values()), min(inodes, default=None)
    facts: dict[str, Any] = {
        "available_bytes": available,
        "required_bytes": request.needed_bytes,
        "deficit_bytes": max(0, request.needed_bytes - available),
        "available_files": free_files,
        "required_files": request.needed_files,
    }
    told = space_check(spaces, request.needed_bytes)
    if told.status == "fail":
        return gate(SPACE, FAILED, told.observed, code=DISK_FULL, facts=facts)
    if free_files is not None and free_files < request.needed_files:
        observed = f"{free_files:,} inodes free, {request.needed_files:,} needed"
        return gate(SPACE, FAILED, observed, code=DISK_FULL, facts=facts)
    return gate(SPACE, PASSED, f"{told.observed}, {format_bytes(request.needed_bytes)} needed", facts=facts)


def shared_gate(seen: Mapping[str, TargetFacts], token: str, place: str) -> Gate:
    """Every host sees the file that one of them wrote."""
    looks = {
        name: {"device": target.device, "inode": target.inode, "same_content": target.found == token}
        for name, target in seen.items()
    }
    facts = {"path": place, "seen": looks}
    if any(target.error for target in seen.values()):
        return gate(SHARED, FAILED, _errors(seen), code=NOT_SHARED, facts=facts)
    told = shared_check(seen, Asked(place, token))
    if told.status == "fail":
        return gate(SHARED, FAILED, told.observed, code=NOT_SHARED, facts=facts)
    return gate(SHARED, PASSED, told.observed, facts=facts)


def apart_gate(record: Mapping[str, Any], *, suppressed: bool) -> Gate:
    """A hard link from the target into the results fails, since they lie on two file systems."""
    places = f"{record['data_or_chkpt_realpath']} and {record['results_realpath']}"
    facts = {"same_filesystem": record["same_filesystem"]}
    if record["same_filesystem"] is False:
        return gate(APART, PASSED, f"{places} are apart", facts=facts)
    why = "lie on one file system" if record["same_filesystem"] else f"cannot be told apart: {record.get('error', '')}"
    return gate(APART, FAILED, f"{places} {why}", suppressed=suppressed, facts=facts)


def exempt_gates(reason: str) -> tuple[Gate, ...]:
    """Return the gates of a target that is no file system."""
    return tuple(gate(rule, EXEMPT, reason) for rule in (SPACE, SHARED, APART))


def _errors(seen: Mapping[str, TargetFacts]) -> str:
    bad = [f"{name}: {target.error}" for name, target in seen.items() if target.error]
    return "; ".join(bad[:HOSTS_TOLD_MAX]) + (f"; and {len(bad) - HOSTS_TOLD_MAX} more" if len(bad) > 8 else "")
