"""Schemas and types of the hand-made documents are equal, and every fault of a document is told."""

import copy
from datetime import datetime
from typing import Any

import msgspec
import pytest

from stoker.bench.rules.mlperf.description import description_faults, remap_fault
from stoker.bench.rules.mlperf.documents import KINDS, schema_of, schema_text, shipped_schema
from stoker.bench.rules.mlperf.validator import faults, unknown_keywords
from stoker.testing.mlperf_documents import (
    TOOL,
    checkpoint_summary,
    kv_summary,
    metadata,
    provenance,
    system_description,
    system_description_v1,
    system_description_v2,
    training_summary,
)

MOMENT = datetime(2026, 3, 2, 10, 0, 0)
TIMES = {"start": "2026-03-02T10:00:00", "end": "2026-03-02T10:07:00"}
SIZE: dict[str, Any] = {"accelerators": 8, "hosts": 1, "memory_gib": 256.0}
GOOD: dict[str, Any] = {
    "system_description": system_description("sysA"),
    "system_description_2.0": system_description_v2("sysA"),
    "system_description_1.0": system_description_v1("sysA"),
    "provenance": provenance("training", {"framework": "pytorch"}),
    "submission": {
        "schema": "mlps-submission-manifest/1",
        "org": "example",
        "division": "closed",
        "edition": "3.0",
        "layout": 3,
        "tool": TOOL,
        "versions": {"tool": ["3.0.2"]},
        "systems": ["sysA"],
        "runs": [],
    },
    "summary_training": {**TIMES, **training_summary("unet3d", "b200", files=9, **SIZE)},
    "summary_checkpointing": {**TIMES, **checkpoint_summary("llama3-8b", hosts=1, writes=10, reads=10)},
    "summary_kv_cache": kv_summary(MOMENT, hosts=1, per_node=1, trials=3),
    "metadata": metadata("training", "unet3d", "run", MOMENT, accelerator="b200", processes=8),
    "results": [{"Public ID": "v3.0-0001", "Read B/W (GiB/s)": 45.9, "RU's": None, "notes": ["a note"]}],
    "bundle": {
        "schema": "stoker-bundle/1",
        "made_at": "2026-03-02T10:00:00Z",
        "tool": "stoker",
        "algorithm": "sha256",
        "total_bytes": 3,
        "root": "ab" * 32,
        "left_out": [".mlps/trash"],
        "files": [{"path": "a", "bytes": 3, "sha256": "cd" * 32}],
    },
    "bundle_signature": {
        "schema": "stoker-bundle-signature/1",
        "algorithm": "ed25519",
        "root": "ab" * 32,
        "public_key": "AAAA",
        "fingerprint": "SHA256:00",
        "signature": "AAAA",
        "signed_at": "2026-03-02T10:00:00Z",
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_shipped_schema_is_what_the_type_gives(kind: str) -> None:
    assert shipped_schema(kind) == schema_of(kind)
    assert msgspec.json.decode(schema_text(kind)) == shipped_schema(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_validator_knows_every_keyword_of_the_schema(kind: str) -> None:
    assert unknown_keywords(shipped_schema(kind)) == set()


def test_unknown_keyword_is_noticed() -> None:
    assert unknown_keywords({"properties": {"a": {"maxLength": 3}}}) == {"maxLength"}


def accepts(kind: str, document: Any) -> bool:
    """Tell whether the type takes the document."""
    try:
        msgspec.convert(document, KINDS[kind])
    except msgspec.ValidationError:
        return False
    return True


def spots(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a document."""
    found = [path]
    items = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, value in items:
        found += spots(value, (*path, key))
    return found


def replaced(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    changed = copy.deepcopy(document)
    here = changed
    for key in path[:-1]:
        here = here[key]
    if value is ...:
        del here[path[-1]]
    else:
        here[path[-1]] = value
    return changed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "value",
    [..., None, True, -1, 0, 0.5, 3, 1e9, 1 << 70, "", "n/a", "unknown", [], {}, ["data"], {"name": "x", "value": "y"}],
)
def test_type_and_schema_agree_wherever_a_document_is_changed(kind: str, value: Any) -> None:
    disagree = []
    for path in spots(GOOD[kind]):
        if path or value is not ...:
            changed = replaced(GOOD[kind], path, value)
            if accepts(kind, changed) == bool(faults(changed, shipped_schema(kind))):
                disagree.append((path, value))
    assert disagree == []


@pytest.mark.parametrize("kind", KINDS)
def test_good_document_has_no_faults(kind: str) -> None:
    assert accepts(kind, GOOD[kind])
    assert faults(GOOD[kind], shipped_schema(kind)) == []


def test_every_fault_is_told_with_its_place() -> None:
    document = copy.deepcopy(GOOD["system_description"])
    system = document["system_under_test"]
    system["solution"]["availability"] = "soon"
    system["solution"]["architecture"]["product_API"] = "tape"
    system["product_nodes"][0]["drives"][0]["media_type"] = "SLC"
    system["clients"] = "none"
    del system["deployment"]
    told = dict(description_faults(document))
    assert set(told) == {
        "system_under_test.solution.availability",
        "system_under_test.solution.architecture.product_API",
        "system_under_test.product_nodes[0].drives[0].media_type",
        "system_under_test.clients",
        "system_under_test.deployment",
    }
    assert all(word in told["system_under_test.solution.availability"] for word in ("soon", "preview", "RDI"))


def changed(**changes: Any) -> dict[str, Any]:
    document = copy.deepcopy(GOOD["system_description"])
    for dotted, value in changes.items():
        *above, last = dotted.split("__")
        here = document["system_under_test"]
        for key in above:
            here = here[int(key)] if isinstance(here, list) else here[key]
        if value is ...:
            del here[last]
        else:
            here[last] = value
    return document


@pytest.mark.parametrize(
    ("document", "key"),
    [
        (changed(total_rack_units=6), "total_rack_units"),
        (changed(total_rack_units=...), "total_rack_units"),
        (changed(product_nodes=[], total_rack_units=1), "product_nodes"),
        (changed(product_nodes__0__chassis__rack_units=..., total_rack_units=1), "product_nodes[0].chassis.rack_units"),
        (changed(product_nodes__0__networking=[]), "product_nodes[0].networking"),
        (changed(product_nodes__0__networking__0__traffic=[]), "product_nodes[0].networking[0]"),
        (changed(product_switches__0__power=...), "product_switches[0].power"),
        (changed(solution__architecture__client_installation="n/a"), "solution.architecture.client_installation"),
        (changed(solution__architecture__storage_location="local"), "product_switches"),
    ],
)
def test_rules_between_parts_of_a_description(document: dict[str, Any], key: str) -> None:
    assert [where for where, _ in description_faults(document)] == [f"system_under_test.{key}"]


def test_a_system_in_a_cloud_tells_no_racks() -> None:
    document = changed(
        deployment="cloud", total_rack_units=..., product_nodes=[], product_switches=[], rack_power_supplies=[]
    )
    assert description_faults(document) == []
    assert len(description_faults(changed(deployment="cloud"))) == 6


@pytest.mark.parametrize(
    ("seconds", "write", "fault"), [(0, True, False), (5, True, True), (5, False, False), (0, False, True)]
)
def test_remap_time(seconds: int, write: bool, fault: bool) -> None:
    document = changed(
        solution__capabilities__remap_time_in_seconds=seconds, solution__capabilities__simultaneous_write=write
    )
    assert bool(remap_fault(document)) == fault
    assert remap_fault({"system_under_test": 3}) == ""
