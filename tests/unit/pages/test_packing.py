"""Pages packed for checkpoints: compressed where a sample says so, unchanged when read again, whatever their sizes."""

import os
from pathlib import Path

import msgspec
import numpy as np
import pytest
import xxhash

from stoker.kernels.checking import crc32c
from stoker.kernels.rows import Rows
from stoker.pages import Store
from stoker.pages.columns import SIZE, PageColumns
from stoker.pages.disk import OsDisk
from stoker.pages.errors import ChecksumError, FormatError, InvalidDelta
from stoker.pages.history import CheckpointFacts, State, read_checkpoint, write_checkpoint
from stoker.pages.history.checkpoint import FOOTER, FOOTER_BYTES, FOOTER_MAGIC
from stoker.pages.history.checkpoint_read import open_checkpoint
from stoker.pages.history.index import OFFSET, STORED, Entries, encode_index
from stoker.pages.history.packing import ALIGN, GROUP_BYTES, RAW, ZSTD, pack_group
from stoker.pages.images import PageImage

FACTS = CheckpointFacts(uuid=bytes(16), lsn=9, time_ns=3)


def random_pages(sizes: list[int]) -> list[PageImage]:
    chance = np.random.default_rng(5)
    return [
        PageImage(number, number, 9, chance.integers(0, 256, size, np.uint8), meta=b"\x81\xa1a" + bytes([number % 100]))
        for number, size in enumerate(sizes, 1)
    ]


def kinds_of(images: list[PageImage], codec: str) -> set[int]:
    return set(pack_group(PageColumns.of(images), codec).stored[:, 0].tolist())


def test_a_sample_decides_for_the_group() -> None:
    noise = random_pages([4096] * 50)
    assert kinds_of(noise, "auto") == {RAW}
    zeros = [PageImage(1, 1, 1, np.zeros(4096, np.uint8)) for _ in range(50)]
    assert kinds_of(zeros, "auto") == {ZSTD}
    assert kinds_of(zeros, "raw") == {RAW}
    # What does not shrink is stored as it is, even when compression is asked for.
    assert kinds_of(noise, "zstd") == {RAW}


@pytest.mark.parametrize("sizes", [[1, 63, 64, 65, 4096, 100_000], [4096] * 9, [64, 128, 1, 1, 64, 64], [7]])
@pytest.mark.parametrize("codec", ["raw", "zstd"])
def test_pieces_lie_where_it_is_said(sizes: list[int], codec: str) -> None:
    images = random_pages(sizes)
    packed = pack_group(PageColumns.of(images), codec)
    data = b"".join(packed.pieces)
    for image, (kind, offset, size) in zip(images, packed.stored.tolist(), strict=True):
        assert (offset % ALIGN, kind) == (0, RAW)
        assert data[offset : offset + size] == image.data.tobytes()
    assert [digest.tobytes() for digest in packed.digests] == [xxhash.xxh3_128_digest(image.data) for image in images]
    assert len(data) % ALIGN == 0


def test_pages_side_by_side_are_one_piece() -> None:
    assert len(pack_group(PageColumns.of(random_pages([4096, 64, 8192])), "raw").pieces) == 1


@pytest.mark.parametrize("codec", ["auto", "raw", "zstd"])
def test_what_is_read_is_what_was_written(tmp_path: Path, codec: str) -> None:
    sizes = [1, 63, 64, 65, 4096, 4097, GROUP_BYTES, GROUP_BYTES + 1, 3 * GROUP_BYTES, *([4096] * 3000), 1]
    images = random_pages(sizes)
    for image in images[::3]:
        image.data[: image.size_bytes * 3 // 4] = 7
    written = write_checkpoint(tmp_path, iter(images), FACTS, codec=codec)
    assert (written.pages, written.page_bytes) == (len(sizes), sum(sizes))
    state = read_checkpoint(written.path)
    assert state.digest() == State.of(images, 9).digest()
    assert list(state.pages) == [image.page for image in images]
    state.pages[1].data[:] = 0  # its bytes are its own
    state.pages[5].data[:] = 0
    assert np.array_equal(state.pages[4].data, images[3].data)
    some = read_checkpoint(written.path, pages=[2, 5, 7])
    assert {page: image.data.tobytes() for page, image in some.pages.items()} == {
        page: images[page - 1].data.tobytes() for page in (2, 5, 7)
    }


def test_damage_is_found_wherever_it_is(tmp_path: Path) -> None:
    written = write_checkpoint(tmp_path, iter(random_pages([4096] * 5)), FACTS)
    whole = written.path.read_bytes()
    for at in range(4096, 4096 + 5 * 4096, 1777):
        written.path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(ChecksumError, match="damaged"):
            read_checkpoint(written.path)


def test_many_pieces_are_written_though_the_system_takes_them_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pieces = [bytes([number % 251]) * (number % 7) for number in range(3000)]
    short = os.pwritev
    monkeypatch.setattr(os, "pwritev", lambda fd, given, at: short(fd, [bytes(given[0])[:3] or given[1]], at))
    disk = OsDisk()
    handle = disk.open(tmp_path / "f", create=True)
    disk.write(handle, 5, [piece for piece in pieces if piece])
    disk.close(handle)
    assert (tmp_path / "f").read_bytes() == bytes(5) + b"".join(pieces)


@pytest.mark.parametrize("keep", [1, 9])
def test_each_checkpoint_knows_all_marks_and_writers_though_it_reads_only_the_log_since(
    tmp_path: Path, keep: int
) -> None:
    def told(store: Store) -> tuple[dict[str, int], list[str]]:
        index = open_checkpoint(store.checkpoint(keep=keep).path).index
        return index.marks, sorted(index.sources.values())

    with Store.open(tmp_path / "bus", size_bytes=4 << 20, segment_bytes=1 << 16) as store:
        page = store.allocate(30_000)
        marks = {"first": store.mark("first")}
        store.write(page, bytes([1]) * 30_000, source="one")
        assert told(store) == (marks, ["one"])
        assert told(store) == (marks, ["one"])
        for turn in range(6):  # over several segments
            store.write(page, np.random.default_rng(turn).bytes(30_000), source=f"two {turn}")
            marks[f"turn {turn}"] = store.mark(f"turn {turn}")
            assert told(store)[0] == marks
        assert len(told(store)[1]) == 7
    with Store.open(tmp_path / "bus") as store:
        marks["later"] = store.mark("later")
        found, writers = told(store)
        assert found == marks
        assert len(writers) == 7


def test_a_checkpoint_may_be_given_another_name(tmp_path: Path) -> None:
    images = random_pages([4096, 100])
    written = write_checkpoint(tmp_path, iter(images), FACTS)
    state = read_checkpoint(written.path.rename(tmp_path / "mine.stkc"))
    assert state.digest() == State.of(images, 9).digest()


def test_a_snapshot_gives_the_same_pages_in_columns_and_singly(tmp_path: Path) -> None:
    with Store.open() as store:
        sizes = [64, 4096, 1, 100_000, 70, 4096]
        pages = [store.allocate(size, name=f"page {size}" if size % 3 else "") for size in sizes]
        for number, page in enumerate(pages):
            page.write(np.random.default_rng(number).bytes(sizes[number]))
        pages[2].free()
        with store.snapshot() as snapshot:
            images = list(snapshot.images())
            made = [
                write_checkpoint(folder, given, FACTS).path.read_bytes()
                for folder, given in ((tmp_path / "a", snapshot.columns()), (tmp_path / "b", iter(images)))
                if not folder.mkdir()
            ]
    assert made[0] == made[1]
    assert len(images) == len(sizes) - 1


def test_pages_that_are_scattered_and_left_with_a_parent_are_found_again(tmp_path: Path) -> None:
    images = random_pages([4096] * 600 + [100] * 50)
    whole = write_checkpoint(tmp_path, iter(images), FACTS)
    changed = [image for image in random_pages([4096] * 600 + [100] * 50) if image.page % 7]
    for image in changed[::5]:
        image.data[:10] ^= 1
        image.epoch, image.lsn = image.epoch + 1, 12
    facts = CheckpointFacts(uuid=bytes(16), lsn=12, time_ns=4, parent_lsn=9)
    written = write_checkpoint(tmp_path, iter(changed), facts, parent=open_checkpoint(whole.path).index)
    assert written.left_pages == len(changed) - len(changed[::5])
    assert read_checkpoint(written.path).digest() == State.of(changed, 12).digest()


def test_an_index_that_names_bytes_behind_the_end_asks_for_no_memory(tmp_path: Path) -> None:
    written = write_checkpoint(tmp_path, iter(random_pages([4096] * 3)), FACTS)
    index = open_checkpoint(written.path).index
    for number, wrong in ((OFFSET, 1 << 50), (OFFSET, 1 << 63), (SIZE, 0), (SIZE, 1 << 63), (STORED, 4097)):
        damaged = index.pages.numbers.copy()
        damaged[1, number] = wrong
        forged = msgspec.structs.replace(index, pages=Entries(Rows(damaged, index.pages.places, index.pages.blobs)))
        path = rewritten(written.path, encode_index(forged))
        with pytest.raises((ChecksumError, FormatError), match="page in the"):
            read_checkpoint(path)
    doubled = index.pages.rows(np.array([0, 1, 1, 2]))
    path = rewritten(written.path, encode_index(msgspec.structs.replace(index, pages=doubled)))
    with pytest.raises(InvalidDelta, match="twice"):
        read_checkpoint(path)


def rewritten(path: Path, index: bytes) -> Path:
    """Write a checkpoint of this index, its checksums right, beside another one."""
    whole = path.read_bytes()
    _, at, _, _, root = FOOTER.unpack_from(whole, len(whole) - FOOTER_BYTES)
    footer = FOOTER.pack(FOOTER_MAGIC, at, len(index), xxhash.xxh3_128_digest(index), root)
    footer = footer.ljust(FOOTER_BYTES - 4, b"\0")
    footer += crc32c(footer).to_bytes(4, "little")
    forged = path.with_name("forged.stkc")
    forged.write_bytes(whole[:at] + index.ljust(-(-len(index) // 64) * 64, b"\0") + footer)
    return forged
