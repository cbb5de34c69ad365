"""Frames for the journal are cut into runs of whole commits, whatever chunks they come in."""

from itertools import pairwise

import numpy as np
import pytest

from stoker.pages.errors import PagesError
from stoker.pages.frames import LAST, Frame, FrameType, encode_frame
from stoker.pages.journal import JournalEnd
from stoker.pages.journal.segments import SEGMENT_HEADER_BYTES, _commits, _last_of

SALT = 5
START = JournalEnd(1, SEGMENT_HEADER_BYTES, 0, 0)


def story(count: int) -> tuple[list[bytes], list[int]]:
    """Return frames, and the LSNs that end commits."""
    chance = np.random.default_rng(count)
    ends = sorted({*chance.integers(1, count + 1, count // 2).tolist(), count})
    frames = [
        encode_frame(
            Frame(lsn, FrameType.EVENT, flags=LAST * (lsn in ends), payload=chance.bytes(int(chance.integers(90)))),
            SALT,
        )
        for lsn in range(1, count + 1)
    ]
    return frames, ends


@pytest.mark.parametrize("chunks", [1, 2, 3])
def test_runs_are_whole_commits_and_all_of_them(chunks: int) -> None:
    frames, ends = story(200)
    cuts = [0, *sorted(np.random.default_rng(chunks).integers(1, 200, chunks - 1).tolist()), 200]
    given = [b"".join(frames[start:end]) for start, end in pairwise(cuts)]
    for limit in (300, 1000, 5000, 1 << 20):
        runs = _commits(given, START, SEGMENT_HEADER_BYTES + limit)
        assert b"".join(b"".join(pieces) for pieces, *_ in runs) == b"".join(frames)
        assert all(lsn in ends for _, lsn, _ in runs)
        before = 0
        for pieces, lsn, crc in runs:
            assert crc == int.from_bytes(frames[lsn - 1][4:8], "little")
            commits = sum(before < end <= lsn for end in ends)
            assert sum(map(len, pieces)) <= limit or commits == 1
            before = lsn
        assert all(len(pieces) <= chunks for pieces, *_ in runs)
    assert _last_of([memoryview(part) for part in given], START, SALT) == _commits(given, START, 1 << 20)[0][1:]


def test_what_is_no_whole_run_is_left_to_the_slow_way() -> None:
    frames, _ = story(50)
    log = b"".join(frames)
    assert _last_of([memoryview(log[:-8])], START, SALT) is None
    assert _last_of([memoryview(log)], START, SALT + 1) is None
    assert _last_of([memoryview(log)], JournalEnd(1, 0, 1, 0), SALT) is None
    unfinished = b"".join([*frames, encode_frame(Frame(51, FrameType.EVENT), SALT)])
    assert _last_of([memoryview(unfinished)], START, SALT) is None
    with pytest.raises(PagesError, match="inside a commit"):
        _commits([unfinished], START, 1 << 20)
    with pytest.raises(PagesError, match="do not follow"):
        _commits([log], JournalEnd(1, 0, 1, 0), 1 << 20)
