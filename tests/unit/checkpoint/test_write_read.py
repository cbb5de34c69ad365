"""What one rank writes comes back to the byte, in bounded memory; what goes wrong is told and never taken for whole."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from shapes import tiny

from stoker.checkpoint.layout import rank_files, totals
from stoker.checkpoint.manifest import begin, commit, list_checkpoints, load_manifest, shards
from stoker.checkpoint.read import Reader, evict, resident_bytes
from stoker.checkpoint.timing import StageClock
from stoker.checkpoint.write import Shard, Staging, Writer
from stoker.core.checkpoints import COMMIT, STAGE, WRITE, ModelShape
from stoker.core.errors import CorruptError, InterruptedRunError, NoSpaceError, StoreError, UsageError
from stoker.core.ledger import Ledger
from stoker.storage.api import Store, SupportsMultipart
from stoker.storage.opening import open_store

NAME = "global_epoch1_step1"
KIB64 = 1 << 16
STAGING = Staging(4, KIB64)
SHAPE = tiny(zero_stage=3, vocab_size=4099, hidden_size=96)


def of_rank(rank: int = 0, *, shape: ModelShape = SHAPE, ranks: int = 2, seed: int = 5) -> list[Shard]:
    return shards("m", NAME, shape, ranks=ranks, rank=rank, content_seed=seed)


def write(store: Store, mine: list[Shard], staging: Staging = STAGING) -> StageClock:
    timing = StageClock()
    Writer(store, staging).write(mine, timing)
    return timing


def read(store: Store, mine: list[Shard], *, verify: float = 1.0, depth: int = 3) -> tuple[int, Ledger]:
    ledger = Ledger()
    reader = Reader(store, depth=depth, piece_bytes=KIB64, verify_ratio=verify)
    return reader.read(mine, StageClock(), ledger), ledger


@pytest.fixture(params=["file", "file none", "file data", "direct", "mem", "slow"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    urls = {
        "file": f"file://{tmp_path}",
        "file none": f"file://{tmp_path}?fsync=none",
        "file data": f"file://{tmp_path}?fsync=data",
        "direct": f"direct://{tmp_path}?fallback=buffered",
        "mem": "mem://",
        "slow": f"file://{tmp_path}?read_delay=1ms&retry_attempts=3",
    }
    opened = open_store(urls[request.param])
    yield opened
    opened.close()


@pytest.mark.parametrize("writers", [1, 3])
def test_what_is_written_comes_back(store: Store, writers: int) -> None:
    mine = of_rank()
    timing = write(store, mine, Staging(6, KIB64, writers))
    assert {STAGE, WRITE, COMMIT} <= set(timing.seconds) == set(timing.encoded())
    sizes = {info.key.rpartition("/")[2]: info.size_bytes for info in store.list("m/")}
    assert sizes == {file.name: file.size_bytes for file in rank_files(SHAPE, 2, 0)}
    verified, ledger = read(store, mine)
    size = sum(sizes.values())
    assert size > 4 * KIB64
    assert (verified, ledger.requested_bytes, ledger.delivered_bytes) == (size, size, size)
    assert ledger.files_opened == 2


def test_files_hold_the_stream_of_their_seed_and_nothing_else(tmp_path: Path) -> None:
    with_seed = of_rank(seed=9)
    store = open_store(str(tmp_path))
    write(store, with_seed)
    for shard in with_seed:
        wanted = bytearray(shard.file.size_bytes)
        shard.content.fill(memoryview(wanted), 0)
        assert (tmp_path / shard.key).read_bytes() == wanted
    store.close()


def test_a_share_is_verified_and_its_first_piece_always(tmp_path: Path) -> None:
    store, mine = open_store(str(tmp_path)), of_rank()
    write(store, mine)
    size = sum(shard.file.size_bytes for shard in mine)
    assert read(store, mine, verify=0.0)[0] == 0
    assert 0 < read(store, mine, verify=0.5)[0] < size
    assert read(store, mine, verify=0.0001)[0] == 2 * KIB64
    store.close()


def test_other_bytes_and_other_sizes_are_told(tmp_path: Path) -> None:
    store, mine = open_store(str(tmp_path)), of_rank()
    write(store, mine)
    path = tmp_path / mine[1].key
    data = bytearray(path.read_bytes())
    data[70_000] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(CorruptError, match="at byte 70000"):
        read(store, mine)
    read(store, mine, verify=0.0)
    path.write_bytes(data[:-1])
    with pytest.raises(CorruptError, match="another size"):
        read(store, mine, verify=0.0)
    path.unlink()
    with pytest.raises(StoreError, match="no such object"):
        read(store, mine)
    store.close()


def test_memory_is_bounded_whatever_the_size(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}?fsync=none")
    assert isinstance(store, SupportsMultipart)
    staging = Staging(4, KIB64)
    writer = Writer(store, staging)
    mine = of_rank(shape=tiny(zero_stage=3, vocab_size=200_000, hidden_size=96))
    assert sum(shard.file.size_bytes for shard in mine) > 100 * staging.memory_bytes
    writer.write(mine, StageClock())
    assert sum(pool.allocated_bytes for pool in writer._pools) <= staging.memory_bytes == 4 * KIB64
    store.close()


def test_a_store_that_keeps_parts_gets_its_memory_left_alone(tmp_path: Path) -> None:
    """As an object store's client does: parts are looked at after the next ones were asked for."""
    inner = open_store(str(tmp_path))

    class Keeping:
        url, capabilities = inner.url, inner.capabilities

        def put_parts(self, key, parts, *, if_absent=False):
            held: list[memoryview] = []
            joined = bytearray()
            for part in parts:
                held.append(part)
                if len(held) == 3:
                    joined += held.pop(0)
            for part in held:
                joined += part
            del part
            held.clear()
            return inner.put(key, bytes(joined))

        def __getattr__(self, name):
            return getattr(inner, name)

    mine = of_rank()
    Writer(Keeping(), Staging(5, KIB64)).write(mine, StageClock())  # type: ignore[arg-type]
    assert read(inner, mine)[0] > 0
    inner.close()


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_is_told_and_nothing_is_committed(tiny_disk: Path) -> None:
    store = open_store(str(tiny_disk))
    begin(store, "m", NAME)
    mine = of_rank(shape=tiny(zero_stage=3, vocab_size=40_000, hidden_size=96))
    with pytest.raises(NoSpaceError):
        write(store, mine)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("stoker-")]
    assert list_checkpoints(store, "m") == [(NAME, False)]
    with pytest.raises(CorruptError, match="torn"):
        load_manifest(store, "m", NAME)
    assert sum(info.size_bytes for info in store.list("m/")) < 1000, "the file that did not fit takes no room"
    store.close()


def test_a_device_that_fails_is_told(tmp_path: Path) -> None:
    """/dev/full cannot be a folder: a file-size limit makes the kernel fail the write itself."""
    program = f"""
import resource, signal, sys
sys.path[:0] = {[str(Path(__file__).parent)]!r}
from test_write_read import of_rank, write, open_store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
write(open_store({str(tmp_path)!r}), of_rank())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert "NoSpaceError" in done.stderr
    assert not [name for _, _, names in os.walk(tmp_path) for name in names]


def test_a_wish_to_stop_ends_writing_and_reading(tmp_path: Path) -> None:
    store, mine = open_store(str(tmp_path)), of_rank()
    taken: list[int] = []
    with pytest.raises(InterruptedRunError):
        Writer(store, Staging(2, KIB64)).write(
            mine, StageClock(), on_bytes=taken.append, stopped=lambda: len(taken) > 1
        )
    assert not list(store.list("m/"))
    write(store, mine)
    taken.clear()
    with pytest.raises(InterruptedRunError):
        Reader(store, depth=2, piece_bytes=KIB64, verify_ratio=0.0).read(
            mine, StageClock(), Ledger(), on_bytes=taken.append, stopped=lambda: len(taken) > 1
        )
    store.close()


KILLED = """
import sys, time
sys.path[:0] = [{here!r}]
from test_write_read import *
store = open_store({folder!r} + "?fsync=full")
begin(store, "m", NAME)
mine = of_rank()
Writer(store, Staging(2, KIB64)).write(mine[:1], StageClock())
print("written", flush=True)
Writer(store, Staging(2, KIB64)).write(mine[1:], StageClock(), on_bytes=lambda size: time.sleep(0.2))
"""


def test_a_killed_writer_leaves_a_torn_checkpoint_that_can_be_written_again(tmp_path: Path) -> None:
    program = KILLED.format(here=str(Path(__file__).parent), folder=f"file://{tmp_path}")
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"written\n"
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
    store = open_store(str(tmp_path))
    with pytest.raises(CorruptError, match="torn"):
        load_manifest(store, "m", NAME)
    begin(store, "m", NAME)
    assert [name for _, _, names in os.walk(tmp_path) for name in names] == ["stoker-begun.json"]
    for rank in range(2):
        write(store, of_rank(rank))
    commit(store, "m", NAME, shape=SHAPE, ranks=2, sums=totals(SHAPE, 2), content_seed=5)
    assert load_manifest(store, "m", NAME).size_bytes == totals(SHAPE, 2).size_bytes
    store.close()


def test_the_page_cache_is_emptied_and_asked(tmp_path: Path) -> None:
    store, mine = open_store(str(tmp_path)), of_rank()
    write(store, mine)
    size = sum(shard.file.size_bytes for shard in mine)
    assert resident_bytes(store, mine) == size
    assert read(store, mine)[1].from_cache_bytes == size
    assert evict(store, mine)
    if resident_bytes(store, mine):
        pytest.skip("this file system keeps its pages")
    ledger = read(store, mine)[1]
    assert (ledger.from_cache_bytes, ledger.from_store_bytes) == (0, size)
    store.close()


def test_a_store_without_parts_is_refused() -> None:
    class Bare:
        url = "bare://"

    with pytest.raises(UsageError, match="in parts"):
        Writer(Bare(), Staging(2, KIB64))  # type: ignore[arg-type]
