"""Many runs of equal records decoded at once: bytes back to back that hold nothing but samples, or TFRecords."""

import numpy as np

from stoker.formats.api import Array, DecodedMany, Format, Int64s
from stoker.formats.base import Expectation
from stoker.formats.many import Extents, Form, decode_each, views
from stoker.kernels.unpack_columns import RECORD_IMAGE_AT, RECORD_IMAGE_BYTES, USUAL
from stoker.kernels.unpacking import checksums_hold, examples_locate


def sample_form(sample_bytes: int, told: Expectation) -> Form | None:
    """Return the form of a sample of this size, as `view_samples` gives it; None when that is for it to judge."""
    dtype = np.dtype(told.dtype or "uint8")
    elements, rest = divmod(sample_bytes, dtype.itemsize)
    if rest or elements < 1 or told.shape == ():
        return None
    if told.shape is None:
        return Form((elements,), dtype)
    wanted = 1
    for side in told.shape:
        wanted *= side
    return Form(told.shape, dtype) if wanted == elements else None


def decode_packed(made: Format, extents: Extents) -> DecodedMany:
    """Return samples that fill their extents, equal ones within each. Raises CorruptExtentError."""
    starts, lengths, counts = extents.starts, extents.lengths, extents.samples
    if len(starts) == 0 or counts.min() < 1:
        return decode_each(made, extents)
    length, count = int(lengths[0]), int(counts[0])
    alike = bool((lengths == length).all() and (counts == count).all())
    if alike:
        form = sample_form(length // count, extents.told) if length % count == 0 else None
        if form is None:
            return decode_each(made, extents)
        places = starts if count == 1 else (starts[:, None] + np.arange(count) * (length // count)).reshape(-1)
        return _only_samples(made, views(extents.data, places, form), int(lengths.sum()))
    sizes = lengths // counts
    if (sizes * counts != lengths).any():
        return decode_each(made, extents)
    firsts = np.cumsum(counts) - counts
    within = np.arange(int(counts.sum())) - np.repeat(firsts, counts)
    each = np.repeat(sizes, counts)
    samples = views_of_sizes(extents, np.repeat(starts, counts) + within * each, each)
    return decode_each(made, extents) if samples is None else _only_samples(made, samples, int(lengths.sum()))


def _only_samples(made: Format, samples: list[Array], payload_bytes: int) -> DecodedMany:
    return DecodedMany(
        samples, {made.primary: lambda: samples}, payload_bytes=payload_bytes, row_bytes=payload_bytes, copied_bytes=0
    )


def views_of_sizes(extents: Extents, places: Int64s, sizes: Int64s) -> list[Array] | None:
    """Return samples of several sizes as views; None when one of them does not fit what was told."""
    if len(sizes) == 0:
        return []
    if (sizes == sizes[0]).all():
        form = sample_form(int(sizes[0]), extents.told)
        return None if form is None else views(extents.data, places, form)
    forms = {size: sample_form(size, extents.told) for size in set(sizes.tolist())}
    samples: list[Array] = []
    for place, size in zip(places.tolist(), sizes.tolist(), strict=True):
        form = forms[size]
        if form is None:
            return None
        samples.append(np.ndarray(form.shape, form.dtype, extents.data, place))
    return samples


def decode_examples(made: Format, extents: Extents) -> DecodedMany:
    """Return the images of runs of TFRecords, and their sizes. Raises CorruptExtentError."""
    if len(extents.starts) == 0 or extents.samples.min() < 1:
        return decode_each(made, extents)
    if int(extents.samples.sum()) * 16 > int(extents.lengths.sum()):
        return decode_each(made, extents)
    statuses, records = examples_locate(extents.data, extents.starts, extents.lengths, extents.samples)
    usual = bool((statuses == USUAL).all())
    if usual and (extents.told.verify is False or checksums_hold(extents.data, records).all()):
        sizes = records[:, RECORD_IMAGE_BYTES].copy()
        samples = views_of_sizes(extents, records[:, RECORD_IMAGE_AT], sizes)
        if samples is not None:
            return _images(samples, sizes)
    return decode_each(made, extents)


def _images(samples: list[Array], sizes: Int64s) -> DecodedMany:
    payload_bytes = int(sizes.sum())
    return DecodedMany(
        samples,
        {"image": lambda: samples, "size": lambda: list(sizes)},
        payload_bytes=payload_bytes,
        row_bytes=payload_bytes + sizes.nbytes,
        copied_bytes=sizes.nbytes,
    )
