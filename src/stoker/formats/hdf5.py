"""HDF5: datasets `records_0` … `records_{k-1}` and `labels`, sample axis first, in the newest file version.

`num_dset_per_record` k cuts the first side of every sample into k equal parts; a part's leading side of 1 is left
out, as DLIO does. Reading joins the parts again into one column `records`. Contiguous datasets come back as views
into the file's bytes, others through the library. Files of one make, which differ in their data alone, are known by
sight from the third on (see `templates`): to open one costs the library half a millisecond. What could lead out of
the file (soft and external links, external storage, virtual datasets) or into strange code (filters that are not
built in) is refused.
"""

import io
import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from stoker.core.errors import CorruptError, UsageError
from stoker.core.units import MiB
from stoker.formats.api import (
    Array,
    Block,
    ContentSource,
    DecodedMany,
    Extent,
    Int64s,
    Layout,
    RangeSource,
    SampleSpec,
)
from stoker.formats.base import (
    Expectation,
    FormatBase,
    extent_bytes,
    gather,
    hold_against,
    take,
    told_by,
    whole_number,
    whole_numbers,
)
from stoker.formats.hdf5_chunks import filters_of, read_chunked, zeros
from stoker.formats.many import Extents, Form, decode_each, extents_in, views
from stoker.formats.ranges import MemorySource, RangeFile
from stoker.formats.templates import Place, Template, Templates

_RECORDS: Final = "records_{}"
_LABELS: Final = "labels"
_GZIP_LEVEL: Final = 4
_LIBRARY_ERRORS: Final = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, MemoryError)
_PARTS_MAX: Final = 4096


class Hdf5(FormatBase):
    """Options: `compression` none, gzip, lzf; `compression_level` 0 to 9 (gzip, 4 by default); `chunk_dims`, a chunk's
    shape with the sample axis; `max_shape`, the largest sample shape; `num_dset_per_record`.
    """

    name = "hdf5"
    extension = "hdf5"
    primary = "records"
    own_options = ("compression_level", "chunk_dims", "max_shape", "num_dset_per_record")
    compressions = ("none", "gzip", "lzf")

    def __init__(self) -> None:
        self._templates = Templates()

    def check_spec(self, spec: SampleSpec) -> SampleSpec:
        """Return the spec. Raises UsageError for parts, chunks or limits that do not fit the shape."""
        spec = super().check_spec(spec)
        _dataset_options(spec)
        return spec

    def checked_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options given. Raises UsageError for a level that nothing would use."""
        given = super().checked_options(options)
        level = given.get("compression_level")
        if level is not None and (given.get("compression") != "gzip" or whole_number("level", level, low=0) > 9):
            raise UsageError("hdf5: compression_level needs compression gzip", expected="0 to 9", got=repr(level))
        return given

    def encode(self, spec: SampleSpec, content: ContentSource) -> Iterator[memoryview]:
        """Yield the file; the library goes back and forth in it, so it is built in memory."""
        spec = self.check_spec(spec)
        out = io.BytesIO()
        with h5py.File(out, "w", libver="latest") as file:
            _write(file, spec, content)
        return gather(iter([out.getbuffer()]))

    def count_samples(self, source: RangeSource, told: Expectation) -> int:
        """Return the first side of `records_0`; reads the metadata alone."""
        try:
            with h5py.File(RangeFile(source), "r") as file:
                return int(_open(file, _RECORDS.format(0)).shape[0])
        except _LIBRARY_ERRORS as error:
            raise CorruptError("hdf5: file cannot be read", got=str(error)) from error

    def decode(self, data: memoryview, extent: Extent, layout: Layout) -> Block:
        """Return the columns records and, when there, labels. Parts are joined, which copies them."""
        view = extent_bytes(data, extent)
        told = told_by(layout)
        template = self._templates.find(view)
        if template is None:
            columns, copied_bytes = _find(MemorySource(view), view)
            if not copied_bytes:
                self._templates.offer(view, columns, _find)
        else:
            columns, copied_bytes = template.columns(view), 0
        records = columns["records"]
        if told.shape is not None and records.size == len(records) * math.prod(told.shape):
            columns["records"] = records.reshape(len(records), *told.shape)
        hold_against(columns["records"], extent, told, "hdf5")
        if "labels" in columns and columns["labels"].shape != (extent.samples,):
            raise CorruptError("hdf5: labels do not fit the records", got=str(columns["labels"].shape))
        return Block(columns, primary="records", samples=extent.samples, copied_bytes=copied_bytes)

    def decode_many(
        self, data: NDArray[np.uint8], starts: Int64s, lengths: Int64s, samples: Int64s | int, context: Any
    ) -> DecodedMany:
        """See `DecodesMany`: files of one make are known by what stands around their data."""
        extents = extents_in(data, starts, lengths, samples, context)
        template = self._template_of_all(extents)
        form = _form_of(template, extents) if template is not None else None
        if template is None or form is None:
            return decode_each(self, extents)
        row_bytes = sum(place.end_bytes - place.offset_bytes for place in template.places) * len(extents.starts)
        columns = {place.name: partial(_column_of_all, extents, place, form) for place in template.places}
        found = columns[self.primary]()
        payload_bytes = len(found) * math.prod(form.shape) * form.dtype.itemsize
        return DecodedMany(found, columns, payload_bytes=payload_bytes, row_bytes=row_bytes, copied_bytes=0)

    def _template_of_all(self, extents: Extents) -> Template | None:
        """Return the template that every file fits; None when they are not all of one make, or of none known."""
        if len(extents.starts) == 0 or (extents.lengths != extents.lengths[0]).any():
            return None
        length, data = int(extents.lengths[0]), extents.data.data
        files = (data[start : start + length] for start in extents.starts.tolist())
        template = self._templates.find(next(files))
        return template if template is not None and all(template.fits(file) for file in files) else None


def _find(source: RangeSource, view: memoryview) -> tuple[dict[str, Array], int]:
    """Return a file's columns, as views where they lie in one piece, and the bytes copied. Raises CorruptError."""
    try:
        with h5py.File(RangeFile(source), "r") as file:
            records, copied_bytes = _read_records(file, view)
            columns = {"records": records}
            if file.id.links.exists(_LABELS.encode()):
                columns["labels"], label_bytes = _read(_open(file, _LABELS), view)
                copied_bytes += label_bytes
    except _LIBRARY_ERRORS as error:
        raise CorruptError("hdf5: file cannot be read", got=str(error)) from error
    return columns, copied_bytes


def _form_of(template: Template, extents: Extents) -> Form | None:
    """Return the form of a sample of files of one make; None where `decode` must judge."""
    places = {place.name: place for place in template.places}
    records, told = places["records"], extents.told
    count, shape = records.shape[0], records.shape[1:]
    if told.shape is not None and math.prod(told.shape) == math.prod(shape):
        shape = told.shape
    labels = places.get(_LABELS)
    good = bool((extents.samples == count).all()) and (labels is None or labels.shape == (count,))
    good = good and (told.dtype is None or np.dtype(told.dtype) == records.dtype) and told.shape in (None, shape)
    return Form(shape, records.dtype) if good and shape else None


def _column_of_all(extents: Extents, place: Place, form: Form) -> list[Array]:
    """Return one column of files of one make: the records in their form, the labels as numbers."""
    count = place.shape[0]
    starts = extents.starts + place.offset_bytes
    if place.name == _LABELS:
        labels = [np.ndarray((count,), place.dtype, extents.data, start) for start in starts.tolist()]
        return [label for labels_of_file in labels for label in labels_of_file]
    step = (place.end_bytes - place.offset_bytes) // count
    places = starts if count == 1 else (starts[:, None] + np.arange(count) * step).reshape(-1)
    return views(extents.data, places, form)


def _dataset_options(spec: SampleSpec) -> tuple[int, tuple[int, ...], dict[str, Any]]:
    """Return (parts, shape of one dataset, keyword arguments for its creation). Raises UsageError."""
    options = {name: value for name, value in spec.options.items() if value is not None}
    parts = whole_number("num_dset_per_record", options.get("num_dset_per_record", 1))
    if parts > _PARTS_MAX or (parts > 1 and (not spec.shape or spec.shape[0] % parts)):
        raise UsageError(
            "hdf5: num_dset_per_record must divide the first side", expected=str(spec.shape), got=str(parts)
        )
    sides = (spec.shape[0] // parts, *spec.shape[1:]) if spec.shape else ()
    if len(sides) > 1 and sides[0] == 1:
        sides = sides[1:]
    shape = (spec.samples, *sides)
    arguments: dict[str, Any] = {}
    if options.get("compression", "none") != "none":
        arguments["compression"] = options["compression"]
    if arguments.get("compression") == "gzip":
        arguments["compression_opts"] = options.get("compression_level", _GZIP_LEVEL)
    if options.get("max_shape"):
        arguments["maxshape"] = (spec.samples, *_at_least("max_shape", options["max_shape"], sides))
    if options.get("chunk_dims"):
        limit = arguments.get("maxshape", shape)
        arguments["chunks"] = _at_most("chunk_dims", options["chunk_dims"], limit)
    return parts, shape, arguments


def _at_least(name: str, value: Any, sides: tuple[int, ...]) -> tuple[int, ...]:
    largest = whole_numbers(name, value)
    if len(largest) != len(sides) or any(most < side for most, side in zip(largest, sides, strict=True)):
        raise UsageError(f"hdf5: {name} is smaller than the samples", expected=f"at least {sides}", got=f"{largest}")
    return largest


def _at_most(name: str, value: Any, sides: tuple[int, ...]) -> tuple[int, ...]:
    chunk = whole_numbers(name, value)
    if len(chunk) != len(sides) or any(most > side for most, side in zip(chunk, sides, strict=True)):
        raise UsageError(f"hdf5: {name} does not fit the dataset", expected=f"within {sides}", got=f"{chunk}")
    return chunk


def _write(file: Any, spec: SampleSpec, content: ContentSource) -> None:
    parts, shape, arguments = _dataset_options(spec)
    dtype = np.dtype(spec.dtype)
    datasets = [file.create_dataset(_RECORDS.format(part), shape, dtype, **arguments) for part in range(parts)]
    # A chunk that spans samples is written once, not unpacked and packed again for each of them.
    step = datasets[0].chunks[0] if datasets[0].chunks else 1
    for first in range(0, spec.samples, step):
        count = min(step, spec.samples - first)
        block = np.empty((count, parts, *shape[1:]), dtype)
        for index in range(count):
            block[index] = take(content, first + index, spec).reshape(parts, *shape[1:])
        for part, dataset in enumerate(datasets):
            dataset[first : first + count] = block[:, part]
    file.create_dataset(_LABELS, data=np.zeros(spec.samples, np.int64))


def _read_records(file: Any, view: memoryview) -> tuple[Array, int]:
    """Return all parts as one array, sample axis first, and the bytes that were copied for it."""
    first, copied_bytes = _read(_open(file, _RECORDS.format(0)), view)
    parts = [first]
    while len(parts) < _PARTS_MAX and file.id.links.exists(_RECORDS.format(len(parts)).encode()):
        part = _read(_open(file, _RECORDS.format(len(parts))), view)[0]
        if part.shape != first.shape or part.dtype != first.dtype:
            raise CorruptError("hdf5: parts of a record differ", expected=str(first.shape), got=str(part.shape))
        parts.append(part)
    if len(parts) == 1:
        return first, copied_bytes
    samples, sides = first.shape[0], first.shape[1:]
    joined = np.stack(parts, axis=1)
    joined = joined.reshape(samples, len(parts) * sides[0], *sides[1:]) if sides else joined
    return joined, joined.nbytes


def _open(file: Any, name: str) -> Any:
    """Return a dataset that lies wholly in this file. Raises CorruptError for anything else."""
    links = file.id.links
    if not links.exists(name.encode()):
        raise CorruptError("hdf5: dataset is missing", where=name, got=", ".join(list(file)[:8]) or "an empty file")
    if links.get_info(name.encode()).type != h5py.h5l.TYPE_HARD:
        raise CorruptError("hdf5: dataset is a link, which might lead out of the file", where=name)
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.shape is None or not dataset.shape:
        raise CorruptError("hdf5: not a dataset with samples", where=name)
    if dataset.external or dataset.is_virtual:
        raise CorruptError("hdf5: dataset keeps its data elsewhere", where=name)
    if dataset.dtype.kind not in "biufc" or dataset.dtype.hasobject:
        raise CorruptError(
            "hdf5: element type is refused", where=name, expected="plain numbers", got=str(dataset.dtype)
        )
    if not dataset.id.get_type().equal(h5py.h5t.py_create(dataset.dtype, logical=True)):
        raise CorruptError("hdf5: element type is stored in a form of its own", where=name, got=str(dataset.dtype))
    return dataset


def _read(dataset: Any, view: memoryview) -> tuple[Array, int]:
    """Return a dataset's array and the bytes copied: none when its bytes lie in one piece in the file."""
    if dataset.chunks is not None:
        return read_chunked(dataset, view)
    shape, dtype = dataset.shape, dataset.dtype
    wanted_bytes = math.prod(shape) * dtype.itemsize
    offset = dataset.id.get_offset()
    if filters_of(dataset) or (offset is not None and offset + wanted_bytes > len(view)):
        raise CorruptError("hdf5: dataset lies outside the file", where=dataset.name, got=f"offset {offset}")
    if offset is not None and wanted_bytes:
        return np.frombuffer(view, dtype, math.prod(shape), offset).reshape(shape), 0
    # Tiny datasets lie in a header; those never written to lie nowhere and hold their fill value.
    if wanted_bytes > MiB:
        raise CorruptError("hdf5: dataset claims an absurd size", where=dataset.name, got=f"{wanted_bytes} bytes")
    if dataset.id.get_create_plist().get_layout() != h5py.h5d.COMPACT:
        array = zeros(dataset)
        return array, array.nbytes
    array = np.empty(shape, dtype)
    if wanted_bytes:
        dataset.read_direct(array)
    return array, array.nbytes


FORMAT: Final = Hdf5()
