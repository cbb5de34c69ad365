"""Frames are read and done to pages as the format says, by every kernel, and bad ones change nothing."""

from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.kernels import plain_replaying, replaying
from stoker.kernels.deltas import two_level_diff
from stoker.kernels.replaying import EPOCH, KINDS, LSN, PAGE, PAYLOAD_BYTES, SOURCE, START, TIME_NS
from stoker.pages.frames import HEADER_BYTES, LAST, RUN_RECORD, Codec, Frame, FrameType, encode_frame

SALT = 0xC0FFEE
PAGE_BYTES = 4100


@pytest.fixture(autouse=True)
def _kernel(kernel_of: Callable[[ModuleType], None]) -> None:
    kernel_of(replaying)


def run_payload(offset: int, data: bytes) -> bytes:
    return RUN_RECORD.pack(offset, len(data)) + data + bytes(-len(data) % 8)


def story(count: int, seed: int = 1) -> tuple[list[Frame], list[np.ndarray], list[np.ndarray]]:
    """Return frames over three pages, the pages before and after them."""
    chance = np.random.default_rng(seed)
    before = [chance.integers(0, 256, PAGE_BYTES, np.uint8) for _ in range(3)]
    pages, epochs, frames = [page.copy() for page in before], [7, 0, 1 << 40], []
    for lsn in range(1, count + 1):
        which = int(chance.integers(3))
        fresh = pages[which].copy()
        kind, codec, offset = FrameType.DELTA, Codec.TWO_LEVEL, int(chance.integers(PAGE_BYTES - 40))
        fresh[offset : offset + 33] = chance.integers(0, 256, 33, np.uint8)
        payload = two_level_diff(pages[which].data, fresh.data)[0]
        if lsn % 5 == 0:
            codec, payload = Codec.RUNS, run_payload(offset, fresh[offset : offset + 33].tobytes())
        elif lsn % 7 == 0:
            kind, codec, payload = FrameType.IMAGE, Codec.RAW, fresh.tobytes()
        epochs[which] += 1
        pages[which] = fresh
        frames.append(
            Frame(lsn, kind, which, epochs[which], lsn * 10, codec, 2, LAST * (lsn % 2), lsn % 3, payload=payload)
        )
    return frames, before, pages


def table_of(pages: list[np.ndarray]) -> np.ndarray:
    epochs = [7, 0, 1 << 40]
    return np.array([(p.ctypes.data, p.size, e, 0) for p, e in zip(pages, epochs, strict=True)], np.uint64)


def test_rows_say_what_the_frames_say() -> None:
    frames, _, _ = story(60)
    log = b"head" + b"".join(encode_frame(frame, SALT) for frame in frames) + bytes(200)
    rows, end = replaying.scan_frames(log, 4, salt=SALT, first_lsn=1)
    assert end == len(log) - 200
    assert rows[:, LSN].tolist() == list(range(1, 61))
    for row, frame in zip(rows.tolist(), frames, strict=True):
        kinds = frame.type | frame.codec << 8 | frame.elem_width << 16 | frame.flags << 24
        told = [row[column] for column in (PAGE, EPOCH, TIME_NS, KINDS, SOURCE, PAYLOAD_BYTES)]
        assert told == [frame.page, frame.epoch, frame.time_ns, kinds, frame.source, len(frame.payload)]
        assert log[row[START] + HEADER_BYTES :][: row[PAYLOAD_BYTES]] == bytes(frame.payload)


def test_reading_ends_at_the_first_frame_that_is_not_whole_or_not_next() -> None:
    frames, _, _ = story(6)
    encoded = [encode_frame(frame, SALT) for frame in frames]
    log = b"".join(encoded)
    starts = np.cumsum([0, *map(len, encoded)]).tolist()
    for cut in range(0, len(log), 37):
        rows, end = replaying.scan_frames(log[:cut], 0, salt=SALT, first_lsn=1)
        assert end == max(start for start in starts if start <= cut)
        assert len(rows) == starts.index(end)
    for at in range(0, len(log), 41):
        damaged = bytearray(log)
        damaged[at] ^= 4
        assert replaying.scan_frames(damaged, 0, salt=SALT, first_lsn=1)[1] == max(s for s in starts if s <= at)
    assert not len(replaying.scan_frames(log, 0, salt=SALT, first_lsn=2)[0])
    assert not len(replaying.scan_frames(log, 0, salt=SALT + 1, first_lsn=1)[0])
    gap = encoded[0] + encoded[2] + encoded[5]
    assert len(replaying.scan_frames(gap, 0, salt=SALT, first_lsn=1)[0]) == 1
    assert replaying.scan_frames(gap, 0, salt=SALT, first_lsn=1, covers_lsn=3)[0][:, LSN].tolist() == [1, 3]


def test_more_frames_than_are_read_at_once_are_all_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "_ROWS_AT_ONCE", 7)
    for count in (6, 7, 8, 14, 30):
        log = b"".join(encode_frame(frame, SALT) for frame in story(count)[0])
        assert replaying.scan_frames(log, 0, salt=SALT, first_lsn=1)[0][:, LSN].tolist() == list(range(1, count + 1))


def test_the_last_frame_is_that_of_all_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "_ROWS_LOOKED_AT", 7)
    assert replaying.last_frame(b"", salt=SALT, first_lsn=5) == (4, 0, 0)
    for count in (1, 6, 7, 8, 14, 30):
        log = b"".join(encode_frame(frame, SALT) for frame in story(count)[0])
        for cut in (log, log[:-1], log + bytes(60)):
            rows, end = replaying.scan_frames(cut, 0, salt=SALT, first_lsn=1)
            last = (int(rows[-1, LSN]), int(rows[-1, START])) if len(rows) else (0, 0)
            assert replaying.last_frame(cut, salt=SALT, first_lsn=1) == (*last, end)


def test_frames_lead_from_the_old_pages_to_the_new_ones() -> None:
    frames, pages, after = story(200)
    log = b"".join(encode_frame(frame, SALT) for frame in frames)
    rows, _ = replaying.scan_frames(log, 0, salt=SALT, first_lsn=1)
    table = table_of(pages)
    assert replaying.replay_frames(log, rows, rows[:, PAGE].astype(np.int64), table) == 200
    for page, wanted in zip(pages, after, strict=True):
        assert np.array_equal(page, wanted)
    for which in range(3):
        last = [frame for frame in frames if frame.page == which][-1]
        assert table[which, 2:].tolist() == [last.epoch, last.lsn]


def one(kind: int, codec: int, payload: bytes, epoch: int = 8) -> bytes:
    return encode_frame(Frame(1, kind, 0, epoch, 0, codec, payload=payload), SALT)


BAD = {
    "another type": one(FrameType.FREE, 0, b""),
    "an unknown codec": one(FrameType.DELTA, 9, b""),
    "an epoch too far": one(FrameType.IMAGE, 0, bytes(PAGE_BYTES), 9),
    "an epoch again": one(FrameType.IMAGE, 0, bytes(PAGE_BYTES), 7),
    "a short image": one(FrameType.IMAGE, 0, bytes(PAGE_BYTES - 1)),
    "a delta of another page": one(FrameType.DELTA, Codec.TWO_LEVEL, b"\1" * 31),
    "a run beyond the page": one(FrameType.DELTA, Codec.RUNS, run_payload(PAGE_BYTES - 3, b"abcd")),
    "a run beyond all": one(FrameType.DELTA, Codec.RUNS, RUN_RECORD.pack((1 << 64) - 2, 4) + b"abcdefgh"),
    "a run without its bytes": one(FrameType.DELTA, Codec.RUNS, RUN_RECORD.pack(0, 99) + b"abcdefgh"),
    "a good run, then a bad one": one(
        FrameType.DELTA, Codec.RUNS, run_payload(0, b"abcd") + RUN_RECORD.pack(PAGE_BYTES, 1) + bytes(8)
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_frame_that_does_not_fit_changes_nothing(case: str) -> None:
    rows, _ = replaying.scan_frames(BAD[case], 0, salt=SALT, first_lsn=1)
    assert len(rows) == 1
    pages = [np.full(PAGE_BYTES, 7, np.uint8) for _ in range(3)]
    table = table_of(pages)
    before = table.copy()
    assert replaying.replay_frames(BAD[case], rows, np.zeros(1, np.int64), table) == 0
    assert (pages[0] == 7).all()
    assert np.array_equal(table, before)


def test_columns_that_are_none_are_refused() -> None:
    rows, pages = np.zeros((2, 8), np.uint64), np.zeros((1, 4), np.uint64)
    for bad in (np.zeros(1, np.int64), np.zeros(2, np.int32)):
        with pytest.raises(UsageError, match="no columns"):
            replaying.replay_frames(b"", rows, bad, pages)


def test_the_layout_is_that_of_the_frames() -> None:
    assert plain_replaying.HEADER.size == HEADER_BYTES
    told = (plain_replaying._DELTA, plain_replaying._IMAGE, plain_replaying._TWO_LEVEL, plain_replaying._RUNS)
    assert told == (FrameType.DELTA, FrameType.IMAGE, Codec.TWO_LEVEL, Codec.RUNS)
