"""Shapes of the hand-made and stamped documents: the system description, provenance.json, submission.yaml.

Each is a strict type here and a JSON Schema beside it (`schemas/`), for whoever writes such a document; a test holds
both equal, and `python tests/unit/rules/mlperf_page.py` writes the schemas anew.
"""

from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Final, Literal

import msgspec

from stoker.bench.rules.mlperf.outputs import OUTPUTS
from stoker.bench.rules.mlperf.tables import DATA

Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Amount = Annotated[float, msgspec.Meta(ge=0)]
Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]+$")]
_STRICT: Final[dict[str, Any]] = {"frozen": True, "forbid_unknown_fields": True, "kw_only": True}


class Architecture(msgspec.Struct, **_STRICT):
    """Where the storage is and how it is reached."""

    storage_location: Literal["remote", "local", "remote_and_local"]
    benchmark_API: Literal["file", "object"]
    product_API: Literal["file", "object", "block"]
    client_footprint: Literal["open_source", "closed_source", "n/a"]
    client_installation: Literal["in_box", "installable", "n/a"]


class Capabilities(msgspec.Struct, **_STRICT):
    """What several hosts can do at once."""

    multi_host: bool
    simultaneous_write: bool
    simultaneous_read: bool
    remap_time_in_seconds: Amount


class Solution(msgspec.Struct, **_STRICT):
    """The product."""

    submission_name: str
    friendly_description: str
    architecture: Architecture
    capabilities: Capabilities
    usable_capacity_tib: Annotated[float, msgspec.Meta(ge=1)]
    availability: Literal["available", "preview", "RDI"]
    int_client_store_tib: Amount | None = None


class PowerSupply(msgspec.Struct, **_STRICT):
    """A kind of power supply, with how many of it."""

    unit_count: Positive
    inlet_voltage: Amount
    nameplate_power_watts: Amount
    efficiency: Literal["Standard", "Bronze", "Silver", "Gold", "Platinum", "Titanium", "Ruby", "Unrated"]


class Power(msgspec.Struct, **_STRICT):
    """The power supplies of a unit, and how many must be active."""

    min_psus_active: Count
    psus_configured: list[PowerSupply]


class Chassis(msgspec.Struct, **_STRICT):
    """The box a node is."""

    model_name: str
    cpu_model: str
    cpu_qty: Count
    cpu_cores: Count
    memory_capacity: Amount
    rack_units: Amount | None = None
    power: Power | None = None


class Network(msgspec.Struct, **_STRICT):
    """Ports of one kind; one that is up needs speed (Gb/s) and traffic."""

    unit_count: Positive
    type: Literal["ethernet", "infiniband", "other"]
    state: Literal["up", "down"]
    speed: Amount | None = None
    traffic: list[Literal["management", "data", "metadata", "backend"]] = []


class DrivePerformance(msgspec.Struct, **_STRICT):
    """What the maker says a drive can do."""

    seq_read_MBps: Amount | None = None
    seq_write_MBps: Amount | None = None
    random_read_IOPS: Amount | None = None
    random_write_IOPS: Amount | None = None
    form_factor: str | None = None
    interface_speed: str | None = None


class Drive(msgspec.Struct, **_STRICT):
    """Drives of one kind."""

    unit_count: Positive
    vendor_name: str
    model_name: str
    interface: Literal["nvme", "sas", "sata", "other"]
    media_type: Literal["HDD", "TLC", "QLC", "other"]
    capacity_in_GB: Amount
    performance: DrivePerformance | None = None


class OperatingSystem(msgspec.Struct, **_STRICT):
    """The operating system."""

    name: str
    version: str


class Setting(msgspec.Struct, **_STRICT):
    """A name and its value, as text."""

    name: str
    value: str


class Node(msgspec.Struct, **_STRICT):
    """Nodes of one kind: of the product, or clients."""

    friendly_description: str
    quantity: Positive
    chassis: Chassis
    networking: list[Network] = []
    drives: list[Drive] = []
    operating_system: OperatingSystem | None = None
    environment: list[Setting] = []
    sysctl: list[Setting] = []


class Switch(msgspec.Struct, **_STRICT):
    """Switches of one kind."""

    unit_count: Positive
    vendor_name: str
    model_name: str
    rack_units: Amount | None = None
    ports: list[Network] = []
    configuration: list[Setting] = []
    power: Power | None = None


class SystemUnderTest(msgspec.Struct, **_STRICT):
    """All that is needed to build the system again."""

    solution: Solution
    deployment: Literal["onprem", "cloud"]
    total_rack_units: Amount | None = None
    rack_power_supplies: list[PowerSupply] = []
    product_nodes: list[Node] = []
    product_switches: list[Switch] = []
    clients: list[Node] = []


class SystemDescription(msgspec.Struct, **_STRICT):
    """The document `systems/<system>.yaml`."""

    system_under_test: SystemUnderTest


class SharedCapabilities(msgspec.Struct, frozen=True):
    """What several hosts can do at once, in 2.0; one key is spelled with two underscores as it was shipped."""

    multi_host_support: Any = None
    simultaneous_write_support: Any = None
    simultaneous_read__support: Any = None


class SystemV2(msgspec.Struct, frozen=True, kw_only=True):
    """The product, in 2.0."""

    name: str
    description: str
    type: Literal["local-storage", "hyper-converged", "parallel-filesystem", "software-defined-storage"]
    max_sequential_read: Any = None
    max_sequential_write: Any = None
    max_random_read: Any = None
    max_random_write: Any = None
    shared_capabilities: SharedCapabilities | None = None


class NodeV2(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes of one kind, in 2.0."""

    quantity: Positive
    hardware: dict[str, Any]
    networking: dict[str, Any] | None = None
    operating_system: dict[str, Any] | None = None
    tuning: dict[str, Any] | None = None


class SystemDescriptionV2(msgspec.Struct, frozen=True, kw_only=True):
    """The document `systems/<system>.yaml` of 2.0. Keys besides these are let be: its round kept no strict schema."""

    System: SystemV2
    Nodes: dict[str, NodeV2]
    PowerRequirements: dict[str, dict[str, Any]] | None = None


class StorageSystemV1(msgspec.Struct, frozen=True, kw_only=True):
    """The product, in 1.0."""

    vendor_name: str
    solution_name: str
    usable_capacity_GiB: Any
    raw_capacity_GiB: Any


class SystemDescriptionV1(msgspec.Struct, frozen=True, kw_only=True):
    """The document `systems/<system>.json` of 1.0. Keys besides these are let be."""

    storage_system: StorageSystemV1
    benchmark_hosts: Any
    nodes: Any = None
    networks: Any = None


class Tool(msgspec.Struct, **_STRICT):
    """The tool that ran."""

    name: str
    version: str
    git_sha: str
    code_image: str


class Engine(msgspec.Struct, **_STRICT):
    """The training engine."""

    version: str
    source: str
    commit: str


class Library(msgspec.Struct, **_STRICT):
    """The storage library."""

    name: str
    version: str


class CoreConfig(msgspec.Struct, **_STRICT):
    """The hash of what the workload does; `allowlist` names the keys it is over, `unknown` where there is none."""

    algorithm: str
    allowlist: str
    hash: Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{16}|unknown)$")]
    keys: list[str] | Count | Literal["unknown"]


Known = Literal[
    "runtime",
    "tool-constant",
    "package-metadata",
    "direct-url",
    "code-hash-json",
    "uv-lock",
    "declared",
    "inferred",
    "n/a",
    "unknown",
]
"""How a fact of a leaf was known."""


class Provenance(msgspec.Struct, **_STRICT):
    """The document `provenance.json` of a leaf. A fact that is not known is the word `unknown`."""

    schema: Literal["mlps-run-provenance/1"]
    rules_edition: str
    layout_version: Literal[3]
    tool: Tool
    dlio: Engine
    storage_library: Library
    core_config: CoreConfig
    stamped_at: str
    stamped_by: str
    provenance: dict[str, Known]


class Versions(msgspec.Struct, **_STRICT):
    """The versions seen in the leaves."""

    tool: list[str] = []
    dlio: list[str] = []
    storage_library: list[str] = []


class SubmissionManifest(msgspec.Struct, **_STRICT):
    """The document `submission.yaml` of a submitter in a division. It holds no figure on purpose."""

    schema: Literal["mlps-submission-manifest/1"]
    org: Name
    division: Literal["closed", "open"]
    edition: str
    layout: Literal[3]
    tool: Tool
    versions: Versions
    systems: list[Name]
    runs: list[str]
    code_images: list[str] = []


KINDS: Final[dict[str, Any]] = {
    "system_description": SystemDescription,
    "system_description_2.0": SystemDescriptionV2,
    "system_description_1.0": SystemDescriptionV1,
    "provenance": Provenance,
    "submission": SubmissionManifest,
    **OUTPUTS,
}


def schema_of(kind: str) -> dict[str, Any]:
    """Return the JSON Schema that the type of the document gives."""
    (root,), components = msgspec.json.schema_components([KINDS[kind]], ref_template="#/$defs/{name}")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": kind, **root, "$defs": components}


@cache
def shipped_schema(kind: str) -> dict[str, Any]:
    """Return the JSON Schema that is shipped."""
    text = files(DATA).joinpath("schemas", f"{kind}.json").read_bytes()
    found: dict[str, Any] = msgspec.json.decode(text)
    return found


def schema_text(kind: str) -> bytes:
    """Return the schema as its file holds it."""
    return msgspec.json.format(msgspec.json.encode(schema_of(kind)), indent=1) + b"\n"
