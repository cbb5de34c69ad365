"""Sampling this host: due times, memory bounds, the copy that survives, and how small all of it is."""

import random
import threading
from pathlib import Path

import pytest

from stoker.bench.run.hosts.collect import Collection, new_header
from stoker.bench.run.hosts.partial import CUT_SHORT, recover_hosts
from stoker.bench.run.hosts.sampler import Gathered, LocalSampler, file_name, sample_of
from stoker.bench.run.hosts.sources import counted, local_name, read_all, read_dynamic, snapshot
from stoker.core.host_series import HOSTS_FILE, Header, HostSeries, load_hosts, save_hosts


def test_a_host_is_sampled_between_two_snapshots(tmp_path: Path) -> None:
    sampler = LocalSampler(new_header(0.05), partial_folder=tmp_path)
    three = threading.Event()
    taken = sampler._gathered.add

    def add(sample: dict[str, int]) -> bool:
        dropped = taken(sample)
        if sampler._gathered.series.samples >= 3:
            three.set()
        return dropped

    sampler._gathered.add = add  # type: ignore[method-assign]
    sampler.start()
    assert three.wait(30)
    series = sampler.stop()
    assert series.host == local_name() and series.source == "local"
    assert series.samples >= 4
    at_us = series.values("at_us")
    assert at_us == sorted(at_us) and at_us[0] >= 0
    assert series.start["meminfo"]["MemTotal"] == series.end["meminfo"]["MemTotal"]
    assert series.start["environment"].keys() >= set()
    assert all(value is not None for value in series.values("cpu/idle"))
    assert series.errors == []


def test_a_source_that_is_missing_is_told_once_and_the_others_go_on() -> None:
    texts, _ = read_dynamic()
    del texts["vmstat"]
    sampler = LocalSampler(new_header(10.0), read=lambda: (texts, {"vmstat": "Permission denied"}))
    sampler._take()
    sampler._take()
    series = sampler._gathered.finish()
    assert series.errors == ["/proc/vmstat: Permission denied"]
    assert series.samples == 2
    assert "mem/MemTotal" in series.columns and "vm/pgpgin" not in series.columns


def test_a_long_series_is_thinned_out_and_still_reaches_from_end_to_end() -> None:
    gathered = Gathered(HostSeries("a"), new_header(1.0), samples_max=8)
    dropped = [
        gathered.add({"at_us": number, "late": number} if number > 2 else {"at_us": number}) for number in range(15)
    ]
    series = gathered.finish()
    assert dropped.count(True) == 2
    assert series.samples < 8
    assert series.values("at_us")[0] == 0 and series.values("at_us")[-1] == 14
    assert series.values("late")[0] is None and series.values("late")[-1] == 14


def test_a_killed_collection_is_recovered_from_its_partial_file(tmp_path: Path) -> None:
    header = new_header(10.0)
    series = HostSeries("a", disks={"sda": ""}, start={"meminfo": {"MemTotal": 4}})
    gathered = Gathered(series, header, tmp_path / "hosts-a.partial.jsonl")
    rows = [{"at_us": 1, "x": 5, "gone": 3}, {"at_us": 2, "x": 5}, {"at_us": 3, "x": 9}]
    for row in rows:
        gathered.add(row)
    gathered.close()
    with (tmp_path / "hosts-a.partial.jsonl").open("ab") as file:
        file.write(b'{"type":"sample","chan')
    (tmp_path / "hosts-b.partial.jsonl").write_bytes(b"no partial file of ours\n")
    (found,) = recover_hosts(tmp_path)
    assert found.host == "a" and found.samples == 3 and found.errors == [CUT_SHORT]
    assert found.values("x") == [5, 5, 9]
    assert found.values("gone") == [3, None, None]
    assert found.disks == {"sda": ""} and found.start == {"meminfo": {"MemTotal": 4}}
    assert [host.host for host in recover_hosts(tmp_path)] == ["a"]  # it is there now


def test_partial_files_of_two_hosts_are_set_to_one_time(tmp_path: Path) -> None:
    for name, second in (("a", "10"), ("b", "13")):
        header = Header(10.0, f"2026-01-31T12:00:{second}.000000Z", 10**12)
        gathered = Gathered(HostSeries(name), header, tmp_path / f"hosts-{name}.partial.jsonl")
        gathered.add({"at_us": 7})
        gathered.close()
    first, second = recover_hosts(tmp_path)
    assert (first.values("at_us"), second.values("at_us")) == ([7], [3_000_007])


def test_a_full_disk_ends_the_copy_and_not_the_series() -> None:
    gathered = Gathered(HostSeries("a"), new_header(10.0), Path("/dev/full"))
    gathered.add({"at_us": 1})
    assert gathered.finish().samples == 1
    assert "No space left" in gathered.series.errors[0]


def test_samples_of_a_real_host_take_under_two_kibibytes_each(tmp_path: Path) -> None:
    """The texts of this host, with every counter moving in every sample as under load, for an hour at 10 s."""
    texts, errors = read_all()
    disks, interfaces = counted(texts)
    series = HostSeries("a", disks=disks, interfaces=interfaces, start=snapshot(texts, errors))
    gathered = Gathered(series, new_header(10.0))
    sample = sample_of(texts, at_us=0, wall_ns=0)
    chance = random.Random(7)
    moving = [name for name in sample if sample[name] and not name.startswith("disk/loop")]
    for _ in range(360):
        for name in moving:
            sample[name] += chance.randrange(100_000)
        gathered.add(sample)
    done = gathered.finish()
    done.end = done.start
    size_bytes = save_hosts(tmp_path, new_header(10.0), [done]).stat().st_size
    assert size_bytes / 360 <= 2048


def test_a_collection_leaves_one_file_and_no_partial(tmp_path: Path) -> None:
    collection = Collection(tmp_path, 10.0)
    assert list(tmp_path.glob("*.partial.jsonl"))
    gathered = HostSeries(local_name(), "mpi")
    hosts = collection.finish([gathered])
    assert [path.name for path in tmp_path.iterdir()] == [HOSTS_FILE]
    assert [host.host for host in hosts] == [local_name(), f"{local_name()}#2"]
    assert "2 hosts are called" in hosts[1].errors[0]
    found = load_hosts(tmp_path)
    assert found is not None and [host.host for host in found[1]] == [host.host for host in hosts]


def test_no_interval_collects_nothing(tmp_path: Path) -> None:
    assert Collection(tmp_path, 0.0).finish() == []
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_costs_only_the_series(tmp_path: Path) -> None:
    hosts = Collection(tmp_path / "none", 10.0).finish()
    assert "sampling could not begin" in hosts[0].errors[0]


@pytest.mark.parametrize(("name", "expected"), [("a.b-1", "a.b-1"), ("../x", "_x"), ("::1", "__1"), ("", "_")])
def test_names_of_hosts_are_harmless_as_names_of_files(name: str, expected: str) -> None:
    assert file_name(name) == expected
