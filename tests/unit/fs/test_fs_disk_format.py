"""Format 1 of a disk: its bytes are frozen here, and nothing hostile gets past the reader."""

import random
import struct
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from crash_files import FOLDER, IDENTITY, VOLUME, CrashFiles, CrashingDisk

from stoker.core.errors import CorruptError, StokerError, UsageError
from stoker.fs.disk import ShardHeader, ShardId, cell_crcs, check_header
from stoker.fs.disk import format as layout
from stoker.fs.disk.checksums import check_parts
from stoker.fs.disk.scanning import Found, Removed, SegmentScan
from stoker.fs.disk.segments import segment_path
from stoker.fs.disk.writing import checkpoint, put, remove
from stoker.kernels import checking

SHARD = ShardId(0x0102030405060708, 9, 3)
HEADER = ShardHeader(VOLUME, SHARD, 7, 8, 4, 4096, 60_000, 8000, bytes.fromhex("deadbeef01020304"))
SALT = bytes(range(16))
GOLDEN_HEADER = bytes.fromhex(
    "53544b5348415244000100000000005411111111222233334444555555555555010203040506070800000000000000090308040000070000"
    "000010000000ea6000001f4000000002deadbeef0102030458342d48"
)
GOLDEN_SEGMENT = bytes.fromhex(
    "53544b5345474d54000100000000000511111111222233334444555555555555aaaaaaaabbbbccccddddeeeeeeeeeeee"
    "000102030405060708090a0b0c0d0e0fbe9b6ac2"
)
GOLDEN_PREFIX = bytes.fromhex(
    "53524543000000010000000500001000000020000000007c00001f40000010000000000200000000c77740da"
)
GOLDEN_FILE = bytes.fromhex("5346494c0000cafe000010000205d1ed")
GOLDEN_GONE = bytes.fromhex(
    "010203040506070800000000000000090300000002000002000102030405060708000000000000000903000000000000cafe40b4d703"
)
PREFIX = layout.Prefix(layout.KIND_SHARD, 5, 4096, 8192, 124, 8000, 4096, 2)
SEGMENT = layout.SegmentHeader(5, VOLUME, IDENTITY.disk, SALT)
REMOVALS = [layout.Gone(SHARD, 2, 512), layout.Gone(SHARD, 0, 0xCAFE)]


def test_golden_bytes_are_written() -> None:
    assert layout.pack_header(HEADER) == GOLDEN_HEADER
    assert layout.pack_segment(SEGMENT) == GOLDEN_SEGMENT.ljust(4096, b"\0")
    assert layout.pack_prefix(PREFIX, checking.crc32c(SALT)) == GOLDEN_PREFIX
    assert layout.pack_file_prefix(0xCAFE, GOLDEN_HEADER) == (GOLDEN_FILE + GOLDEN_HEADER).ljust(4096, b"\0")
    assert layout.pack_gone(REMOVALS) == GOLDEN_GONE
    assert cell_crcs([b"1234", b"56789", bytes(4096)], 4096)[:4] == checking.crc32c(
        b"123456789" + bytes(4087)
    ).to_bytes(4, "big")
    assert cell_crcs([b"123456789"], 4096).hex() == "e3069283"  # the check value of RFC 3720's CRC


def test_golden_bytes_are_read() -> None:
    assert layout.unpack_header(GOLDEN_HEADER + b"data") == HEADER
    assert layout.unpack_segment(GOLDEN_SEGMENT.ljust(4096, b"\0")) == SEGMENT
    assert layout.unpack_prefix(GOLDEN_PREFIX, checking.crc32c(SALT), segment=5, offset=4096) == PREFIX
    assert layout.unpack_file_prefix(GOLDEN_FILE) == (0xCAFE, 4096)
    assert layout.unpack_gone(GOLDEN_GONE) == REMOVALS


def small_shard(number: int, data: bytes) -> tuple[ShardHeader, list[bytes]]:
    header = ShardHeader(VOLUME, ShardId(number, 1, 0), 0, 1, 0, 4096, len(data), len(data), cell_crcs([data], 4096))
    return header, [data]


def test_a_segment_lies_on_the_disk_as_told(tmp_path: Path) -> None:
    disk = CrashingDisk(tmp_path)
    put(disk.state, *small_shard(1, b"first"), durable=True)
    put(disk.state, *small_shard(2, b"x" * 600), durable=True)
    remove(disk.state, [ShardId(1, 1, 0)])
    checkpoint(disk.state, clean=True)
    disk.state.close()
    path = segment_path(FOLDER / "segments", 1)
    data = bytes(disk.files.content(path))
    salt_crc = checking.crc32c(IDENTITY.salt(1))
    assert str(path) == "/disk/segments/00000001.seg"
    assert layout.unpack_segment(data) == layout.SegmentHeader(1, VOLUME, IDENTITY.disk, IDENTITY.salt(1))
    places = [(1, 4096, 512, 124, 5), (1, 4608, 1024, 124, 600), (2, 5632, 512, 44, 29), (3, 6144, 512, 44, 0)]
    for kind, offset, record_bytes, data_start, data_bytes in places:
        found = layout.unpack_prefix(data[offset:], salt_crc, segment=1, offset=offset)
        assert found == layout.Prefix(kind, 1, offset, record_bytes, data_start, data_bytes, offset, 0)
    assert data[4096 + 124 : 4608] == b"first".ljust(512 - 124, b"\0")
    assert layout.unpack_gone(data[5632 + 44 : 5632 + 44 + 29]) == [layout.Gone(ShardId(1, 1, 0), 1, 4096)]
    assert len(data) == 6656


def test_a_large_shard_lies_in_a_file_as_told(tmp_path: Path) -> None:
    disk = CrashingDisk(tmp_path)
    content = random.Random(1).randbytes(9000)
    header, parts = small_shard(0xABC, content)
    put(disk.state, header, parts, durable=False)
    named = [path.name for path in disk.files.paths() if "shards" in path.parts]
    assert named == ["0000000000000abc-0000000000000001-00.new"]
    checkpoint(disk.state)
    (path,) = [path for path in disk.files.paths() if "shards" in path.parts]
    assert path.name == "0000000000000abc-0000000000000001-00.shard"
    assert path.parent == FOLDER / "shards" / f"{checking.crc32c(b'2748.1.0') % 256:02x}"
    data = bytes(disk.files.content(path))
    _, start = layout.unpack_file_prefix(data)
    assert (layout.unpack_header(data[16:start]), start, data[start:]) == (header, 4096, content)
    disk.state.close()


@pytest.mark.parametrize(
    ("golden", "read"),
    [
        (GOLDEN_HEADER, layout.unpack_header),
        (GOLDEN_SEGMENT, lambda data: layout.unpack_segment(data.ljust(4096, b"\0"))),
        (GOLDEN_PREFIX, lambda data: layout.unpack_prefix(data, checking.crc32c(SALT), segment=5, offset=4096)),
        (GOLDEN_FILE, layout.unpack_file_prefix),
        (GOLDEN_GONE, layout.unpack_gone),
    ],
    ids=["header", "segment", "prefix", "file", "gone"],
)
def test_each_flipped_bit_and_each_cut_is_noticed(golden: bytes, read: Callable[[bytes], object]) -> None:
    wanted = read(golden)
    assert wanted is not None
    spoilt = [golden[:length] for length in range(len(golden))]
    for bit in range(8 * len(golden)):
        flipped = bytearray(golden)
        flipped[bit // 8] ^= 1 << bit % 8
        spoilt.append(bytes(flipped))
    for data in spoilt:
        try:
            assert read(data) is None, data.hex()
        except (CorruptError, UsageError):
            continue


def sealed(body: bytes) -> bytes:
    """Return bytes with the checksum that fits them: what somebody hostile would write."""
    return body + struct.pack(">I", checking.crc32c(body))


@pytest.mark.parametrize(
    ("place", "number"),
    [(8, b"\0\2"), (10, b"\0\1"), (12, b"\xff\xff\xff\xff"), (60, b"\xff\xff\xff\xff"),
     (56, b"\0\0\0\0"), (64, b"\xff\xff\xff\xff"), (68, b"\xff\xff\xff\xff"), (68, b"\0\0\0\1"), (49, b"\0\0"),
     (48, b"\xff")],
)  # fmt: skip
def test_impossible_numbers_with_a_good_checksum_are_refused(place: int, number: bytes) -> None:
    body = bytearray(GOLDEN_HEADER[:-4])
    body[place : place + len(number)] = number
    with pytest.raises(CorruptError):
        layout.unpack_header(sealed(bytes(body)))


@pytest.mark.parametrize(
    "changes",
    [{"volume": "x"}, {"volume": VOLUME.upper() + "A"}, {"shard": ShardId(-1, 0, 0)}, {"shard": ShardId(1, 2**64, 0)},
     {"shard": ShardId(1, 1, 255)}, {"k": 0}, {"m": -1}, {"k": 200, "m": 100}, {"cell_bytes": 0}, {"cell_bytes": 4097},
     {"cell_bytes": 1 << 40}, {"shard_bytes": -1}, {"shard_bytes": 1 << 27}, {"slice_bytes": 1 << 27},
     {"crcs": b"\0" * 7}, {"storage_class": 1 << 16}],
)  # fmt: skip
def test_headers_that_no_shard_has_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        check_header(msgspec.structs.replace(HEADER, **changes))


def test_data_that_looks_like_records_is_not_taken_for_them(tmp_path: Path) -> None:
    """A shard may hold a whole segment: after damage the scan looks for records, and finds only those of the log."""
    victim = CrashingDisk(tmp_path)
    put(victim.state, *small_shard(1, b"inner"), durable=True)
    inner = bytes(victim.files.content(segment_path(FOLDER / "segments", 1)))
    victim.state.close()
    disk = CrashingDisk(tmp_path)
    # Where the inner records lie in the outer segment they are on their own offset too.
    outer = inner[4608 - 4096 :][:4000]
    put(disk.state, *small_shard(2, bytes(512 - 124) + outer), durable=True)
    put(disk.state, *small_shard(3, b"behind"), durable=True)
    checkpoint(disk.state, clean=True)
    disk.state.close()
    disk.files.content(segment_path(FOLDER / "segments", 1))[4096] ^= 1
    scan = SegmentScan(disk.files, FOLDER / "segments", IDENTITY, 1)
    found = [seen.header.shard.slice_id for seen in scan.walk() if isinstance(seen, Found)]
    assert found == [3]


@pytest.mark.parametrize("seed", range(30))
def test_a_scan_of_garbage_ends_and_invents_nothing(seed: int) -> None:
    chance = random.Random(seed)
    files = CrashFiles(record=False)
    data = bytearray(chance.randbytes(chance.randrange(40_000)))
    if seed % 3:
        data[:4096] = layout.pack_segment(layout.SegmentHeader(1, VOLUME, IDENTITY.disk, SALT))
    for offset in range(4096, len(data) - 512, 512):
        if chance.random() < 0.3:  # records whose checksum fits and whose numbers are whatever
            numbers = [chance.choice([0, 1, 2, 3, 512, offset, 2**32 - 1, chance.randrange(2**32)]) for _ in range(9)]
            numbers[1:3] = [1, offset]
            body = struct.pack(">4s9I", layout.RECORD_MAGIC, *numbers)
            data[offset : offset + 44] = body + struct.pack(">I", checking.crc32c(body, checking.crc32c(SALT)))
    path = segment_path(FOLDER / "segments", 1)
    handle = files.open(path, create=True)
    files.write(handle, 0, [bytes(data)])
    files.close(handle)
    for seen in SegmentScan(files, FOLDER / "segments", IDENTITY, 1).walk():
        assert not isinstance(seen, Found | Removed)
        assert seen.place.offset + seen.place.size_bytes <= len(data) + 512
    assert files.open_handles() == 0


def test_parts_that_do_not_fit_are_refused() -> None:
    data = bytes(range(250)) * 40
    header, _ = small_shard(1, data)
    check_parts(header, [data[:10], bytearray(data[10:5000]), memoryview(data)[5000:]])
    for parts in ([data[:-1]], [data, b"x"], [data[:5000] + b"!" + data[5001:]], []):
        with pytest.raises(StokerError):
            check_parts(header, parts)
    with pytest.raises(CorruptError, match="cell 1"):
        check_parts(header, [data[:5000] + b"!" + data[5001:]])
