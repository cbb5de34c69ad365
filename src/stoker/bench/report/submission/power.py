"""Rack units and provisioned power of a described system, and the table that shows how they add up.

Provisioned power is the nameplate of every power supply that is installed: those of the product's nodes, as often as
the nodes are there, and of its switches. Clients and the racks' own supplies are not counted, redundancy is not netted.
Nothing of it is measured.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from stoker.bench.rules.mlperf.reading import dig, number, words
from stoker.core.errors import CorruptError
from stoker.core.files import write_atomic
from stoker.core.plain_yaml import load_plain

YAML_BYTES_MAX: Final = 1 << 20
_HEAD: Final = "| component | count | power supplies of each | nameplate of each (W) | provisioned (W) | rack units |"
_RULE: Final = "|---|---|---|---|---|---|"


def provisioned_watts(system: Any) -> float | None:
    """Return the watts of the mapping under `system_under_test`, None where it names no power supply."""
    found = [watts for _, _, _, watts, _ in _units(system) if watts is not None]
    return sum(found) if found else None


def rack_units(system: Any) -> float | None:
    """Return the rack units of nodes and switches, clients left out; None where no unit tells any."""
    found = [units for *_, units in _units(system) if units is not None]
    return sum(found) if found else None


def write_systems_power(description: Path) -> Path:
    """Write `<system>.power.md` beside the description `<system>.yaml` and return its path.

    Raises CorruptError for what is no description.
    """
    system = dig(read_description(description), ["system_under_test"])
    if not isinstance(system, dict):
        raise CorruptError("not a system's description", where=str(description), expected="system_under_test")
    path = description.with_name(f"{description.stem}.power.md")
    write_atomic(path, _table(description.stem, system).encode("utf-8", "replace"))
    return path


def read_description(path: Path) -> Any:
    """Return the data of a description. Raises CorruptError for one over 1 MiB or that is no plain YAML."""
    with path.open("rb") as file:
        data = file.read(YAML_BYTES_MAX + 1)
    if len(data) > YAML_BYTES_MAX:
        raise CorruptError("system's description is too large", where=str(path), expected="at most 1 MiB")
    try:
        return load_plain(data.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise CorruptError("system's description is not UTF-8", where=str(path)) from error


def _table(name: str, system: dict[str, Any]) -> str:
    cells = (
        (_cell(label), f"{count:g}", _supplies(power), _nameplates(power), _blank(watts), _blank(units))
        for label, count, power, watts, units in _units(system)
    )
    rows = [f"| {' | '.join(each)} |" for each in cells]
    total = f"| **total** | | | | {_blank(provisioned_watts(system))} | {_blank(rack_units(system))} |"
    told = (
        "Provisioned power is the nameplate of every installed supply of the product's nodes and switches; clients and "
        "the racks' own supplies are not counted, and redundancy is not netted. Nothing was measured."
    )
    return "\n".join([f"# Power of {_cell(name)}", "", told, "", _HEAD, _RULE, *rows, total, ""])


def _cell(text: str) -> str:
    return "".join(" " if sign in "|\r\n" else sign for sign in text)


def _blank(value: float | None) -> str:
    return "" if value is None else f"{value:,.10g}"


def _supplies(power: Any) -> str:
    return " + ".join(f"{number(each, 'unit_count') or 0:g}" for each in _configured(power))


def _nameplates(power: Any) -> str:
    return " + ".join(f"{number(each, 'nameplate_power_watts') or 0:g}" for each in _configured(power))


def _configured(power: Any) -> list[Any]:
    found = dig(power, ["psus_configured"])
    return found if isinstance(found, list) else []


def _units(system: Any) -> Iterator[tuple[str, float, Any, float | None, float | None]]:
    """Give (name, count, power, watts of all, rack units of all) of each kind of node and switch of the product."""
    for node in _listed(system, "product_nodes"):
        name = words(node, "friendly_description") or words(node, "chassis.model_name") or "node"
        yield _unit(name, number(node, "quantity"), dig(node, ["chassis", "power"]), number(node, "chassis.rack_units"))
    for switch in _listed(system, "product_switches"):
        name = words(switch, "model_name") or "switch"
        yield _unit(name, number(switch, "unit_count"), dig(switch, ["power"]), number(switch, "rack_units"))


def _listed(system: Any, key: str) -> list[Any]:
    found = dig(system, [key])
    return found if isinstance(found, list) else []


def _unit(name: str, count: float | None, power: Any, units: float | None) -> tuple[str, float, Any, float | None, Any]:
    times = count or 0.0
    pairs = [(number(each, "nameplate_power_watts"), number(each, "unit_count")) for each in _configured(power)]
    watts = sum((each or 0.0) * (how_many or 0.0) for each, how_many in pairs) * times if pairs else None
    return name, times, power, watts, units * times if units is not None else None
