"""The hosts of a run in the shapes that programs for MLPerf Storage read."""

import json
from pathlib import Path

import pytest

from stoker.bench.report.host_files import cluster_info, system_info, write_cluster_info, write_timeseries
from stoker.core.errors import NotFoundError
from stoker.core.host_series import ClockOffset, Header, HostSeries, save_hosts

HEADER = Header(10.0, "2026-03-02T10:15:00.250000Z", 10**12)


def host(name: str, memory_kb: int) -> HostSeries:
    return HostSeries(
        name,
        "mpi",
        ClockOffset(0.001, 0.0001, 8),
        2,
        {
            "at_us": [0, 10_000_000],
            "load/1min_hundredths": [310, 5],
            "mem/MemTotal": [memory_kb],
            "vm/pgpgin": [1, 1],
            "disk/nvme0n1/reads_completed": [10, 5],
            "disk/nvme0n1/sectors_read": [8000, 16],
            "net/eth0/rx_bytes": [1, None],
        },
        {"nvme0n1": "", "nvme0n1p1": "partition of nvme0n1"},
        start={
            "cpuinfo": {"cores": 32, "logical_cpus": 64, "model": "Example"},
            "meminfo": {"MemTotal": memory_kb, "MemAvailable": memory_kb // 2},
        },
    )


def test_the_time_series_has_the_groups_of_the_reference(tmp_path: Path) -> None:
    save_hosts(tmp_path, HEADER, [host("client01", 528_000_000)])
    path = write_timeseries(tmp_path, tmp_path, "training", "20260302_101500")
    assert path.name == "training_20260302_101500_timeseries.json"
    document = json.loads(path.read_text())
    assert {name: document[name] for name in document if name != "samples_by_host"} == {
        "collection_interval_seconds": 10.0,
        "start_time": "2026-03-02T10:15:00",
        "end_time": "2026-03-02T10:15:10",
        "num_samples": 2,
    }
    first, second = document["samples_by_host"]["client01"]
    assert first == {
        "timestamp": "2026-03-02T10:15:00",
        "hostname": "client01",
        "diskstats": [{"device": "nvme0n1", "reads_completed": 10, "sectors_read": 8000}],
        "vmstat": {"pgpgin": 1},
        "meminfo": {"MemTotal": 528_000_000},
        "loadavg": {"1min": 3.1},
        "netdev": [{"interface": "eth0", "rx_bytes": 1}],
        "errors": {},
    }
    assert second["diskstats"][0]["sectors_read"] == 8016
    assert second["netdev"] == []


def test_hosts_are_found_by_name_and_never_by_rank() -> None:
    found = system_info(HEADER, [host("b", 1000), host("a", 4000), HostSeries("gone", "mpi", errors=["no answer"])])
    assert (found["num_hosts"], found["total_cores"]) == (3, 64)
    assert (found["min_memory_bytes"], found["max_memory_bytes"]) == (1000 * 1024, 4000 * 1024)
    memories = {each["hostname"]: each["memory"]["total"] for each in found["hosts"]}
    assert memories == {"b": 1000 * 1024, "a": 4000 * 1024, "gone": 0}
    assert found["hosts"][0]["disks"] == ["nvme0n1"]


def test_a_failed_host_is_listed(tmp_path: Path) -> None:
    hosts = [host("a", 4000), HostSeries("gone", "ssh", errors=["gone: no answer"])]
    assert cluster_info(HEADER, hosts)["failed_hosts"] == ["gone"]
    save_hosts(tmp_path, HEADER, hosts)
    document = json.loads(write_cluster_info(tmp_path, tmp_path).read_text())
    assert document["snapshots"]["a"]["start"]["cpuinfo"]["cores"] == 32
    assert document["clock_offsets"] == {"a": {"seconds": 0.001, "error_seconds": 0.0001, "probes": 8}, "gone": None}


def test_a_run_without_series_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no series of hosts"):
        write_timeseries(tmp_path, tmp_path, "training", "x")
