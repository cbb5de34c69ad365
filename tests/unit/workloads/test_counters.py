"""Counters of the kernel, and of imitated kernels that lack them."""

import os
from pathlib import Path

import pytest

from stoker.bench.workloads import counters
from stoker.bench.workloads.counters import (
    BlockDevice,
    Sources,
    device_under,
    difference,
    network_receive_bytes,
    usable_cpus,
)
from stoker.core.errors import TransientError
from stoker.core.ledger import Counters
from stoker.storage.api import SupportsRequestCount
from stoker.storage.opening import open_store

NET_DEV = """Inter-| Receive       | Transmit
 face |bytes packets  |bytes packets
    lo: 500 1 0 0 0 0 0 0 500 1 0 0 0 0 0 0
  eth0: 1000 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0
 bond0:1000 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0
  eth1: 30 1 0 0 0 0 0 0 7 1 0 0 0 0 0 0
"""


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_this_process_reads_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x" * 100_000)
    before = counters.process_io()[1]
    file.read_bytes()
    after = counters.process_io()[1]
    assert before is not None and after is not None
    assert after - before >= 100_000


def test_device_is_the_one_the_file_system_names(tmp_path: Path) -> None:
    number = os.stat(tmp_path).st_dev
    name = f"{os.major(number)}:{os.minor(number)}"
    disk = tree(tmp_path / "sys", {"devices/block/disk/disk1/stat": "10 0 16 5 0 0 0 0 0 0 0\n"})
    (disk / "dev/block").mkdir(parents=True)
    (disk / "dev/block" / name).symlink_to("../../devices/block/disk/disk1")
    device = device_under(tmp_path, sys_root=disk)
    assert device is not None
    assert device.name == "disk1"
    assert device.read_bytes() == 16 * 512


def test_no_device_under_what_is_not_on_one(tmp_path: Path, memory_folder: Path) -> None:
    assert device_under(memory_folder) is None
    assert device_under("/proc") is None
    assert device_under(tmp_path / "missing") is None
    assert device_under(tmp_path, sys_root=tmp_path / "no-sys") is None


@pytest.mark.parametrize("text", ["", "1 2", "a b c d"])
def test_unreadable_statistics_are_unknown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "stat"
    assert BlockDevice("x", str(file)).read_bytes() is None
    file.write_text(text)
    assert BlockDevice("x", str(file)).read_bytes() is None


def test_interfaces_made_of_others_are_not_counted_twice(tmp_path: Path) -> None:
    proc = tree(tmp_path / "proc", {"net/dev": NET_DEV})
    with_devices = tree(tmp_path / "sys", {"class/net/eth0/device/id": "1", "class/net/eth1/device/id": "1"})
    assert network_receive_bytes(proc_root=proc, sys_root=with_devices) == 1030
    assert network_receive_bytes(proc_root=proc, sys_root=tmp_path / "none") == 2030
    assert network_receive_bytes(proc_root=tmp_path / "none") is None


def test_a_control_group_s_quota_limits_the_cpus(tmp_path: Path) -> None:
    proc = tree(tmp_path / "proc", {"self/cgroup": "1:cpu:/old\n0::/a/b\n"})
    groups = tree(tmp_path / "cgroup", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"})
    assert usable_cpus(proc_root=proc, cgroup_root=groups) == 0.5
    assert usable_cpus(proc_root=tmp_path / "none") == len(os.sched_getaffinity(0))
    (groups / "a/cpu.max").write_text("nonsense")
    assert usable_cpus(proc_root=proc, cgroup_root=groups) == len(os.sched_getaffinity(0))


def test_memory_and_cpu_time_of_this_process_are_known() -> None:
    assert counters.peak_memory_bytes() > 10_000_000
    assert counters.cpu_seconds() > 0


def test_only_one_rank_of_a_host_counts_what_is_the_host_s(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    try:
        other = Sources(store, host_wide=False).read()
        leader = Sources(store, host_wide=True).read()
    finally:
        store.close()
    assert other.device_read_bytes is None
    assert other.network_receive_bytes is None
    assert leader.process_syscall_bytes is not None
    assert leader.http_body_bytes is None


def test_an_object_store_tells_its_requests_by_kind() -> None:
    store = open_store("s3://bucket?credentials=anonymous&endpoint=http://127.0.0.1:9&retry_attempts=1")
    with pytest.raises(TransientError):
        store.stat("object")
    found = Sources(store, host_wide=False).read()
    assert (found.http_head_requests, found.http_get_range_requests, found.http_body_bytes) == (1, 0, 0)
    assert isinstance(store, SupportsRequestCount)
    assert {f"http_{kind}_requests" for kind in store.request_counts} <= set(Counters.__struct_fields__)


def test_a_difference_with_the_unknown_is_unknown() -> None:
    found = difference(
        Counters(process_read_bytes=10, device_read_bytes=7), Counters(process_read_bytes=4, http_body_bytes=1)
    )
    assert found == Counters(process_read_bytes=6)
