"""O_DIRECT: exact tails, aligned and unaligned requests, and honesty where it is refused."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stoker.core.errors import NoSpaceError, PreflightError, ShortReadError
from stoker.core.units import KiB, MiB
from stoker.storage.backends.direct import DirectStore
from stoker.storage.buffers import aligned_view
from stoker.storage.opening import open_store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[DirectStore]:
    try:
        store = open_store(f"direct://{tmp_path}?fsync=none")
    except PreflightError as error:
        pytest.skip(f"temporary files lie where O_DIRECT is refused: {error}")
    assert isinstance(store, DirectStore)
    yield store
    store.close()


@pytest.fixture
def memory_folder() -> Iterator[Path]:
    if not Path("/dev/shm").is_dir():
        pytest.skip("there is no /dev/shm")
    with tempfile.TemporaryDirectory(prefix="stoker-test-", dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.mark.parametrize("size_bytes", [0, 1, 511, 512, 513, 4095, 4096, 4097, MiB - 1, MiB, MiB + 1, 2 * MiB + 5000])
def test_files_keep_their_exact_length(store: DirectStore, tmp_path: Path, size_bytes: int) -> None:
    data = os.urandom(size_bytes)
    store.put("object", data)
    assert (tmp_path / "object").read_bytes() == data
    assert bytes(store.get_range("object")) == data


@pytest.mark.parametrize("offset_bytes", [0, 1, 511, 512, 4096, MiB - 1])
@pytest.mark.parametrize("length_bytes", [1, 512, 4096, 70_000, MiB + 1])
@pytest.mark.parametrize("shift", [0, 1])
def test_any_range_into_any_buffer(store: DirectStore, offset_bytes: int, length_bytes: int, shift: int) -> None:
    data = os.urandom(2 * MiB + 333)
    store.put("object", data)
    into = aligned_view(length_bytes + shift)[shift:]
    store.get_into("object", offset_bytes, into)
    assert bytes(into) == data[offset_bytes : offset_bytes + length_bytes]


def test_an_aligned_read_needs_no_second_buffer(store: DirectStore) -> None:
    store.put("object", os.urandom(64 * KiB))
    store._device.pool.acquire(1).release()
    before_bytes = store._device.pool.allocated_bytes
    store.get_into("object", 0, aligned_view(64 * KiB))
    store.get_into("object", 4096, aligned_view(8192))
    assert store._device.pool.allocated_bytes == before_bytes


def test_reads_and_writes_bypass_the_page_cache(store: DirectStore) -> None:
    store.put("object", os.urandom(256 * KiB))
    store.evict("object")
    if store.cached_bytes("object") is None:
        pytest.skip("the kernel does not tell what is cached")
    store.get_range("object")
    assert store.cached_bytes("object") == 0


def test_parts_of_any_size_become_one_exact_file(store: DirectStore, tmp_path: Path) -> None:
    parts = [os.urandom(size) for size in (1, 4096, 3 * MiB, 7, 0, 2 * MiB + 1)]
    store.put_parts("object", iter(parts))
    assert (tmp_path / "object").read_bytes() == b"".join(parts)


@pytest.mark.parametrize("left_bytes", [0, 1, 4096, 70_000])
def test_a_file_that_shrinks_while_it_is_read_is_an_error(store: DirectStore, tmp_path: Path, left_bytes: int) -> None:
    store.put("object", os.urandom(100_000))
    with store.open_read("object") as reader:
        os.truncate(tmp_path / "object", left_bytes)
        with pytest.raises(ShortReadError, match="ended early"):
            reader.read_into(aligned_view(100_000))


def test_a_file_system_in_memory_is_refused(memory_folder: Path) -> None:
    with pytest.raises(PreflightError, match=r"O_DIRECT is refused.*fallback=buffered"):
        open_store(f"direct://{memory_folder}")
    assert list(memory_folder.iterdir()) == []


def test_a_fallback_is_told(memory_folder: Path) -> None:
    store = open_store(f"direct://{memory_folder}?fallback=buffered")
    assert store.capabilities.io_mode == "buffered"
    assert "fell back to buffered I/O" in store.capabilities.notes[0]
    store.close()


def test_a_fallback_that_is_not_needed_is_not_taken(store: DirectStore, tmp_path: Path) -> None:
    other = open_store(f"direct://{tmp_path}?fallback=buffered")
    assert (other.capabilities.io_mode, other.capabilities.notes) == ("direct", ())
    other.close()


def test_opening_leaves_nothing_behind(store: DirectStore, tmp_path: Path) -> None:
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_no_space(store: DirectStore, tmp_path: Path) -> None:
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * KiB, hard))
    try:
        with pytest.raises(NoSpaceError):
            store.put("object", bytes(MiB))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
