"""A system's description through its life: drafted from facts once, filled in by hand, held against facts ever after.

The draft names what was collected and leaves blank what only the submitter knows. It is never written again: a later
run whose hosts differ from it fails with E404 and a unified diff, for results of two machines are not one result.
Seven fields that hands fill in better than a kernel are compared softly: model, number and cores of the processors,
memory, model of the chassis, name and version of the operating system.
"""

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from stoker.bench.report.submission.hardware import HostHardware, nodes_of
from stoker.bench.report.submission.power import read_description
from stoker.bench.rules.mlperf.reading import dig
from stoker.core.errors import StokerError
from stoker.core.files import write_atomic

E404: Final = "E404"
SOFT: Final = {
    "chassis.model_name": ("chassis", "model_name"),
    "chassis.cpu_model": ("chassis", "cpu_model"),
    "chassis.cpu_qty": ("chassis", "cpu_qty"),
    "chassis.cpu_cores": ("chassis", "cpu_cores"),
    "chassis.memory_capacity": ("chassis", "memory_capacity"),
    "operating_system.name": ("operating_system", "name"),
    "operating_system.version": ("operating_system", "version"),
}
"""The fields that are compared softly: a difference is told, and stops nothing."""
_PORT: Final = ("type", "state", "speed")
_DRIVE: Final = ("vendor_name", "model_name", "interface", "capacity_in_GB")

_HEAD: Final = """\
# The description of the system {name}, drafted from what was collected on its clients.
# Fill in every blank; stoker check tells which are left. It is never written again: a later run on other hosts fails.
# A local or hyper-converged system: move the entry of `clients` to `product_nodes`.
system_under_test:
  solution:
    submission_name: {name}
    friendly_description:           # one sentence for the reader of the table
    architecture:
      storage_location:             # remote | local | remote_and_local
      benchmark_API: {api}# file | object
      product_API:                  # file | object | block
      client_footprint:             # open_source | closed_source | n/a
      client_installation:          # in_box | installable | n/a
    capabilities:
      multi_host:                   # true | false
      simultaneous_write:           # true | false
      simultaneous_read:            # true | false
      remap_time_in_seconds:        # 0 exactly when both of the above are true
    usable_capacity_tib:            # at least 1
    availability:                   # available | preview | RDI
  deployment:                       # onprem | cloud; cloud: leave out rack units, power and product_nodes
  total_rack_units:                 # product nodes and switches; clients do not count
  rack_power_supplies: []
  product_nodes: []                 # of the same shape as clients
  product_switches: []
  # traffic: management, data, metadata, backend; media_type: HDD, TLC, QLC, other
  # psus_configured: unit_count, inlet_voltage, nameplate_power_watts, efficiency (Standard … Ruby, Unrated)
"""


class Drift(msgspec.Struct, frozen=True):
    """How hosts differ from a description: a unified diff, empty where they do not, and soft differences in words."""

    diff: str = ""
    soft: tuple[str, ...] = ()

    def error(self, path: Path) -> StokerError | None:
        """Return the error of a run that must not go on, None where nothing differs."""
        if not self.diff:
            return None
        return StokerError(
            f"{E404} the system is not the one that its description names",
            where=str(path),
            expected="the same hosts, ports, drives and settings",
            got=f"differences:\n{self.diff.rstrip()}\n",
            remedy="run on the described system, or name another one",
        )


def describe_system(path: Path, hosts: Sequence[HostHardware], *, api: str = "") -> bool:
    """Write the draft of `<system>.yaml` unless there is one; return whether it was written.

    `api` is how the benchmark reached the storage: file or object, empty where it is not known.
    """
    if path.exists():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    name = yaml.safe_dump(path.stem).removesuffix("...\n").strip()
    nodes = yaml.dump({"clients": nodes_of(hosts)}, Dumper=_Blanks, sort_keys=False, allow_unicode=True)
    body = "".join(f"  {line}" for line in nodes.splitlines(keepends=True))
    text = _HEAD.format(name=name, api=api.ljust(15)) + body
    write_atomic(path, text.encode())
    return True


class _Blanks(yaml.SafeDumper):
    """Writes None as nothing at all, and lists indented as people write them."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Blanks.add_representer(type(None), lambda dumper, _: dumper.represent_scalar("tag:yaml.org,2002:null", ""))


def drift(path: Path, hosts: Sequence[HostHardware], *, environment: bool = True) -> Drift:
    """Return how the hosts differ from the description at `path`. Raises CorruptError for one that cannot be read.

    Without `environment` that is not compared: who asks hosts before a run does not see the variables of its ranks.
    What the kernel did not tell may have been filled in by hand, and does not differ.
    """
    system = dig(read_description(path), ["system_under_test"])
    seen = nodes_of(hosts)
    told = [_with_known(node, seen) for node in _described(system)]
    if not environment:
        told, seen = ([_without_environment(node) for node in nodes] for nodes in (told, seen))
    before, now = (sorted(nodes, key=_facts) for nodes in (told, seen))
    diff = difflib.unified_diff(
        _lines(before), _lines(now), fromfile=f"described/{path.name}", tofile=f"collected/{path.name}"
    )
    return Drift("".join(diff), tuple(_soft(before, now)))


def _without_environment(node: Any) -> Any:
    return {**node, "environment": []} if isinstance(node, dict) else node


def _described(system: Any) -> list[Any]:
    """Return the nodes that hosts were collected of: the clients, else the nodes of a product that runs on them."""
    for key in ("clients", "product_nodes"):
        found = dig(system, [key])
        if isinstance(found, list) and found:
            return found
    return []


def _with_known(node: Any, seen: Iterable[Any]) -> Any:
    """Return a described node whose devices tell as little as the collected ones that they may be."""
    if not isinstance(node, dict):
        return node
    narrowed = dict(node)
    for key, names in (("networking", _PORT), ("drives", _DRIVE)):
        collected = [device for each in seen for device in _list(each, key)]
        narrowed[key] = [_narrowed(device, collected, names) for device in _list(node, key)]
    return narrowed


def _narrowed(device: Any, collected: Iterable[Any], names: Sequence[str]) -> Any:
    for other in collected:
        known = [name for name in names if dig(other, [name]) not in (None, "")]
        if all(_shown(dig(device, [name])) == _shown(dig(other, [name])) for name in known):
            return {"unit_count": dig(device, ["unit_count"]), **{name: dig(other, [name]) for name in known}}
    return device


def _lines(nodes: Iterable[Any]) -> list[str]:
    return [f"{line}\n" for node in nodes for line in _facts(node)]


def _facts(node: Any) -> list[str]:
    """Return what is compared of a kind of node, a line a fact; the order of its devices does not count."""
    lines = [f"quantity: {_shown(dig(node, ['quantity']))}"]
    for key, names in (("networking", _PORT), ("drives", _DRIVE)):
        rows = [_device(each, names) for each in _list(node, key)]
        lines += [f"  {key}: {row}" for row in sorted(rows)]
    for key in ("environment", "sysctl"):
        rows = [f"{_shown(dig(each, ['name']))} = {_shown(dig(each, ['value']))}" for each in _list(node, key)]
        lines += [f"  {key}: {row}" for row in sorted(rows)]
    return lines


def _device(facts: Any, names: Sequence[str]) -> str:
    told = ", ".join(f"{name} {_shown(dig(facts, [name]))}" for name in names)
    return f"{_shown(dig(facts, ['unit_count']))} x {told}"


def _list(node: Any, key: str) -> list[Any]:
    found = dig(node, [key])
    return found if isinstance(found, list) else []


def _shown(value: Any) -> str:
    if value in (None, ""):
        return "-"
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return f"{value:g}" if abs(value) < 1e6 else f"{value:.10g}"
    return " ".join(str(value).split())


def _soft(told: Sequence[Any], seen: Sequence[Any]) -> list[str]:
    """Return what differs of the fields that hands fill in, where as many kinds of nodes are there as were."""
    if len(told) != len(seen):
        return []
    found = []
    for at, (before, now) in enumerate(zip(told, seen, strict=True)):
        for name, keys in SOFT.items():
            pair = _shown(dig(before, keys)), _shown(dig(now, keys))
            if "-" not in pair and pair[0] != pair[1]:
                found.append(f"clients[{at}].{name}: described {pair[0]}, collected {pair[1]}")
    return found
