"""Hosts in the report: rates from counters, each byte once, on the time axis of the steps."""

import json
import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
import runs

from stoker.bench.report.hosts import host_rows, load_line, summarise
from stoker.bench.report.html import read_saved, render
from stoker.bench.report.series import load_timeline
from stoker.core.host_series import HOSTS_FILE, ClockOffset, Header, HostSeries, encode_column, save_hosts
from stoker.core.result import SERIES_FILE, HostSummary, Result

HEADER = Header(10.0, "2026-01-31T12:00:00.000000Z", 10**12)


def host(name: str = "a", samples: int = 7, **columns: list[int | None]) -> HostSeries:
    """A host of 4 CPUs, half busy, that reads 1 MiB/s from one disk, as its partition and its volume tell too."""
    count = np.arange(samples)
    values = {
        "at_us": count * 10_000_000,
        "cpu/user": count * 2000,
        "cpu/idle": count * 1500,
        "cpu/iowait": count * 500,
        "mem/MemAvailable": 1000 - count,
        "net/eth0/rx_bytes": count * 50_000_000,
        "net/eth0/tx_bytes": count * 10_000_000,
        "net/bond0/rx_bytes": count * 50_000_000,
        **{f"disk/{disk}/sectors_read": count * 20480 for disk in ("sda", "sda1", "dm-0")},
    }
    coded = {key: encode_column([int(value) for value in column]) for key, column in values.items()}
    coded |= {key.replace("__", "/"): encode_column(column) for key, column in columns.items()}
    return HostSeries(
        name,
        "mpi",
        ClockOffset(0.002, 0.0001, 8),
        samples,
        coded,
        {"sda": "", "sda1": "partition of sda", "dm-0": "stands on sda1"},
        {"eth0": "", "bond0": "no device of its own"},
        {"cpuinfo": {"logical_cpus": 4}, "meminfo": {"MemTotal": 2000}},
    )


def test_means_count_every_byte_once() -> None:
    (found,) = summarise([host()], {"a": 3})
    assert found == HostSummary(
        host="a",
        source="mpi",
        ranks=3,
        logical_cpus=4,
        memory_bytes=2000 * 1024,
        samples=7,
        cpu_busy_ratio=0.5,
        cpu_busy_max_ratio=0.5,
        memory_available_min_bytes=994 * 1024,
        disk_read_bytes_per_second=1048576.0,
        disk_write_bytes_per_second=0.0,
        network_receive_bytes_per_second=5e6,
        network_transmit_bytes_per_second=1e6,
        clock_offset_seconds=0.002,
        clock_error_seconds=0.0001,
    )


def test_a_host_of_which_nothing_was_seen_says_so() -> None:
    (found,) = summarise([HostSeries("b", "ssh", errors=["b: no answer within 5 s"])])
    assert found.cpu_busy_ratio is None and found.disk_read_bytes_per_second is None
    (row,) = host_rows([found])
    assert row["cpu"] == "–" and row["clock"] == "not measured" and row["errors"] == "b: no answer within 5 s"


def test_a_counter_that_fell_back_adds_no_negative_rate() -> None:
    (found,) = summarise([host(net__eth0__rx_bytes=[100, 200, 50, 100, 150, 200, 250])])
    assert found.network_receive_bytes_per_second == pytest.approx((100 + 50 * 4) / 60)


def test_hosts_are_drawn_on_the_time_axis_of_the_steps(tmp_path: Path) -> None:
    save_hosts(tmp_path, HEADER, [host(), host("b")])
    line = load_line(tmp_path, origin_ns=10**12 + 5 * 10**9)
    assert line is not None and (line.hosts, line.samples) == (2, 14)
    np.testing.assert_allclose(line.seconds, np.arange(6) * 10.0)  # the middles of 10 s, 5 s early
    np.testing.assert_allclose(line.cpu.mean, 0.5)
    np.testing.assert_allclose(line.rates["network_receive"], 2 * 5e6)
    np.testing.assert_allclose(line.rates["disk_read"], 2 * 1048576.0)


def test_a_host_seen_for_a_part_of_the_time_leaves_the_rest_to_the_others(tmp_path: Path) -> None:
    save_hosts(tmp_path, HEADER, [host(), host("late", samples=4)])
    line = load_line(tmp_path)
    assert line is not None
    np.testing.assert_allclose(line.rates["network_transmit"], [2e6] * 3 + [1e6] * 3)


def test_the_origin_of_the_steps_is_told(tmp_path: Path) -> None:
    runs.save_series(tmp_path / SERIES_FILE, {0: runs.rank_columns(0), 1: runs.rank_columns(1)})
    line = load_timeline(tmp_path / SERIES_FILE)
    first = runs.rank_columns(0)
    assert line is not None
    assert abs(line.origin_ns - int(first["request_ns"][0])) < 10**9


def test_the_page_shows_hosts_next_to_the_stalls(run_folder: Path, template_result: Result) -> None:
    save_hosts(run_folder, HEADER, [host(), host("<b>")])
    result = msgspec.structs.replace(template_result, hosts=summarise([host(), host("<b>")], {"a": 2}))
    page = render(read_saved(run_folder, result))
    for words in ("Host CPU", "Host network", "Host disks", "Wait and compute, per step", "+2.000 ± 0.100 ms"):
        assert words in page
    assert "&lt;b&gt;" in page and "<b></th>" not in page
    found = re.search(r'id="stoker-data">(.*?)</script>', page)
    assert found is not None
    data = json.loads(found[1])
    assert data["hosts"]["hosts"] == 2
    assert len(data["hosts"]["disk_read_bytes_per_second"]) == len(data["hosts"]["seconds"])
    assert data["result"]["hosts"][0]["cpu_busy_ratio"] == 0.5


def test_two_samples_are_no_line_and_stand_in_the_table_alone(run_folder: Path, template_result: Result) -> None:
    short = host(samples=3)
    save_hosts(run_folder, HEADER, [short])
    result = msgspec.structs.replace(template_result, hosts=summarise([short]))
    page = render(read_saved(run_folder, result))
    assert "Host CPU" not in page and "+2.000 ± 0.100 ms" in page


def test_a_broken_file_of_hosts_is_told_and_the_page_stands(run_folder: Path, template_result: Result) -> None:
    (run_folder / HOSTS_FILE).write_bytes(b"nothing of ours")
    page = render(read_saved(run_folder, template_result))
    assert "The series of hosts could not be read" in page
    assert "Nothing was recorded about the hosts." in page
