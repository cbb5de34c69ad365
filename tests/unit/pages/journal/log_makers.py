"""Commits to write into journals, and what recovery may make of them."""

import random
from pathlib import Path

from stoker.pages.frames import LAST, Frame, FrameType, encode_frame
from stoker.pages.journal import Journal, JournalEnd, recover, scan
from stoker.testing.crash_states import CrashDisk

UUID = bytes(range(16))
SALT = 0x5EED
FOLDER = Path("/log")


def commit(first_lsn: int, sizes: list[int], salt: int = SALT) -> bytes:
    """Return one commit with a frame for each size."""
    frames = [
        Frame(
            first_lsn + index,
            FrameType.DELTA,
            page=1 + index,
            epoch=first_lsn,
            time_ns=1_000 + first_lsn,
            flags=LAST if index == len(sizes) - 1 else 0,
            payload=bytes([(first_lsn + index) % 255 + 1]) * size,
        )
        for index, size in enumerate(sizes)
    ]
    return b"".join(encode_frame(frame, salt) for frame in frames)


def commits(count: int, seed: int = 1, size_max: int = 900) -> list[bytes]:
    """Return commits of one to three frames, LSNs from 1 on."""
    chance, lsn, made = random.Random(seed), 1, []
    for _ in range(count):
        sizes = [chance.randint(0, size_max) for _ in range(chance.randint(1, 3))]
        made.append(commit(lsn, sizes))
        lsn += len(sizes)
    return made


def journal_on(disk: CrashDisk, segment_bytes: int = 8192) -> tuple[Journal, JournalEnd]:
    """Return a new journal and its end."""
    journal = Journal.create(FOLDER, uuid=UUID, salt=SALT, segment_bytes=segment_bytes, disk=disk)
    return journal, journal.start()


def recovered_bytes(disk: CrashDisk) -> bytes:
    """Recover, and return the commits as they were written."""
    recover(FOLDER, disk=disk)
    return b"".join(encode_frame(frame, SALT) for frame in scan(FOLDER, disk=disk))
