"""Batch readers of the stores: the same bytes and the same errors as `open_read`, in one call."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from stoker.core.errors import NotFoundError, ShortReadError, StoreError
from stoker.kernels.files import DONE_CACHED_BYTES, DONE_STATUS, FILE_SIZE_BYTES, FILE_STATUS
from stoker.storage.api import Store
from stoker.storage.batch import BatchRead, BatchReader, SupportsBatchRead, batch_lane
from stoker.storage.buffers import PAGE_BYTES, aligned_array
from stoker.storage.opening import open_store

SIZES = {"a": 10_000, "folder/b": 1, "c": 300_000, "empty": 0}


def content(key: str) -> bytes:
    return np.random.default_rng(len(key)).bytes(SIZES[key])


@pytest.fixture(params=["file", "direct", "mem"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    url = {"file": f"file://{tmp_path}", "direct": f"direct://{tmp_path}", "mem": f"mem://{tmp_path.name}"}[
        request.param
    ]
    try:
        opened = open_store(url)
    except StoreError as error:
        pytest.skip(f"no O_DIRECT here: {error}")
    for key in SIZES:
        opened.put(key, content(key))
    yield opened
    for key in SIZES:
        opened.delete(key)
    opened.close()


@pytest.fixture
def reader(store: Store) -> Iterator[BatchReader]:
    assert isinstance(store, SupportsBatchRead)
    made = store.batch_reader()
    assert made is not None
    yield made
    made.close()
    made.close()


class Asked:
    """Ranges of keys, with room for each in one buffer."""

    def __init__(self, reader: BatchReader, wanted: list[tuple[str, int, int]]) -> None:
        self.keys = list(dict.fromkeys(key for key, _, _ in wanted))
        self.wanted = wanted
        block = reader.block_bytes
        rows, at = [], 0
        self.starts = []
        for key, offset, length in wanted:
            skew = offset % block
            room = -(-(skew + length) // block) * block
            rows.append((self.keys.index(key), offset - skew, skew + length, room, at))
            self.starts.append(at + skew)
            at += -(-room // PAGE_BYTES) * PAGE_BYTES
        self.buffer = aligned_array(max(at, PAGE_BYTES))
        ranges = np.array(rows, dtype=np.int64).reshape(-1, 5)
        ranges[:, 4] += self.buffer.ctypes.data
        self.batch = BatchRead(self.keys, ranges)

    def got(self, index: int) -> bytes:
        start = self.starts[index]
        return self.buffer[start : start + self.wanted[index][2]].tobytes()


def test_every_range_gets_its_bytes(reader: BatchReader) -> None:
    wanted = [
        ("a", 0, 10_000),
        ("folder/b", 0, 1),
        ("c", 4096, 100_000),
        ("c", 7, 13),
        ("c", 299_999, 1),
        ("empty", 0, 0),
    ]
    asked = Asked(reader, wanted)
    reader.read(asked.batch)
    assert not asked.batch.ranges_done[:, DONE_STATUS].any()
    assert not asked.batch.objects_done[:, FILE_STATUS].any()
    assert asked.batch.objects_done[:, FILE_SIZE_BYTES].tolist() == [SIZES[key] for key in asked.keys]
    for index, (key, offset, length) in enumerate(wanted):
        assert asked.got(index) == content(key)[offset : offset + length]


def test_a_bad_object_spoils_only_its_own_ranges(store: Store, reader: BatchReader) -> None:
    asked = Asked(reader, [("a", 0, 10), ("missing", 0, 10), ("c", 299_990, 11), ("folder/b", 0, 1)])
    reader.read(asked.batch)
    assert (asked.batch.ranges_done[:, DONE_STATUS] != 0).tolist() == [False, True, True, False]
    assert asked.got(0) == content("a")[:10]
    missing, short = reader.error(asked.batch, 1), reader.error(asked.batch, 2)
    assert isinstance(missing, NotFoundError)
    assert "missing" in missing.where
    assert isinstance(short, ShortReadError)
    with pytest.raises(NotFoundError) as single:
        store.open_read("missing")
    assert str(single.value) == str(missing)


def test_the_reader_says_what_it_works_with_and_can_be_tuned(reader: BatchReader) -> None:
    assert "engine" in reader.chosen
    reader.tune(queue_depth=3, request_bytes=8192)
    assert reader.chosen.get("queue_depth", 3) == 3
    asked = Asked(reader, [("c", 0, 300_000)])
    reader.read(asked.batch)
    assert asked.got(0) == content("c")


def test_residency_is_told_for_buffered_files_and_never_claimed_for_direct_ones(tmp_path: Path) -> None:
    for url, least in ((f"file://{tmp_path}", 1), (f"direct://{tmp_path}", 0)):
        store = open_store(url)
        store.put("key", bytes(8192))
        made = store.batch_reader()
        asked = Asked(made, [("key", 0, 8192)])
        made.read(asked.batch)
        cached = int(asked.batch.ranges_done[0, DONE_CACHED_BYTES])
        assert (cached == 8192) if least else cached <= 0
        made.close()
        store.close()


def test_links_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"1234")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    with closing(open_store(f"file://{tmp_path}")) as store, closing(store.batch_reader()) as made:
        asked = Asked(made, [("link", 0, 4), ("folder", 0, 4), ("pipe", 0, 4), ("../x", 0, 1)])
        made.read(asked.batch)
        kinds = [type(made.error(asked.batch, index)).__name__ for index in range(4)]
    assert kinds == ["DeniedError", "NotFoundError", "NotFoundError", "DeniedError"]


def test_a_template_answers_every_key(tmp_path: Path) -> None:
    template = tmp_path / "file"
    template.write_bytes(b"template")
    made = open_store(f"null://?template={template}").batch_reader()
    asked = Asked(made, [("x", 0, 8), ("y", 4, 4)])
    made.read(asked.batch)
    assert [asked.got(0), asked.got(1)] == [b"template", b"late"]


def test_a_layer_that_must_see_each_read_keeps_the_fast_lane_shut(tmp_path: Path) -> None:
    assert batch_lane(open_store(f"file://{tmp_path}")).reads
    assert not batch_lane(open_store(f"file://{tmp_path}?read_delay=0.001")).reads


def test_who_reads_one_request_at_a_time_says_so(tmp_path: Path) -> None:
    for url in (
        f"file://{tmp_path}?io=plain",
        "mem://lane",
        "null://?object_bytes=1",
        f"file://{tmp_path}?prefix=a&io=plain",
    ):
        lane = batch_lane(open_store(url))
        assert (lane.reads, lane.queues) == (True, False)
