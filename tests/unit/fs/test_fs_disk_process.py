"""What the process of a disk does, in a thread: certificates, tokens and copies between disks that ask for both."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chunk_places import VOLUME, header_of
from wire_peers import TOKEN

from stoker.core.errors import UnavailableError, UsageError
from stoker.fs.chunk import Target
from stoker.fs.chunk.admin import AdminServer, metrics_text
from stoker.fs.chunk.daemon import tasks_for
from stoker.fs.chunk.disk_process import Beat, DiskTask, Ready, Told, serve
from stoker.fs.chunk.supervisor import DiskView
from stoker.fs.disk import HolderStatus, ScrubStatus, ShardId
from stoker.fs.wire.keys import TlsFiles, client_tls
from wire_certificates import Authority

SHARD = ShardId(1, 1, 0)


@contextmanager
def served(task: DiskTask) -> Iterator[Ready]:
    """Serve a disk until the block ends."""
    said: list[Told] = []
    heard, stop = threading.Event(), threading.Event()

    def say(told: Told) -> None:
        said.append(told)
        heard.set()

    thread = threading.Thread(target=serve, args=(task, say, stop))
    thread.start()
    try:
        assert heard.wait(30)
        ready = said[0]
        assert isinstance(ready, Ready)
        yield ready
    finally:
        stop.set()
        thread.join()
    assert all(isinstance(told, Beat) for told in said[1:])


@pytest.fixture
def task_at(tmp_path: Path) -> Callable[[str], DiskTask]:
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("disk")
    tls = TlsFiles(str(certificate), str(key), str(authority.path))
    return lambda name: DiskTask(
        str(tmp_path / name), "127.0.0.1", 0, volume=VOLUME, token=TOKEN, tls=tls, reserve_bytes=1
    )


def test_disks_that_ask_for_certificates_copy_from_each_other(
    tmp_path: Path, task_at: Callable[[str], DiskTask]
) -> None:
    data = bytes(range(256)) * 1000
    task = task_at("one")
    assert task.tls
    tls = client_tls(Path(task.tls.authority), Path(task.tls.certificate), Path(task.tls.key))
    with served(task) as one, served(task_at("two")) as two:
        with Target(one.address, token=TOKEN, tls=tls) as first, Target(two.address, token=TOKEN, tls=tls) as second:
            first.put(header_of(SHARD, data), [data], durable=True)
            second.pull(SHARD, one.address, durable=True)
            assert bytes(second.get(SHARD, [(5000, 100_000)])[0]) == data[5000:105_000]
        unknown = client_tls(Path(task.tls.authority))
        nobody = Target(two.address, token=TOKEN, tls=unknown, within_seconds=0.3)
        with nobody, pytest.raises(UnavailableError):
            nobody.status()
    with served(task_at("two")) as two, Target(two.address, token=TOKEN, tls=tls) as second:
        assert second.header(SHARD) == header_of(SHARD, data)


def test_ports_follow_each_other_and_folders_are_named_once(tmp_path: Path) -> None:
    like = DiskTask("", "127.0.0.1", 7000)
    assert [task.port for task in tasks_for([tmp_path / "a", tmp_path / "b"], like)] == [7000, 7001]
    any_port = DiskTask("", "127.0.0.1", 0)
    assert [task.port for task in tasks_for([tmp_path / "a", tmp_path / "b"], any_port)] == [0, 0]
    with pytest.raises(UsageError, match="named twice"):
        tasks_for([tmp_path / "a", tmp_path / "x" / ".." / "a"], like)
    with pytest.raises(UsageError, match="not so many ports"):
        tasks_for([tmp_path / "a", tmp_path / "b"], DiskTask("", "127.0.0.1", 65535))
    with pytest.raises(UsageError, match="give --advertise HOST"):
        tasks_for([tmp_path / "a"], DiskTask("", "0.0.0.0", 0, token=TOKEN, masters=("h:1",)))


def test_metrics_are_what_prometheus_reads() -> None:
    status = HolderStatus("v", "d", 1, 2**40, 2**39, 5, 4, 3, 2, True, "", ScrubStatus(checked_bytes=7))
    views = [
        DiskView('/a"b\\c\nd', "127.0.0.1:1", "d", True, 1, "", Beat(status, 6, False)),
        DiskView("/silent", "", "", False, 9, "it died", None),
    ]
    lines = metrics_text(views).splitlines()
    assert 'stoker_chunk_up{disk="d",folder="/a\\"b\\\\c\\nd"} 1' in lines
    assert 'stoker_chunk_up{disk="",folder="/silent"} 0' in lines
    assert f'stoker_chunk_capacity_bytes{{disk="d",folder="/a\\"b\\\\c\\nd"}} {2**40}' in lines
    assert not [line for line in lines if "capacity" in line and "silent" in line]
    helps = [line.split()[2] for line in lines if line.startswith("# HELP")]
    types = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert helps == types and len(set(helps)) == len(helps)


def test_the_admin_port_is_for_this_machine_alone() -> None:
    with pytest.raises(UsageError, match="knows no token"):
        AdminServer("0.0.0.0", 0, list)
