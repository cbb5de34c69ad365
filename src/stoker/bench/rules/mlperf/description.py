"""A system's description: its schema, and the rules that hold between its parts."""

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.documents import Node, Power, SystemDescription, SystemUnderTest, shipped_schema
from stoker.bench.rules.mlperf.validator import faults

_PREFIX: Final = "system_under_test"


def description_faults(document: Any) -> list[tuple[str, str]]:
    """Return (key, what is wrong) for each fault of a description; rules between parts count once its shape is right.

    The remap time is not among them: rule 4.7.3 holds it against the capabilities.
    """
    wrong = faults(document, shipped_schema("system_description"))
    if wrong:
        return wrong
    try:
        system = msgspec.convert(document, SystemDescription).system_under_test
    except msgspec.ValidationError as error:  # a number beyond what the type can hold
        return [("", str(error))]
    return [(f"{_PREFIX}.{key}", told) for key, told in _between(system)]


def older_faults(document: Any, edition: str) -> list[tuple[str, str]]:
    """Return (key, what is wrong) for each fault of a description of 1.0 or 2.0."""
    return faults(document, shipped_schema(f"system_description_{edition}"))


def remap_fault(document: Any) -> str:
    """Return how the remap time contradicts the capabilities, nothing when it agrees or nothing can be told."""
    try:
        capabilities = msgspec.convert(document, SystemDescription).system_under_test.solution.capabilities
    except msgspec.ValidationError:
        return ""
    simultaneous = capabilities.simultaneous_write and capabilities.simultaneous_read
    seconds = capabilities.remap_time_in_seconds
    if simultaneous == (seconds == 0):
        return ""
    return f"{seconds:g} s with simultaneous access {'on' if simultaneous else 'off'}"


def _between(system: SystemUnderTest) -> Iterator[tuple[str, str]]:
    architecture = system.solution.architecture
    if (architecture.client_footprint == "n/a") != (architecture.client_installation == "n/a"):
        yield "solution.architecture.client_installation", "n/a footprint and n/a installation go together"
    if architecture.storage_location == "local" and system.product_switches:
        yield "product_switches", "switches where the storage is local"
    if architecture.storage_location != "local":
        for at, node in enumerate(system.product_nodes):
            if not node.networking:
                yield f"product_nodes[{at}].networking", "missing, where the storage is remote"
    yield from _ports(system)
    yield from _power(system)
    yield from _onprem(system) if system.deployment == "onprem" else _cloud(system)


def _nodes(system: SystemUnderTest) -> Iterator[tuple[str, Node]]:
    for name in ("product_nodes", "clients"):
        for at, node in enumerate(getattr(system, name)):
            yield f"{name}[{at}]", node


def _ports(system: SystemUnderTest) -> Iterator[tuple[str, str]]:
    for where, node in _nodes(system):
        for at, port in enumerate(node.networking):
            if port.state == "up" and (port.speed is None or not port.traffic):
                yield f"{where}.networking[{at}]", "a port that is up needs speed and traffic"


def _powers(system: SystemUnderTest) -> Iterator[tuple[str, Power | None]]:
    for where, node in _nodes(system):
        yield f"{where}.chassis.power", node.chassis.power
    for at, switch in enumerate(system.product_switches):
        yield f"product_switches[{at}].power", switch.power


def _power(system: SystemUnderTest) -> Iterator[tuple[str, str]]:
    for where, power in _powers(system):
        if power is not None:
            installed = sum(supply.unit_count for supply in power.psus_configured)
            if power.min_psus_active > installed:
                yield f"{where}.min_psus_active", f"{power.min_psus_active}, where {installed} are installed"


def _rack_units(system: SystemUnderTest) -> Iterator[tuple[str, float | None]]:
    for where, node in _nodes(system):
        yield f"{where}.chassis.rack_units", node.chassis.rack_units
    for at, switch in enumerate(system.product_switches):
        yield f"product_switches[{at}].rack_units", switch.rack_units


def _onprem(system: SystemUnderTest) -> Iterator[tuple[str, str]]:
    for where, given in (*_rack_units(system), *_powers(system), ("total_rack_units", system.total_rack_units)):
        if given is None:
            yield where, "missing, where the system stands on premises"
    if system.solution.architecture.storage_location != "local" and not system.product_nodes:
        yield "product_nodes", "missing, where the storage is remote and on premises"
    nodes = sum((node.chassis.rack_units or 0) * node.quantity for node in system.product_nodes)
    units = nodes + sum((switch.rack_units or 0) * switch.unit_count for switch in system.product_switches)
    if system.total_rack_units is not None and abs(units - system.total_rack_units) > 1e-6:
        yield "total_rack_units", f"{system.total_rack_units:g}, where nodes and switches add up to {units:g}"


def _cloud(system: SystemUnderTest) -> Iterator[tuple[str, str]]:
    given = [(where, value) for where, value in (*_rack_units(system), *_powers(system)) if value is not None]
    for where, _ in given:
        yield where, "given, where the system is in a cloud"
    if system.total_rack_units is not None:
        yield "total_rack_units", "given, where the system is in a cloud"
    if system.product_nodes:
        yield "product_nodes", "given, where the system is in a cloud"
