"""Many `.npy` and `.npz` files decoded at once: from the columns of the locate kernels to arrays over their bytes."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.formats.api import Array, Block, DecodedMany, Format, Int64s
from stoker.formats.base import Expectation
from stoker.formats.many import Extents, Form, block_bytes, decode_one_of, views
from stoker.kernels.unpack_columns import (
    ARRAY_AT,
    ARRAY_DTYPE,
    ARRAY_FORM_COLUMNS,
    ARRAY_FORTRAN,
    ARRAY_LABEL_AT,
    ARRAY_LABEL_DTYPE,
    ARRAY_SIDES,
    ARRAY_STATUS,
    USUAL,
    dtype_of,
)

_LABELS: Final = "y"


class _FileForm(msgspec.Struct, frozen=True):
    """What usual files of one form hold: `samples` samples, `step_bytes` apart, and labels of a type or none."""

    sample: Form
    samples: int
    step_bytes: int
    label: np.dtype[Any] | None

    @property
    def payload_bytes(self) -> int:
        size = self.samples * self.sample.dtype.itemsize
        for side in self.sample.shape:
            size *= side
        return size

    @property
    def label_bytes(self) -> int:
        return self.samples * self.label.itemsize if self.label is not None else 0

    def places(self, starts: Int64s) -> Int64s:
        """Return where each sample lies in files whose arrays start there."""
        if self.samples == 1:
            return starts
        return (starts[:, None] + np.arange(self.samples) * self.step_bytes).reshape(-1)

    def labels(self, data: NDArray[np.uint8], place: int) -> list[Array]:
        """Return the labels of a file, that start at `place`."""
        assert self.label is not None
        return list(np.ndarray((self.samples,), self.label, data, place))


def decode_arrays(made: Format, extents: Extents, found: Int64s) -> DecodedMany:
    """Return the samples of files that hold them along the last axis. Raises CorruptExtentError."""
    alike = len(found) > 0 and bool((found[:, :ARRAY_FORM_COLUMNS] == found[0, :ARRAY_FORM_COLUMNS]).all())
    form = _form(found[0, :ARRAY_FORM_COLUMNS].tolist(), extents.told) if alike else None
    if form is None or bool((extents.samples != form.samples).any()):
        return _decode_mixed(made, extents, found)
    data, count = extents.data, len(found)
    columns = {made.primary: partial(_samples_of, data, found, form)}
    if form.label is not None:
        columns[_LABELS] = partial(_labels_of, data, found[:, ARRAY_LABEL_AT], form)
    return DecodedMany(
        _samples_of(data, found, form),
        columns,
        payload_bytes=form.payload_bytes * count,
        row_bytes=(form.payload_bytes + form.label_bytes) * count,
        copied_bytes=0,
    )


def _samples_of(data: NDArray[np.uint8], found: Int64s, form: _FileForm) -> list[Array]:
    return views(data, form.places(found[:, ARRAY_AT]), form.sample)


def _labels_of(data: NDArray[np.uint8], places: Int64s, form: _FileForm) -> list[Array]:
    return [label for place in places.tolist() for label in form.labels(data, place)]


def _form(row: Sequence[int], told: Expectation) -> _FileForm | None:
    """Return what files with these form columns hold; None where that is unusual, or not what was told."""
    sides = tuple(row[ARRAY_SIDES + 1 : ARRAY_SIDES + 1 + row[ARRAY_SIDES]])
    # Samples without a side would be NumPy scalars, not arrays.
    if row[ARRAY_STATUS] != USUAL or len(sides) < 2:
        return None
    dtype, shape, samples = dtype_of(row[ARRAY_DTYPE]), sides[:-1], sides[-1]
    if told.shape not in (None, shape) or (told.dtype is not None and np.dtype(told.dtype) != dtype):
        return None
    strides, step = [dtype.itemsize], dtype.itemsize
    if row[ARRAY_FORTRAN]:
        for side in shape:
            strides.append(strides[-1] * side)
        step = strides.pop()
    else:
        for side in sides[:0:-1]:
            strides.append(strides[-1] * side)
        strides = strides[:0:-1]
    label = dtype_of(row[ARRAY_LABEL_DTYPE]) if row[ARRAY_LABEL_DTYPE] else None
    packed = samples == 1 and not row[ARRAY_FORTRAN]
    return _FileForm(Form(shape, dtype, None if packed else tuple(strides)), samples, step, label)


def _decode_mixed(made: Format, extents: Extents, found: Int64s) -> DecodedMany:
    """Return the samples of files that are not all alike: each by its own form, unusual ones by `decode`."""
    forms: dict[bytes, _FileForm | None] = {}
    parts: list[_FileForm | Block] = []
    samples: list[Array] = []
    for number, (row, count) in enumerate(zip(found, extents.samples.tolist(), strict=True)):
        key = row[:ARRAY_FORM_COLUMNS].tobytes()
        if key not in forms:
            forms[key] = _form(row.tolist(), extents.told)
        form = forms[key]
        if form is None or form.samples != count:
            block = decode_one_of(made, extents, number)
            parts.append(block)
            samples += [block.sample(index) for index in range(block.samples)]
        else:
            parts.append(form)
            samples += _samples_of(extents.data, found[number : number + 1], form)
    columns = {made.primary: lambda: samples}
    if all(_has_labels(part) for part in parts):
        columns[_LABELS] = partial(_mixed_labels, extents.data, found[:, ARRAY_LABEL_AT], parts)
    payload_bytes = sum(sample.nbytes for sample in samples)
    blocks = [part for part in parts if isinstance(part, Block)]
    return DecodedMany(
        samples,
        columns,
        payload_bytes=payload_bytes,
        row_bytes=sum(
            block_bytes(part) if isinstance(part, Block) else part.payload_bytes + part.label_bytes for part in parts
        ),
        copied_bytes=sum(block.copied_bytes for block in blocks),
    )


def _has_labels(part: _FileForm | Block) -> bool:
    return _LABELS in part.columns if isinstance(part, Block) else part.label is not None


def _mixed_labels(data: NDArray[np.uint8], places: Int64s, parts: Sequence[_FileForm | Block]) -> list[Array]:
    labels: list[Array] = []
    for part, place in zip(parts, places.tolist(), strict=True):
        labels += list(part.columns[_LABELS]) if isinstance(part, Block) else part.labels(data, place)
    return labels
