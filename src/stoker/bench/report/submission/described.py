"""What the rollups say of a system: taken from its description, of whatever edition it is."""

from collections.abc import Iterable
from typing import Any, Final

from stoker.bench.report.submission.power import provisioned_watts, rack_units
from stoker.bench.rules.mlperf.layout import System, Tree
from stoker.bench.rules.mlperf.reading import dig, number, words

_ENDINGS: Final = {"3.0": (".yaml",), "2.0": (".yaml", ".yml"), "1.0": (".json",)}
_PROTOCOLS: Final = {"file": "POSIX", "object": "S3"}


def system_columns(tree: Tree, system: System) -> dict[str, Any]:
    """Return the leading columns that the system's description gives; what it does not give is left out."""
    document = _document(tree, system)
    if not isinstance(document, dict):
        return {}
    by_edition = {"3.0": _of_v3, "2.0": _of_v2, "1.0": _of_v1}
    found = by_edition[tree.edition](document)
    return {name: value for name, value in found.items() if value not in (None, "")}


def _document(tree: Tree, system: System) -> Any:
    submitter = next((each for each in tree.submitters if system in each.systems), None)
    folder = submitter.folder.find("systems") if submitter is not None else None
    for ending in _ENDINGS[tree.edition] if folder is not None else ():
        name = f"{system.name}{ending}"
        if folder is not None and name in folder.files:
            path = folder.below(name)
            return tree.files.json(path) if ending == ".json" else tree.files.yaml(path)
    return None


def _of_v3(document: dict[str, Any]) -> dict[str, Any]:
    system = dig(document, ["system_under_test"])
    solution = dig(system, ["solution"])
    return {
        "Name": words(solution, "submission_name"),
        "Description": words(solution, "friendly_description"),
        "Type": _type(solution),
        "Access Protocol": _PROTOCOLS.get(words(solution, "architecture.benchmark_API") or ""),
        "Availability": words(solution, "availability"),
        "RU's": rack_units(system),
        "Integrated Client Storage (TiB)": number(solution, "int_client_store_tib"),
        "Usable Capacity (TiB)": number(solution, "usable_capacity_tib"),
        "Provisioned Power (W)": provisioned_watts(system),
    }


def _type(solution: Any) -> str:
    """Return a text such as `Shared remote file`: how several hosts may use it, where it is, what it offers.

    Shared is what several hosts read and write at the same time; the rest takes turns.
    """
    flags = [
        dig(solution, ["capabilities", name]) for name in ("multi_host", "simultaneous_write", "simultaneous_read")
    ]
    place, product = (words(solution, f"architecture.{key}") for key in ("storage_location", "product_API"))
    if not place or not product or not all(isinstance(flag, bool) for flag in flags):
        return ""
    return f"{'Shared' if all(flags) else 'Failover'} {place.replace('_', ' ')} {product}"


def _of_v2(document: dict[str, Any]) -> dict[str, Any]:
    return {
        "Name": words(document, "System.name"),
        "Description": words(document, "System.description"),
        "Type": words(document, "System.type"),
        "RU's": _total(document, "Nodes", "quantity", ("hardware.rack_units",)),
        "Provisioned Power (W)": _total(
            document, "PowerRequirements", "quantity", [f"psu{n}_nameplate_power" for n in range(1, 10)]
        ),
    }


def _total(document: dict[str, Any], section: str, times: str, keys: Iterable[str]) -> float | None:
    """Return the sum over the nodes of a section, each as often as it is there; None where nothing is told."""
    nodes = dig(document, [section])
    found = [
        value * (number(node, times) or 0.0)
        for node in (nodes.values() if isinstance(nodes, dict) else ())
        for key in keys
        if (value := number(node, key)) is not None
    ]
    return sum(found) if found else None


def _of_v1(document: dict[str, Any]) -> dict[str, Any]:
    usable = number(document, "storage_system.usable_capacity_GiB")
    return {
        "Name": words(document, "storage_system.solution_name"),
        "Description": words(document, "storage_system.vendor_name"),
        "Usable Capacity (TiB)": usable / 1024 if usable is not None else None,
    }
