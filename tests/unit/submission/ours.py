"""A whole package at legal sizes whose every artefact but the engine's files is made by our own writers."""

import json
from pathlib import Path
from typing import Any

import yaml

from stoker.bench.report.submission import (
    HostHardware,
    LeafFacts,
    capture_image,
    describe_system,
    hardware,
    write_leaf,
    write_manifest,
    write_papers,
    write_rollups,
)
from stoker.core.host_series import ClockOffset, Header, HostSeries, save_hosts
from stoker.testing.mlperf_trees import TreeMaker

FACTS: dict[str, Any] = {
    "product": "PowerBox 9",
    "cpuinfo": {"model": "Example 9000", "sockets": 2, "cores": 32, "logical_cpus": 64},
    "meminfo": {"MemTotal": 256 << 20, "MemAvailable": 200 << 20},
    "os_release": {"NAME": "Debian", "VERSION_ID": "12"},
    "architecture": "x86_64",
    "ports": [
        {"name": "eth0", "type": "ethernet", "state": "up", "speed_gbps": 400.0},
        {"name": "eth1", "type": "ethernet", "state": "down", "speed_gbps": None},
    ],
    "drives": [
        {
            "name": "nvme0n1",
            "vendor": "",
            "model": "N1",
            "interface": "nvme",
            "rotational": False,
            "bytes": 7_680_000_000_000,
        }
    ],
    "environment": {"AWS_REGION": "here", "SLURM_JOB_ID": "77"},
    "sysctl": {"vm/dirty_ratio": "20"},
}


def host(name: str = "client01", **changes: Any) -> HostHardware:
    """A host as it was collected."""
    return hardware(name, {**FACTS, **changes})


def series(name: str = "client01", **changes: Any) -> HostSeries:
    """A host's series of two samples."""
    return HostSeries(
        name,
        "local",
        ClockOffset(0.0, 0.0, 0),
        2,
        {"at_us": [0, 10_000_000], "mem/MemTotal": [256 << 20], "disk/nvme0n1/sectors_read": [1, 1]},
        {"nvme0n1": ""},
        {"eth0": "", "eth1": "", "lo": "never leaves the host"},
        start={**FACTS, **changes},
    )


def run_folder(folder: Path, *, status: str = "complete", reason: str = "") -> Path:
    """A folder of a run as saved: its result, as far as a leaf needs it, and its hosts."""
    folder.mkdir(parents=True, exist_ok=True)
    result = {"id": "abc", "status": status, "reason": reason, "started_utc": "2026-03-02T10:15:00.000000Z"}
    result |= {"evidence": {"target_kind": "ext4"}, "ranks": [{"host": "client01"}]}
    (folder / "result.json").write_text(json.dumps(result))
    save_hosts(folder, Header(10.0, "2026-03-02T10:15:00.250000Z", 10**12), [series()])
    return folder


def filled(path: Path) -> dict[str, Any]:
    """Fill in a drafted description as its submitter would, and return it."""
    document = yaml.safe_load(path.read_text())
    system = document["system_under_test"]
    system["solution"] |= {
        "friendly_description": "Two-node flash filer",
        "usable_capacity_tib": 180.5,
        "availability": "available",
    }
    system["solution"]["architecture"] |= {
        "storage_location": "remote",
        "product_API": "file",
        "client_footprint": "open_source",
        "client_installation": "in_box",
    }
    system["solution"]["capabilities"] = {
        "multi_host": True,
        "simultaneous_write": True,
        "simultaneous_read": True,
        "remap_time_in_seconds": 0,
    }
    supply = {"unit_count": 2, "inlet_voltage": 230, "nameplate_power_watts": 1600, "efficiency": "Titanium"}
    power = {"min_psus_active": 1, "psus_configured": [supply]}
    for client in system["clients"]:
        client["chassis"] |= {"rack_units": 1, "power": power}
        for port in client["networking"]:
            port["traffic"] = ["data"] if port["state"] == "up" else []
        for drive in client["drives"]:
            drive |= {"media_type": "TLC", "vendor_name": "Acme"}
    node = json.loads(json.dumps(system["clients"][0]))
    node |= {"friendly_description": "controller", "quantity": 2}
    node["chassis"]["rack_units"] = 2
    system |= {"deployment": "onprem", "total_rack_units": 4, "product_nodes": [node]}
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return document


def facts_of(root: Path, leaf: Path, *, image: str) -> LeafFacts:
    """The facts of a leaf as its metadata have them."""
    (path,) = leaf.glob("*_metadata.json")
    told = json.loads(path.read_text())
    division, org, _, system, family, *_ = leaf.relative_to(root).parts
    args = {name: value for name, value in told["args"].items() if name != "mode"}
    extra = {"system_info": told["system_info"]}
    if "command_output_files" in told:
        extra["command_output_files"] = told["command_output_files"]
    return LeafFacts(
        family=family,
        command=told["command"],
        division=division,
        org=org,
        system=system,
        model=told["model"],
        accelerator=told["accelerator"],
        stamp=told["run_datetime"],
        args=args,
        overrides=told["override_parameters"],
        parameters=told["parameters"],
        executed_command=told["executed_command"],
        exit_status=told["exit_status"],
        runtime_seconds=told["runtime"],
        started_text=told["invocation_start_time"],
        ranks=told["num_processes"],
        code_image=image,
        extra=extra,
    )


def package(root: Path, evidence: Path) -> Path:
    """A package of all four families: the figures are TreeMaker's, every other file is ours."""
    maker = TreeMaker(root)
    maker.training("closed", "sysA")
    maker.checkpointing("closed", "sysA", split=True)
    maker.vector_database("open", "sysB")
    maker.kv_cache("open", "sysB")
    maker.finish()
    for old in [*root.rglob("results.*"), *root.glob("*/*/submission.yaml"), *root.glob("*/*/systems/*")]:
        old.unlink()
    for old in root.rglob("code-images/*/*"):
        old.unlink()
    for folder in (root / "code-images").glob("code-*"):
        folder.rmdir()
    image = capture_image(root)
    ran = run_folder(evidence)
    for pointer in sorted(root.rglob(".mlps-code-image")):
        leaf = pointer.parent
        facts = facts_of(root, leaf, image=image)
        for old in [*leaf.glob("*_metadata.json"), leaf / "provenance.json", pointer]:
            old.unlink()
        write_leaf(leaf, facts, run_folder=ran if facts.command == "run" else None)
    for division, system in (("closed", "sysA"), ("open", "sysB")):
        path = root / division / "example" / "systems" / f"{system}.yaml"
        describe_system(path, [host()], api="file")
        filled(path)
        write_papers(root / division / "example", date="2026-03-02")
        write_manifest(root / division / "example")
    write_rollups(root)
    return root
