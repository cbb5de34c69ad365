"""Every codec brings back every image; what is not a blob, or not for this image, is refused."""

import struct

import numpy as np
import pytest
import zstandard

from stoker.core.errors import UsageError
from stoker.kernels.checking import crc32c
from stoker.pages import wire
from stoker.pages.errors import CorruptPages, FormatError, InvalidDelta
from stoker.pages.wire import HEADER_BYTES, MODES, decode_wire, encode_wire, read_header
from stoker.pages.wire_codecs import WireCodec

WIDTHS = [1, 2, 4, 8]


def bfloat16(values: np.ndarray) -> np.ndarray:
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def weights(count: int, step: float = 2.5e-7) -> tuple[np.ndarray, np.ndarray]:
    """bfloat16 copies of weights before and after a step: about 1 % of them change at the default."""
    chance = np.random.default_rng(4)
    before = chance.normal(0, 0.02, count).astype(np.float32)
    return bfloat16(before), bfloat16(before + (step * chance.normal(size=count)).astype(np.float32))


def changed(size: int, ratio: float) -> tuple[np.ndarray, np.ndarray]:
    chance = np.random.default_rng(size)
    old = chance.integers(0, 256, size, np.uint8)
    new = old.copy()
    hit = chance.random(size) < ratio
    new[hit] ^= chance.integers(1, 256, int(hit.sum()), np.uint8)
    return old, new


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("size", [0, 1, 8, 63, 64, 1000, 4096, 5003])
@pytest.mark.parametrize("ratio", [0.0, 0.001, 0.3, 1.0])
def test_every_codec_brings_back_every_image(mode: str, width: int, size: int, ratio: float) -> None:
    old, new = changed(size, ratio)
    blob = encode_wire(old, new, width, mode=mode)
    assert len(blob) <= HEADER_BYTES + size
    assert np.array_equal(decode_wire(old, blob), new)
    out = np.full(size, 7, np.uint8)
    assert decode_wire(old, blob, out) is not None
    assert np.array_equal(out, new)
    decode_wire(old, blob, old)
    assert np.array_equal(old, new)


@pytest.mark.parametrize(
    ("step", "codec", "gain_min"),
    [(0.0, "SAME", 5000), (2.5e-7, "GAP_ULP", 100), (3e-6, "GAP_ULP", 20), (2e-5, "MASK_ULP", 8), (1e-3, "PLANES", 2)],
)
def test_the_codec_follows_from_how_much_changed(step: float, codec: str, gain_min: float) -> None:
    old, new = weights(400_000, step)
    blob = encode_wire(old, new, 2)
    assert read_header(blob).codec.name.startswith(codec)
    assert old.nbytes / len(blob) >= gain_min
    assert np.array_equal(decode_wire(old, blob).view(np.uint16), new)


def test_sparse_weights_are_a_third_of_an_index_and_a_value() -> None:
    old, new = weights(1_000_000)
    density = float((old != new).mean())
    assert 0.005 < density < 0.02
    index_and_value_bytes = 6 * int((old != new).sum())
    assert 3 * len(encode_wire(old, new, 2)) < index_and_value_bytes


def test_what_cannot_be_made_shorter_goes_as_it_is() -> None:
    chance = np.random.default_rng(1)
    old, new = chance.integers(0, 256, (2, 300_000), np.uint8)
    blob = encode_wire(old, new, 4)
    assert read_header(blob).codec == WireCodec.RAW
    assert len(blob) == HEADER_BYTES + 300_000


def test_a_new_image_that_packs_by_itself_is_packed() -> None:
    old = np.random.default_rng(1).integers(0, 256, 300_000, np.uint8)
    blob = encode_wire(old, bytes(300_000), 1)
    assert read_header(blob).codec == WireCodec.RAW_ZSTD
    assert not decode_wire(old, blob).any()


def test_the_header_tells_what_is_inside() -> None:
    old, new = weights(100_000)
    header = read_header(encode_wire(old, new, 2))
    assert header.elem_width == 2
    assert header.raw_bytes == 200_000
    assert header.changed == int((old != new).sum())
    assert header.density_ratio == pytest.approx(float((old != new).mean()))


@pytest.mark.parametrize("mode", MODES)
def test_another_base_is_refused(mode: str) -> None:
    old, new = changed(3000, 0.02)
    blob = encode_wire(old, new, 2, mode=mode)
    other = old.copy()
    other[1234] ^= 1
    before = other.copy()
    with pytest.raises(InvalidDelta, match="another image"):
        decode_wire(other, blob)
    with pytest.raises(InvalidDelta, match="another image"):
        decode_wire(other, blob, other)
    assert np.array_equal(other, before)
    with pytest.raises(InvalidDelta, match="another size"):
        decode_wire(old[:-2], blob)


@pytest.mark.parametrize("mode", MODES)
def test_a_blob_cut_or_changed_anywhere_is_refused(mode: str) -> None:
    old, new = changed(400, 0.05)
    blob = encode_wire(old, new, 4, mode=mode)
    target = old.copy()
    for end in range(len(blob)):
        with pytest.raises(CorruptPages):
            decode_wire(target, blob[:end], target)
    for at in range(len(blob)):
        for bit in (1, 128):
            broken = bytearray(blob)
            broken[at] ^= bit
            with pytest.raises(CorruptPages):
                decode_wire(target, broken, target)
    with pytest.raises(FormatError, match="not whole"):
        decode_wire(target, blob + b"\0", target)
    assert np.array_equal(target, old)


def forged(blob: bytes, places: bytes | None = None, codes: bytes | None = None, **fields: int) -> bytes:
    """Return the blob with other sections and header fields, its checksum made to fit."""
    header = read_header(blob)
    at = HEADER_BYTES + header.places_bytes
    places = blob[HEADER_BYTES:at] if places is None else places
    codes = blob[at:] if codes is None else codes
    told = {name: getattr(header, name) for name in header.__struct_fields__} | fields
    told |= {"places_bytes": len(places), "codes_bytes": len(codes)}
    head = wire._HEADER.pack(wire.MAGIC, 1, told["codec"], told["elem_width"], 0, *list(told.values())[2:], 0, 0)[:60]
    body = places + codes
    return head + crc32c(body, crc32c(head)).to_bytes(4, "little") + body


@pytest.mark.parametrize("mode", MODES[1:])
def test_a_forged_blob_is_refused(mode: str) -> None:
    old, new = changed(4000, 0.05)
    blob = encode_wire(old, new, 4, mode=mode)
    if read_header(blob).codec == WireCodec.RAW and mode != "raw":
        pytest.skip(f"{mode} is longer than the image here")
    bomb = zstandard.compress(bytes(50_000_000))
    lying = bytearray(bomb)
    lying[4:8] = struct.pack("<I", 1 << 31)
    forgeries = [
        forged(blob, codes=bomb),
        forged(blob, codes=bytes(lying)),
        forged(blob, codes=b""),
        forged(blob, codes=b"\x28\xb5\x2f\xfd\x00"),
        forged(blob, codes=zstandard.ZstdCompressor(write_content_size=False).compress(bytes(4000))),
        forged(blob, changed=read_header(blob).changed + 1)
        if mode.startswith(("gap", "mask"))
        else forged(blob, codec=99),
        forged(blob, elem_width=3),
        forged(blob, new_xxh3=1),
    ]
    if mode.startswith(("gap", "mask")):
        forgeries += [
            forged(blob, places=bomb),
            forged(blob, places=zstandard.compress(b"\xfe" * read_header(blob).changed)),
            forged(blob, places=zstandard.compress(b"\xff" * 128)),
        ]
    for forgery in forgeries:
        with pytest.raises(CorruptPages):
            decode_wire(old, forgery)


def test_a_blob_for_a_huge_image_takes_no_memory() -> None:
    old, new = changed(4000, 0.05)
    with pytest.raises(InvalidDelta, match="another size"):
        decode_wire(old, forged(encode_wire(old, new, 4), raw_bytes=1 << 60))


def test_wrong_use_is_told() -> None:
    old, new = changed(100, 0.1)
    for arguments in ({"elem_width": 3}, {"elem_width": 1, "mode": "best"}, {"elem_width": 1, "level": 0}):
        with pytest.raises(UsageError, match="no such way"):
            encode_wire(old, new, **arguments)
    with pytest.raises(InvalidDelta, match="another size"):
        encode_wire(old, new[1:], 1)
    blob = encode_wire(old, new, 1)
    room = np.concatenate((old, np.zeros(1, np.uint8)))
    with pytest.raises(UsageError, match="overlaps"):
        decode_wire(room[:100], blob, room[1:])
    with pytest.raises(InvalidDelta, match="cannot be written"):
        decode_wire(old, blob, bytes(100))
