"""`stoker fs chunkserver` as real processes: copies, kills, full disks, tokens, certificates, monitors, orphans."""

import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from chunk_servers import Running, alive, chunk_server, gone, kill, start

from stoker.core.errors import CorruptError, DeniedError, NoSpaceError, NotFoundError, StokerError, UnavailableError
from stoker.fs.chunk import Target
from stoker.fs.chunk.operations import HEARTBEAT, Heartbeat, Noted
from stoker.fs.disk import ShardId
from stoker.fs.disk.interface import ShardHeader
from stoker.fs.wire import RpcServer
from stoker.testing.shard_holder_contract import VOLUME, content, header_of

pytestmark = pytest.mark.server
TOKEN = "a token of many characters"


def put(target: Target, number: int, size: int = 50_000, *, durable: bool = True) -> bytes:
    data = content(size, seed=number)
    target.put(header_of(ShardId(number, 1, 0), data), [data], durable=durable)
    return data


def listed(target: Target) -> list[ShardHeader]:
    found: list[ShardHeader] = []
    while True:
        page = target.listing(found[-1].shard if found else None, 1000)
        assert page.complete and not page.bad
        found += page.headers
        if not page.more:
            return found


@pytest.mark.slow
def test_two_disks_serve_copy_scrub_and_end_in_order(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    address_file = tmp_path / "addresses.json"
    with chunk_server(folders, "--admin", "127.0.0.1:0", "--address-file", str(address_file)) as running:
        assert json.loads(address_file.read_text()) == running.announced
        with running.target(0) as first, running.target(1) as second:
            data = put(first, 1)
            second.pull(ShardId(1, 1, 0), running.addresses[0], durable=True)
            assert bytes(second.get(ShardId(1, 1, 0), [(10_000, 5)])[0]) == data[10_000:10_005]
            second.scrub(10_000_000)
            until = time.monotonic() + 60
            while second.status().scrub.checked_bytes < 50_000:
                assert time.monotonic() < until
                time.sleep(0.05)
            monitored(running, until)
        running.process.send_signal(signal.SIGTERM)
        out, err = running.process.communicate(timeout=60)
        assert (running.process.returncode, out, err) == (0, "", "")
    with chunk_server(folders) as running, running.target(1) as second:
        assert bytes(second.get(ShardId(1, 1, 0), [(0, 50_000)])[0]) == data


def monitored(running: Running, until: float) -> None:
    """Monitors see that both disks are well."""
    admin = f"http://{running.announced['admin']}"
    while True:
        try:
            with urllib.request.urlopen(f"{admin}/health", timeout=10) as answer:
                health = json.load(answer)
            break
        except urllib.error.HTTPError:
            assert time.monotonic() < until  # no second of their life is over yet
            time.sleep(0.1)
    assert health["healthy"] and [disk["restarts"] for disk in health["disks"]] == [0, 0]
    with urllib.request.urlopen(f"{admin}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    assert sum(line.startswith("stoker_chunk_up{") and line.endswith("} 1") for line in lines) == 2
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{admin}/../etc/passwd", timeout=10)


@pytest.mark.slow
def test_who_has_no_token_gets_nothing(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    with chunk_server([tmp_path / "a"], "--listen", "0.0.0.0:0", "--token-file", str(path)) as running:
        address = running.addresses[0].replace("0.0.0.0", "127.0.0.1")
        arguments = Path(f"/proc/{running.pids[0]}/cmdline").read_bytes()
        environment = Path(f"/proc/{running.pids[0]}/environ").read_bytes()
        assert TOKEN.encode() not in arguments + environment
        with Target(address, token=TOKEN) as target:
            put(target, 1)
        for wrong in (None, TOKEN + "!"):
            with Target(address, token=wrong) as target, pytest.raises(DeniedError):
                target.status()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--listen", "0.0.0.0:0"], "must know its clients"),
        (["--listen", "nowhere"], "address is not readable"),
        (["--tls-cert", "missing.pem"], "TLS needs a certificate and its key"),
        (["--tls-cert", "missing.pem", "--tls-key", "missing.pem"], "TLS files cannot be used"),
        (["--scrub", "fast"], "size is not readable '--scrub'"),
        (["--masters", "here"], "address is not readable"),
        (["--admin", "0.0.0.0:0"], "admin port knows no token"),
        (["--token-file", "missing"], "file of the token cannot be read"),
    ],
)
@pytest.mark.slow
def test_what_cannot_be_meant_is_refused_in_one_sentence(tmp_path: Path, arguments: list[str], told: str) -> None:
    process = start([tmp_path / "a"], *arguments)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 2 and told in err and err.count("\n") == 1


@pytest.mark.slow
def test_a_folder_that_is_no_disk_is_told(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "thesis.txt").write_text("mine")
    process = start([tmp_path / "a", tmp_path / "b"])
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1 and "disk cannot be served" in err and "thesis.txt" in err
    assert os.listdir(tmp_path / "a") == ["thesis.txt"]


# -- kills


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["disk", "parent"])
def test_what_was_acknowledged_outlives_a_kill(tmp_path: Path, victim: str) -> None:
    acknowledged: dict[int, int] = {}

    def write(target: Target, first: int) -> None:
        number = first
        while not stopped.is_set():
            size = 1000 + number * 7919 % 90_000 + (2 << 20 if number % 10 == 0 else 0)
            try:
                put(target, number, size)
            except StokerError:
                return
            acknowledged[number] = size
            number += 1

    stopped = threading.Event()
    with chunk_server([tmp_path / "a"]) as running:
        targets = [running.target(0, within_seconds=1) for _ in range(4)]
        threads = [
            threading.Thread(target=write, args=(target, 1_000_000 * number)) for number, target in enumerate(targets)
        ]
        for thread in threads:
            thread.start()
        until = time.monotonic() + 60
        while len(acknowledged) < 60:
            assert time.monotonic() < until
            time.sleep(0.02)
        kill(running.pids[0] if victim == "disk" else running.process.pid)
        if victim == "disk":
            stopped.set()
        for thread in threads:
            thread.join()
        for target in targets:
            target.close()
        if victim == "parent":
            assert running.process.wait(30) == -signal.SIGKILL
            assert gone(running.pids)
    with chunk_server([tmp_path / "a"]) as running, running.target(0) as target:
        there = {header.shard.slice_id: header for header in listed(target)}
        assert set(acknowledged) <= set(there)
        for number, header in there.items():  # those nobody was told of are whole, too
            data = content(header.shard_bytes, seed=number)
            assert bytes(target.get(header.shard, [(0, len(data))])[0]) == data


@pytest.mark.slow
def test_a_disk_that_dies_is_served_again_where_it_was(tmp_path: Path) -> None:
    with chunk_server([tmp_path / "a", tmp_path / "b"]) as running:
        with running.target(0) as first, running.target(1) as second:
            data, other = put(first, 1), put(second, 2)
            kill(running.pids[0])
            assert bytes(second.get(ShardId(2, 1, 0), [(0, 9)])[0]) == other[:9]
            assert bytes(first.get(ShardId(1, 1, 0), [(0, 9)])[0]) == data[:9]  # asked again until it is back
        running.process.terminate()
        _, err = running.process.communicate(timeout=60)
        assert running.process.returncode == 0 and "is started again" in err


def test_no_process_outlives_its_parent(tmp_path: Path) -> None:
    with chunk_server([tmp_path / "a", tmp_path / "b"]) as running:
        assert all(alive(pid) for pid in running.pids)
        kill(running.process.pid)
        assert gone(running.pids)


# -- masters


@pytest.mark.slow
def test_a_disk_without_a_master_is_read_only_until_one_answers(tmp_path: Path) -> None:
    heard: list[Heartbeat] = []
    handlers = {HEARTBEAT: lambda asked, payload, asker: (heard.append(asked), (Noted(), ()))[1]}
    with RpcServer(handlers) as master:
        addresses = f"127.0.0.1:1,127.0.0.1:{master.address[1]}"
        with chunk_server([tmp_path / "a"], "--masters", addresses) as running, running.target(0) as target:
            until = time.monotonic() + 30
            while not heard:
                assert time.monotonic() < until
                time.sleep(0.02)
            data = put(target, 1)
            master.close()
            fenced(target)
            assert bytes(target.get(ShardId(1, 1, 0), [(0, 9)])[0]) == data[:9]
            with RpcServer(handlers, port=master.address[1]):
                until = time.monotonic() + 60
                while True:
                    try:
                        put(target, 2)
                        break
                    except UnavailableError:
                        assert time.monotonic() < until
                        time.sleep(0.1)
                running.process.terminate()
                running.process.communicate(timeout=60)
                assert heard[-1].leaving
    assert heard[0].address == running.addresses[0] and heard[0].status.volume == VOLUME


def fenced(target: Target) -> None:
    """Writes are refused soon."""
    until = time.monotonic() + 60
    with pytest.raises(UnavailableError, match="without contact to a master"):
        while time.monotonic() < until:
            put(target, 1)
            time.sleep(0.1)


# -- bad disks


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own in memory; skips where this user may not make one."""
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    with small_disk(tmp_path / "a", "24m") as folder, chunk_server([folder]) as running, running.target(0) as target:
        sizes: dict[int, int] = {}
        with pytest.raises(NoSpaceError):
            for number in range(100):
                size = 1_500_000 if number % 2 else 90_000
                put(target, number, size)
                sizes[number] = size
        assert len(sizes) > 10
        for number, size in sizes.items():
            assert bytes(target.get(ShardId(number, 1, 0), [(0, size)])[0]) == content(size, seed=number)
        assert set(sizes) == {header.shard.slice_id for header in listed(target)}
        target.remove([ShardId(number, 1, 0) for number in sizes if number % 2])
        until = time.monotonic() + 60
        while True:  # space comes back
            try:
                put(target, 1000, 1_000_000)
                break
            except NoSpaceError:
                assert time.monotonic() < until
                time.sleep(0.2)


@pytest.mark.slow
def test_flipped_bits_on_the_disk_reach_nobody(tmp_path: Path) -> None:
    with chunk_server([tmp_path / "a"]) as running, running.target(0) as target:
        data = put(target, 7, 2 << 20)
        flipped = 0
        for path in (tmp_path / "a").rglob("*"):
            at = path.read_bytes().find(data) if path.is_file() else -1
            if at >= 0:
                with path.open("r+b") as file:
                    file.seek(at + 1_234_567)
                    file.write(bytes([data[1_234_567] ^ 1]))
                flipped += 1
        assert flipped == 1
        with pytest.raises(CorruptError) as told:
            target.get(ShardId(7, 1, 0), [(1_234_000, 1000)])
        assert "7.1.0" in str(told.value) and running.addresses[0] in str(told.value)
        assert target.status().disk in str(told.value)
        assert bytes(target.get(ShardId(7, 1, 0), [(0, 4096)])[0]) == data[:4096]
        with pytest.raises(NotFoundError):
            target.header(ShardId(8, 1, 0))
