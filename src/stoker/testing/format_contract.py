"""What every format must hold to. Subclass it in a test file, name the format, and pytest does the rest:

    class TestMyFormat(FormatContract):
        name = "my_format"

The suite looks at a format from outside: what it writes it must read again, and whatever bytes it is given it must
answer with the right samples or a CorruptError, never with another exception, a crash, or something in between.
"""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest

from stoker.core.errors import CorruptError, UsageError
from stoker.core.seed import derive
from stoker.formats.api import (
    FORMATS,
    Array,
    Block,
    CorruptExtentError,
    DecodesMany,
    Extent,
    Format,
    SampleSpec,
    reading_options,
    whole_file_layout,
)
from stoker.formats.many import Extents, decode_each, extents_in
from stoker.formats.ranges import MemorySource

_CUTS_MAX = 160
_TAIL_CUTS = 32


class Written(msgspec.Struct, frozen=True):
    """A file as encoded, with what it was made from."""

    spec: SampleSpec
    data: bytes
    side_files: Mapping[str, bytes]

    @property
    def options(self) -> dict[str, Any]:
        """Return what a reader is told."""
        return reading_options(self.spec)


class FormatContract:
    """The suite. Class attributes say what to try; `make` may build the format in another way."""

    name: ClassVar[str] = ""
    shapes: ClassVar[tuple[tuple[int, ...], ...]] = ((5, 7), (3,), (2, 3, 4))
    dtypes: ClassVar[tuple[str, ...]] = ("uint8", "int16", "int64", "float32", "float64", "bool")
    sample_counts: ClassVar[tuple[int, ...]] = (1, 3)
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    stores_content: ClassVar[bool] = True
    flips: ClassVar[int] = 150
    seed: ClassVar[int] = 1

    def make(self) -> Format:
        """Return the format under test."""
        return FORMATS.load(self.name)

    def content(self, spec: SampleSpec, index: int) -> Array:
        """Return the content of sample `index`: any bit pattern for integers, plain numbers for floats."""
        chance = np.random.default_rng(derive(self.seed, index))
        dtype = np.dtype(spec.dtype)
        if dtype.kind == "b":
            return chance.integers(0, 2, spec.shape).astype(np.bool_)
        if dtype.kind in "iu":
            limits = np.iinfo(dtype)
            return np.asarray(chance.integers(limits.min, limits.max, spec.shape, dtype, endpoint=True))
        return np.asarray(chance.random(spec.shape) - 0.5).astype(dtype)

    def expected(self, spec: SampleSpec, index: int) -> Array:
        """Return what sample `index` must be when read; overridden where a format keeps a part."""
        return self.content(spec, index)

    def write(self, shape: tuple[int, ...] = (5, 7), dtype: str = "uint8", samples: int = 2, **options: Any) -> Written:
        """Encode one file; a format that holds one sample gets one."""
        made = self.make()
        samples = samples if made.multi_sample else 1
        spec = made.check_spec(SampleSpec(shape, dtype, samples, options))
        data = b"".join(bytes(chunk) for chunk in made.encode(spec, partial(self.content, spec)))
        return Written(spec, data, made.side_files(spec))

    def written(self) -> Iterator[Written]:
        """Yield one small file for each variant of the options."""
        for variant in self.variants:
            yield self.write(self.shapes[0], **variant)

    def specs(self) -> Iterator[SampleSpec]:
        """Yield every combination of shape, dtype, number of samples and options that is to be tried."""
        made = self.make()
        for variant in self.variants:
            for shape in self.shapes:
                for dtype in self.dtypes:
                    for samples in self.sample_counts if made.multi_sample else (1,):
                        yield SampleSpec(shape, dtype, samples, variant)

    def read(
        self, file: Written, *, data: bytes | bytearray | None = None, told: bool = True
    ) -> list[tuple[Extent, Block]]:
        """Lay out and decode a whole file; `told` false gives the reader only the options it was written with."""
        made = self.make()
        content = file.data if data is None else data
        source = MemorySource(content, file.side_files)
        layout = made.layout(source, file.options if told else {**file.spec.options, "shape": file.spec.shape})
        return [(extent, made.decode(extent_data(source, extent), extent, layout)) for extent in layout.extents]

    # Round trips

    def test_what_is_written_is_read(self) -> None:
        """Every sample of every combination comes back in shape, dtype and value (value only when lossless)."""
        made = self.make()
        for asked in self.specs():
            spec = made.check_spec(asked)
            file = self.write(spec.shape, spec.dtype, spec.samples, **spec.options)
            self.check_samples(file, self.read(file))

    def check_samples(self, file: Written, blocks: list[tuple[Extent, Block]]) -> None:
        """Assert that the blocks hold exactly the file's samples, in order."""
        lossless = self.make().lossless
        position = 0
        for extent, block in blocks:
            assert (extent.first_sample, extent.samples) == (position, block.samples)
            for index in range(block.samples):
                got = np.asarray(block.sample(index))
                wanted = self.expected(file.spec, position + index)
                assert got.shape == wanted.shape, (file.spec, got.shape)
                assert got.dtype == wanted.dtype, (file.spec, got.dtype)
                assert not lossless or np.array_equal(got, wanted), file.spec
            position += block.samples
        assert position == file.spec.samples

    def test_encoding_twice_gives_the_same_bytes(self) -> None:
        """Equal specs and content give equal files; chunks are not empty and are bytes."""
        made = self.make()
        for file in self.written():
            chunks = []
            for chunk in made.encode(file.spec, partial(self.content, file.spec)):
                assert isinstance(chunk, memoryview)
                assert chunk.format == "B"
                assert len(chunk) > 0
                chunks.append(bytes(chunk))
            assert b"".join(chunks) == file.data

    def test_extents_cover_every_sample_once(self) -> None:
        """Extents ascend, leave no sample out, and lie inside the file."""
        made = self.make()
        for file in self.written():
            source = MemorySource(file.data, file.side_files)
            layout = made.layout(source, file.options)
            assert [extent.first_sample for extent in layout.extents] == _running([e.samples for e in layout.extents])
            assert sum(extent.samples for extent in layout.extents) == file.spec.samples
            for extent in layout.extents:
                assert all(offset >= 0 and offset + length <= len(file.data) for offset, length in extent.ranges)

    def test_whole_file_formats_need_no_layout(self) -> None:
        """A `whole_file` format decodes with the layout anybody can make."""
        made = self.make()
        if not made.whole_file:
            return
        for file in self.written():
            layout = whole_file_layout(len(file.data), file.spec.samples)
            block = made.decode(memoryview(file.data), layout.extents[0], layout)
            assert block.samples == file.spec.samples

    def test_blocks_are_well_formed_and_tell_what_was_copied(self) -> None:
        """`copied_bytes` is the memory of the columns that does not belong to the bytes given."""
        made = self.make()
        for file in self.written():
            source = MemorySource(file.data, file.side_files)
            layout = made.layout(source, file.options)
            for extent in layout.extents:
                data = extent_data(source, extent)
                block = made.decode(data, extent, layout)
                check_block(block, extent)
                assert block.copied_bytes == copied_bytes(block, data)

    def test_reading_changes_nothing(self) -> None:
        """Decoding the same bytes twice gives the same samples and leaves the bytes alone."""
        for file in self.written():
            data = bytearray(file.data)
            self.check_samples(file, self.read(file, data=data))
            self.check_samples(file, self.read(file, data=data))
            assert bytes(data) == file.data

    def test_many_threads_may_read(self) -> None:
        """One format object serves many threads."""
        files = list(self.written())
        with ThreadPoolExecutor(4) as pool:
            for file, blocks in zip(files * 4, pool.map(self.read, files * 4), strict=True):
                self.check_samples(file, blocks)

    # Many at once

    def test_many_at_once_equal_one_by_one(self) -> None:
        """Extents decoded together give what each gives by itself, wherever they lie and whatever they hold."""
        made = self.make()
        if not isinstance(made, DecodesMany):
            return
        for file in self.written():
            for joined in (1, 2):
                many = self._many(file, joined)
                for chosen in (slice(None), slice(None, None, -1), slice(1, 2), slice(0, 0)):
                    self._check_many(made, many, chosen)

    def test_a_corrupt_extent_among_many_is_told_by_number(self) -> None:
        """Flipped bytes give the same samples, or the same error with the extent's number, as one by one."""
        made = self.make()
        if not isinstance(made, DecodesMany):
            return
        for turn, file in enumerate(self.written()):
            many = self._many(file, 1)
            right = many.data.copy()
            chance = np.random.default_rng(derive(self.seed, "many", turn))
            for _ in range(self.flips):
                which = int(chance.integers(len(many.starts)))
                span = slice(many.starts[which], many.starts[which] + many.lengths[which])
                many.data[span] = np.frombuffer(flipped(right[span].tobytes(), chance), np.uint8)
                self._check_many(made, many, slice(None))
                many.data[span] = right[span]

    def _many(self, file: Written, joined: int) -> Extents:
        """Return every extent of a file three times, with gaps, neighbours joined where that is allowed."""
        source = MemorySource(file.data, file.side_files)
        layout = self.make().layout(source, file.options)
        step = joined if layout.joinable else 1
        groups = [layout.extents[at : at + step] for at in range(0, len(layout.extents), step)]
        starts, lengths, buffer = [], [], bytearray()
        for turn in range(3):
            for group in groups:
                buffer += bytes(turn)
                starts.append(len(buffer))
                for extent in group:
                    buffer += extent_data(source, extent)
                lengths.append(len(buffer) - starts[-1])
        samples = np.array([sum(extent.samples for extent in group) for group in groups] * 3)
        data = np.frombuffer(buffer, np.uint8)
        return extents_in(data, np.array(starts), np.array(lengths), samples, layout.context)

    def _check_many(self, made: Any, many: Extents, chosen: slice) -> None:
        columns = many.starts[chosen], many.lengths[chosen], many.samples[chosen]
        try:
            wanted = decode_each(made, extents_in(many.data, *columns, many.context))
        except CorruptExtentError as error:
            with pytest.raises(CorruptExtentError) as caught:
                made.decode_many(many.data, *columns, many.context)
            assert (caught.value.number, str(caught.value)) == (error.number, str(error))
            return
        got = made.decode_many(many.data, *columns, many.context)
        assert (got.payload_bytes, got.row_bytes) == (wanted.payload_bytes, wanted.row_bytes)
        assert got.copied_bytes == wanted.copied_bytes
        _check_equal(got.samples, wanted.samples, many.data)
        for name in wanted.names:
            _check_equal(got.column(name), wanted.column(name), many.data)

    # Malformed bytes

    def test_truncated_files_are_corrupt(self) -> None:
        """However many bytes are left, a file that was cut off is a CorruptError."""
        for file in self.written():
            for length in cuts(len(file.data)):
                with pytest.raises(CorruptError):
                    self.read(file, data=file.data[:length])

    def test_truncated_extents_are_corrupt(self) -> None:
        """An extent that comes back short is a CorruptError."""
        made = self.make()
        for file in self.written():
            source = MemorySource(file.data, file.side_files)
            layout = made.layout(source, file.options)
            extent = layout.extents[-1]
            data = extent_data(source, extent)
            for length in cuts(len(data)):
                with pytest.raises(CorruptError):
                    made.decode(data[:length], extent, layout)

    def test_flipped_bytes_are_corrupt_or_well_formed(self) -> None:
        """One to four wrong bytes give a CorruptError or a block of the promised form."""
        for number, file in enumerate(self.written()):
            chance = np.random.default_rng(derive(self.seed, "flips", number))
            for turn in range(self.flips):
                data = flipped(file.data, chance)
                self._read_hostile(file, data, told=turn % 2 == 0)

    def test_flipped_companions_are_corrupt_or_well_formed(self) -> None:
        """Wrong bytes in a side file do no harm either."""
        for file in self.written():
            chance = np.random.default_rng(derive(self.seed, "companions"))
            for suffix, content in file.side_files.items():
                for _ in range(self.flips // 4):
                    sides = {**file.side_files, suffix: flipped(content, chance)}
                    self._read_hostile(Written(file.spec, file.data, sides), file.data, told=True)

    def test_trailing_garbage_is_corrupt_or_ignored(self) -> None:
        """Bytes after the end are refused, or the samples are the right ones."""
        for file in self.written():
            for garbage in (b"\x00", b"\xff" * 17, file.data[:40]):
                try:
                    blocks = self.read(file, data=file.data + garbage)
                except CorruptError:
                    continue
                self.check_samples(file, blocks)

    def test_empty_and_foreign_files_are_corrupt(self) -> None:
        """No bytes, and bytes of no format, are a CorruptError."""
        for file in self.written():
            for data in (b"", b"\n", b"PK\x03\x04", b"\x93NUMPY", b"Not a file.\x00" * 9):
                with pytest.raises(CorruptError):
                    self.read(file, data=data[: len(file.data) - 1])

    def _read_hostile(self, file: Written, data: bytes, *, told: bool) -> None:
        try:
            blocks = self.read(file, data=data, told=told)
        except CorruptError:
            return
        for extent, block in blocks:
            check_block(block, extent)

    # Specs and options

    def test_check_spec_is_stable(self) -> None:
        """Checking a checked spec changes nothing."""
        made = self.make()
        for asked in self.specs():
            spec = made.check_spec(asked)
            assert made.check_spec(spec) == spec

    def test_unknown_options_are_refused_with_the_nearest_name(self) -> None:
        """A misspelt option is a UsageError that tells the right spelling, when writing and when reading."""
        made = self.make()
        file = next(self.written())
        wrong = {**file.spec.options, "compresion": "none"}
        source = MemorySource(file.data, file.side_files)
        with pytest.raises(UsageError, match="compression"):
            made.check_spec(SampleSpec(file.spec.shape, options=wrong))
        with pytest.raises(UsageError, match="compression"):
            made.layout(source, {**file.options, **wrong})

    def test_what_cannot_be_held_is_refused(self) -> None:
        """Empty samples, no samples, unknown element types and unknown compressions are UsageErrors."""
        made = self.make()
        refused = [
            SampleSpec((0, 3)),
            SampleSpec((3, -1)),
            SampleSpec((2, 2), "object"),
            SampleSpec((2, 2), "no such type"),
            SampleSpec((2, 2), samples=0),
            SampleSpec((2, 2), options={"compression": "sponge"}),
            SampleSpec((2, 2), options={"samples": 7}),
        ]
        if not made.multi_sample:
            refused.append(SampleSpec((2, 2), samples=2))
        for spec in refused:
            with pytest.raises(UsageError):
                made.check_spec(spec)

    def test_wrong_content_is_refused(self) -> None:
        """Content of another size or element type than the spec's is a UsageError."""
        made = self.make()
        for file in self.written() if self.stores_content else ():
            wrong: Array
            for wrong in (np.zeros(file.spec.sample_bytes + 1, np.uint8), np.zeros(file.spec.shape, np.complex64)):
                with pytest.raises(UsageError):
                    list(made.encode(file.spec, partial(_constant, wrong)))


def extent_data(source: MemorySource, extent: Extent) -> memoryview:
    """Return an extent's bytes, in one piece: a view when it is one range."""
    if len(extent.ranges) == 1:
        return source.read(*extent.ranges[0])
    return memoryview(b"".join(source.read(*one) for one in extent.ranges))


def check_block(block: Block, extent: Extent) -> None:
    """Assert that a block has the promised samples in every column, of plain elements."""
    assert block.samples == extent.samples
    assert block.primary in block.columns
    assert block.copied_bytes >= 0
    for values in block.columns.values():
        assert len(values) == extent.samples
        for array in values if isinstance(values, list) else [values]:
            assert not array.dtype.hasobject


def copied_bytes(block: Block, data: memoryview) -> int:
    """Return the memory, in bytes, of the block's arrays that lies outside `data`."""
    given = np.frombuffer(data, np.uint8)
    total = 0
    for values in block.columns.values():
        for array in values if isinstance(values, list) else [values]:
            if not np.may_share_memory(array, given):
                low, high = np.lib.array_utils.byte_bounds(array)
                total += high - low
    return total


def _check_equal(got: list[Array], wanted: list[Array], data: Array) -> None:
    for ours, theirs in zip(got, wanted, strict=True):
        assert (type(ours), ours.dtype, ours.shape) == (type(theirs), theirs.dtype, theirs.shape)
        assert ours.tobytes() == theirs.tobytes()
        assert np.may_share_memory(ours, data) == np.may_share_memory(theirs, data)


def cuts(length: int) -> list[int]:
    """Return lengths to cut a file to: all when it is short, else many, and all of the last few."""
    if length <= _CUTS_MAX:
        return list(range(length))
    spread = {index * length // _CUTS_MAX for index in range(_CUTS_MAX)}
    return sorted(spread | set(range(length - _TAIL_CUTS, length)))


def flipped(data: bytes, chance: np.random.Generator) -> bytes:
    """Return the data with one to four bytes replaced."""
    changed = bytearray(data)
    for _ in range(int(chance.integers(1, 5))):
        changed[int(chance.integers(len(changed)))] = int(chance.integers(256))
    return bytes(changed)


def _constant(array: Array, _index: int) -> Array:
    return array


def _running(counts: list[int]) -> list[int]:
    return [sum(counts[:index]) for index in range(len(counts))]
