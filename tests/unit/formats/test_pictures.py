"""JPEG and PNG: Pillow reads ours, we read Pillow's, and no header is believed."""

import io
import struct
import zlib

import numpy as np
import pytest
from format_files import content, decode_one, encode
from PIL import Image

from stoker.core.errors import CorruptError, UsageError
from stoker.formats.api import SampleSpec, whole_file_layout
from stoker.formats.image import JPEG, PIXELS_MAX, PNG, check_chunks


def _pillow(array, name, **options):
    out = io.BytesIO()
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    picture.save(out, format=name, **options)
    return out.getvalue()


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(width, height, pixels, *, colour=0):
    header = struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


@pytest.mark.parametrize("made", [JPEG, PNG])
def test_pillow_reads_one_grey_picture_of_8_bits(made):
    spec, data = encode(made, (20, 31))
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.format, picture.mode, picture.size) == (made.name.upper(), "L", (31, 20))
        assert made is JPEG or np.array_equal(np.asarray(picture), content(spec, 0))


def test_png_keeps_every_pixel_and_jpeg_nearly():
    smooth = np.add.outer(np.arange(40), np.arange(50)).astype(np.uint8)
    for made, most in ((PNG, 0), (JPEG, 3)):
        data = b"".join(made.encode(SampleSpec((40, 50)), lambda _: smooth))
        block = decode_one(made, data)
        assert block.columns["x"].shape == (1, 40, 50)
        assert np.abs(block.sample(0).astype(int) - smooth).max() <= most
        assert block.copied_bytes == 2000


@pytest.mark.parametrize("made", [JPEG, PNG])
def test_colour_pictures_are_read_with_three_values_a_pixel(made):
    colours = np.random.default_rng(1).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    data = _pillow(colours, made.name)
    array = decode_one(made, data).sample(0)
    assert array.shape == (9, 11, 3)
    assert np.array_equal(array, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize(
    ("mode", "made", "shape"),
    [
        ("P", PNG, (4, 6, 3)),
        ("RGBA", PNG, (4, 6, 3)),
        ("LA", PNG, (4, 6, 3)),
        ("1", PNG, (4, 6)),
        ("CMYK", JPEG, (4, 6, 3)),
    ],
)
def test_other_kinds_of_picture_are_turned_into_grey_or_colour(mode, made, shape):
    picture = Image.new("RGB", (6, 4), (200, 100, 50)).convert(mode)
    array = decode_one(made, _pillow(picture, made.name)).sample(0)
    assert array.shape == shape
    assert array.dtype == np.uint8


def test_progressive_jpeg_and_interlaced_palettes_are_read():
    grey = np.random.default_rng(1).integers(0, 256, (40, 40), dtype=np.uint8)
    assert decode_one(JPEG, _pillow(grey, "jpeg", progressive=True)).sample(0).shape == (40, 40)


@pytest.mark.parametrize("made", [JPEG, PNG])
@pytest.mark.parametrize("dimensions", [3, 4])
def test_more_than_two_dimensions_are_refused_in_the_known_words(made, dimensions):
    with pytest.raises(UsageError) as caught:
        made.check_spec(SampleSpec((2,) * dimensions))
    assert str(caught.value) == (
        f"{made.name} format does not support more than 2 dimensions, but got {dimensions} dimensions."
    )


@pytest.mark.parametrize("made", [JPEG, PNG])
def test_spec_is_brought_to_two_sides_of_bytes(made):
    spec = made.check_spec(SampleSpec((7,), "float32", options={"shape": [7], "dtype": "float32"}))
    assert (spec.shape, spec.dtype, dict(spec.options)) == ((7, 1), "uint8", {})


def test_too_large_pictures_are_refused():
    for made, shape in ((PNG, (1 << 14, 1 << 14)), (JPEG, (70_000, 1))):
        with pytest.raises(UsageError, match="too large"):
            made.check_spec(SampleSpec(shape))


def test_more_than_one_sample_is_refused():
    for made in (JPEG, PNG):
        with pytest.raises(UsageError, match="one sample"):
            made.check_spec(SampleSpec((2, 2), samples=2))
        _, data = encode(made, (4, 4))
        layout = whole_file_layout(len(data), 2)
        with pytest.raises(CorruptError, match="samples"):
            made.decode(memoryview(data), layout.extents[0], layout)


def test_bombs_are_refused_before_they_are_unpacked():
    zeros = zlib.compress(bytes(5000 * 1001), 9)
    assert len(zeros) < 6000
    assert decode_one(PNG, _png(1000, 5000, zeros)).samples == 1
    for width, height in ((20_000, 20_000), (5000, 4000), (1, PIXELS_MAX + 1)):
        with pytest.raises(CorruptError, match="absurd"):
            decode_one(PNG, _png(width, height, zeros[:100]))


def test_jpeg_header_that_claims_a_huge_picture_is_refused():
    _, data = encode(JPEG, (20, 31))
    at = data.index(b"\xff\xc0") + 5
    assert data[at : at + 4] == struct.pack(">HH", 20, 31)
    with pytest.raises(CorruptError, match="absurd"):
        decode_one(JPEG, data[:at] + struct.pack(">HH", 65_000, 65_000) + data[at + 4 :])


def test_png_chunks_are_all_held_against_their_checksums():
    _, data = encode(PNG, (20, 31))
    check_chunks(memoryview(data))
    for at in (17, 45, len(data) - 2):
        with pytest.raises(CorruptError, match="checksum"):
            decode_one(PNG, data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])


def test_compressed_text_in_a_png_does_not_grow_without_bound():
    text = b"key\0\0" + zlib.compress(bytes(100 << 20), 9)
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"zTXt", text)
        + _chunk(b"IDAT", zlib.compress(b"\0\0")) + _chunk(b"IEND", b"")
    )  # fmt: skip
    with pytest.raises(CorruptError):
        decode_one(PNG, data)


@pytest.mark.parametrize("made", [JPEG, PNG])
def test_each_refuses_the_other(made):
    other = PNG if made is JPEG else JPEG
    with pytest.raises(CorruptError):
        decode_one(made, encode(other, (4, 4))[1])


@pytest.mark.parametrize("made", [JPEG, PNG])
def test_bytes_after_the_picture_are_ignored(made):
    _, data = encode(made, (12, 12))
    wanted = decode_one(made, data).sample(0)
    assert np.array_equal(decode_one(made, data + bytes(100)).sample(0), wanted)
