"""The gates that stood before a workload, as the leaf keeps them: free space, one file system, data apart from results.

Trees of the reference tool keep no such record of the first two: there the rules stay undecided, and nobody could have
given more.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from stoker.bench.rules.mlperf.findings import Check, Context, Fault, Said, excused, missing
from stoker.bench.rules.mlperf.layout import Series
from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.parameter_checks import SEPARATION, is_object
from stoker.bench.rules.mlperf.reading import dig, number, whole, words

GATES_FILE: Final = "gates.json"
_VERSION: Final = 1
_STATES: Final = ("passed", "failed", "exempt")


Found = tuple[Leaf, str, Mapping[str, Any], str]


def _gates(series: Series, rule: str) -> Iterator[Said | Found]:
    """Yield the gate of each leaf as (leaf, path of the file, its entry, its key), or why there is none."""
    leaves = [*series.phase("datagen"), *series.runs]
    if not any(leaf.has(GATES_FILE) for leaf in leaves):
        yield excused("no record of the gates: known only when the runs started", series.path)
        return
    for leaf in leaves:
        if leaf.has(GATES_FILE):
            yield _gate(leaf, rule)
        elif leaf.command == "run":
            expected = f"{GATES_FILE}, as other runs of this result have it"
            yield Fault(f"{GATES_FILE} is missing", expected, leaf.folder.below(GATES_FILE))


def _gate(leaf: Leaf, rule: str) -> Said | Found:
    path, document = leaf.folder.below(GATES_FILE), leaf.document(GATES_FILE)
    if document is None:
        return missing("what the gates found", path)
    if whole(document, "version") != _VERSION:
        return Fault(f"version {dig(document, ['version'])}", f"{_VERSION}", path, "version")
    gates = dig(document, ["gates"])
    for place, entry in enumerate(gates if isinstance(gates, list) else []):
        if isinstance(entry, dict) and entry.get("id") == rule:
            return (leaf, path, entry, f"gates.{place}")
    return Fault(f"no gate {rule}", "the three gates", path, "gates")


def _answered(series: Series, rule: str) -> Iterator[Said | Found]:
    """Yield the gates that passed and have to prove it; faults for those that are shut or exempt without a reason."""
    for found in _gates(series, rule):
        if not isinstance(found, tuple):
            yield found
            continue
        leaf, path, entry, key = found
        state = entry.get("state")
        if state == "passed":
            yield found
        elif state == "exempt":
            if leaf.family != "vector_database" and not is_object(leaf):
                yield Fault("exempt", "exempt only for object stores and remote engines", path, f"{key}.state")
        else:
            told = f"{state}" if state in _STATES else f"state {state!r}"
            why = words(entry, "observed")
            yield Fault(f"{told}: {why}" if why else told, "the gate passed", path, f"{key}.state")


def free_space(series: Series, _: Context) -> Iterable[Said]:
    """The target had the room that was needed."""
    for found in _answered(series, "CAP-01"):
        if not isinstance(found, tuple):
            yield found
            continue
        _leaf, path, entry, key = found
        have, need = (number(entry, f"facts.{name}_bytes") for name in ("available", "required"))
        if have is None or need is None:
            yield missing("the bytes available and required", path)
        elif have < need:
            yield Fault(f"{have:,.0f} bytes available", f"at least {need:,.0f}", path, f"{key}.facts.available_bytes")


def one_file_system(series: Series, _: Context) -> Iterable[Said]:
    """Every client saw the file that the first rank wrote."""
    for found in _answered(series, "CAP-02"):
        if not isinstance(found, tuple):
            yield found
            continue
        leaf, path, entry, key = found
        seen = dig(entry, ["facts", "seen"])
        if not isinstance(seen, dict) or not all(isinstance(each, dict) for each in seen.values()):
            yield missing("what each client saw", path)
            continue
        yield from _seen_by_all(leaf, path, f"{key}.facts.seen", seen)


def _seen_by_all(leaf: Leaf, path: str, key: str, seen: Mapping[str, Mapping[str, Any]]) -> Iterable[Said]:
    blind = sorted(name for name, each in seen.items() if each.get("same_content") is not True)
    inodes = {str(each.get("inode")) for each in seen.values()}
    if blind:
        yield Fault(f"not seen by {', '.join(blind)}", "seen by every client", path, key)
    elif len(inodes) > 1:
        yield Fault(f"{len(inodes)} inodes", "one file", path, key)
    elif leaf.hosts is not None and len(seen) < leaf.hosts:
        yield Fault(f"{len(seen)} clients looked", f"all {leaf.hosts}", path, key)


def apart(series: Series, _: Context) -> Iterable[Said]:
    """The gate and the record of its probe say that data and results lie on two file systems."""
    for found in _answered(series, "CAP-03"):
        if not isinstance(found, tuple):
            yield found
            continue
        leaf, path, entry, key = found
        told = dig(entry, ["facts", "same_filesystem"])
        probed = dig(leaf.document(SEPARATION), ["same_filesystem"])
        if not leaf.has(SEPARATION):
            yield Fault(f"{SEPARATION} is missing", "the record of the probe", leaf.folder.below(SEPARATION))
        elif told is not False or probed is not False:
            expected = f"false, as {SEPARATION} has it"
            yield Fault(f"same_filesystem {told}, probed {probed}", expected, path, f"{key}.facts.same_filesystem")


CHECKS = {
    "CAP-01": Check("series", free_space),
    "CAP-02": Check("series", one_file_system),
    "CAP-03": Check("series", apart),
}
