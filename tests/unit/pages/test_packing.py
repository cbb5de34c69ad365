"""Pages packed for checkpoints: compressed where a sample says so, unchanged when read again, whatever their sizes."""

import os
from pathlib import Path

import numpy as np
import pytest

from stoker.pages import Store
from stoker.pages.disk import OsDisk
from stoker.pages.errors import ChecksumError
from stoker.pages.history import CheckpointFacts, State, read_checkpoint, write_checkpoint
from stoker.pages.history.checkpoint_read import open_checkpoint
from stoker.pages.history.packing import ALIGN, GROUP_BYTES, RAW, ZSTD, pack_group
from stoker.pages.images import PageImage

FACTS = CheckpointFacts(uuid=bytes(16), lsn=9, time_ns=3)


def random_pages(sizes: list[int]) -> list[PageImage]:
    chance = np.random.default_rng(5)
    return [
        PageImage(number, number, 9, chance.integers(0, 256, size, np.uint8), meta=b"\x81\xa1a" + bytes([number % 100]))
        for number, size in enumerate(sizes, 1)
    ]


def test_a_sample_decides_for_the_group() -> None:
    noise = random_pages([4096] * 50)
    assert {kind for kind, *_ in pack_group(noise, "auto").stored} == {RAW}
    zeros = [PageImage(1, 1, 1, np.zeros(4096, np.uint8)) for _ in range(50)]
    assert {kind for kind, *_ in pack_group(zeros, "auto").stored} == {ZSTD}
    assert {kind for kind, *_ in pack_group(zeros, "raw").stored} == {RAW}
    # What does not shrink is stored as it is, even when compression is asked for.
    assert {kind for kind, *_ in pack_group(noise, "zstd").stored} == {RAW}


def test_pieces_lie_where_it_is_said() -> None:
    packed = pack_group(random_pages([1, 63, 64, 65, 4096, 100_000]), "raw")
    data = b"".join(packed.pieces)
    for image, (_, offset, size, _) in zip(packed.images, packed.stored, strict=True):
        assert offset % ALIGN == 0
        assert data[offset : offset + size] == image.data.tobytes()


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
