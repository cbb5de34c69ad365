"""What every format shares: the checks of a spec, the options of a reader, and the comparison of both with a file.

Five options are known to every format. `compression` says how a file is (to be) packed; `shape`, `dtype` and
`samples` say what a file should hold: formats that describe themselves are held against it, formats that do not
(raw, csv, synthetic …) need it; None means not said.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

import msgspec
import numpy as np

from stoker.core.errors import CorruptError, UsageError
from stoker.core.options import refuse_unknown
from stoker.core.units import MiB
from stoker.formats.api import Array, ContentSource, Extent, Layout, RangeSource, SampleSpec

COMMON_OPTIONS: Final = ("compression", "shape", "dtype", "samples")
CHUNK_BYTES: Final = 4 * MiB
"""Encoders hand out pieces of at most this size, and gather smaller ones up to a quarter of it."""

INFLATE_RATIO_MAX: Final = 1032
"""Deflate cannot do better (one bit pair for a 258-byte match): what claims more is a bomb."""

_KINDS: Final = "biufc"


class Expectation(msgspec.Struct, frozen=True):
    """What a reader was told about a file; None where nothing was said."""

    shape: tuple[int, ...] | None = None
    dtype: str | None = None
    samples: int | None = None
    verify: bool | None = None
    compression: str | None = None


NOTHING_EXPECTED: Final = Expectation()


class FormatBase:
    """The parts of the `Format` protocol that are the same for most formats."""

    name: str = ""
    extension: str = ""
    multi_sample: bool = True
    whole_file: bool = True
    primary: str = "x"
    lossless: bool = True
    own_options: ClassVar[tuple[str, ...]] = ()
    compressions: ClassVar[tuple[str, ...]] = ("none",)

    def check_spec(self, spec: SampleSpec) -> SampleSpec:
        """Return the spec this format will really write. Raises UsageError for what it cannot hold."""
        dtype = plain_dtype(spec.dtype)
        if any(side < 1 for side in spec.shape) or spec.samples < 1:
            raise UsageError(
                f"{self.name}: empty samples cannot be written",
                expected="every side and the number of samples to be at least 1",
                got=f"shape {spec.shape}, {spec.samples} samples",
            )
        if spec.samples > 1 and not self.multi_sample:
            raise UsageError(f"{self.name} holds one sample a file", expected="1 sample", got=f"{spec.samples}")
        options = self.checked_options(spec.options)
        told = read_expectation(options)
        facts = {"shape": spec.shape, "dtype": dtype.str, "samples": spec.samples}
        for word, fact in facts.items():
            got = getattr(told, word)
            if got not in (None, fact):
                raise UsageError(f"{self.name}: option and spec disagree on {word}", expected=str(fact), got=str(got))
        return spec

    def checked_options(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options that were given (None is not given). Raises UsageError for one nobody knows."""
        refuse_unknown(options, (*COMMON_OPTIONS, *self.own_options))
        given = {name: value for name, value in options.items() if value is not None}
        self.compression(given)
        return given

    def compression(self, options: Mapping[str, Any]) -> str:
        """Return the compression asked for, `none` by default. Raises UsageError for one the format lacks."""
        wanted = str(options.get("compression", "none"))
        if wanted not in self.compressions:
            raise UsageError(
                f"{self.name} does not support compression", where=wanted, expected=" or ".join(self.compressions)
            )
        return wanted

    def expectation(self, options: Mapping[str, Any]) -> Expectation:
        """Return what a reader's options say about the file."""
        return read_expectation(self.checked_options(options))

    def side_files(self, spec: SampleSpec) -> dict[str, bytes]:
        """Return {}: most formats have no companions."""
        return {}

    def side_key(self, key: str, suffix: str) -> str:
        """Return the key of a companion: beside the file, its name plus the suffix."""
        return key + suffix

    def layout(self, source: RangeSource, options: Mapping[str, Any]) -> Layout:
        """Return one extent for the whole file; the samples are counted only when the options do not tell."""
        told = self.expectation(options)
        samples = self.count_samples(source, told) if told.samples is None else told.samples
        return Layout((Extent(((0, source.size_bytes),), 0, samples),), told)

    def count_samples(self, source: RangeSource, told: Expectation) -> int:
        """Return how many samples the file holds, read from its headers."""
        raise NotImplementedError


def plain_dtype(name: str) -> np.dtype[Any]:
    """Return the plain numeric dtype called `name`. Raises UsageError for any other."""
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError) as error:
        raise UsageError("no such element type", where=str(name), expected="a NumPy name such as float32") from error
    if dtype.kind not in _KINDS or dtype.itemsize > 8 * (1 + (dtype.kind == "c")):
        raise UsageError("element type cannot be stored", where=str(name), expected="a bool, integer, float or complex")
    return dtype


def read_expectation(given: Mapping[str, Any]) -> Expectation:
    """Return the common options as an Expectation. Raises UsageError for values of the wrong kind."""
    dtype = given.get("dtype")
    return Expectation(
        shape=None if given.get("shape") is None else whole_numbers("shape", given["shape"]),
        dtype=None if dtype is None else plain_dtype(dtype).str,
        samples=None if given.get("samples") is None else whole_number("samples", given["samples"]),
        verify=None if given.get("verify") is None else flag("verify", given["verify"]),
        compression=given.get("compression"),
    )


def whole_number(name: str, value: Any, *, low: int = 1) -> int:
    """Return an option's value as an integer of at least `low`. Raises UsageError."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < low:
        raise UsageError(f"option {name!r} is no good", expected=f"a whole number of at least {low}", got=repr(value))
    return int(value)


def whole_numbers(name: str, value: Any) -> tuple[int, ...]:
    """Return an option's value as a tuple of positive integers. Raises UsageError."""
    if not isinstance(value, (list, tuple)):
        raise UsageError(f"option {name!r} is no good", expected="a list of whole numbers", got=repr(value))
    return tuple(whole_number(name, item) for item in value)


def flag(name: str, value: Any) -> bool:
    """Return an option's value as a truth value. Raises UsageError."""
    if not isinstance(value, bool):
        raise UsageError(f"option {name!r} is no good", expected="true or false", got=repr(value))
    return value


def take(content: ContentSource, index: int, spec: SampleSpec) -> Array:
    """Return sample `index` as a contiguous array of the spec's shape and dtype. Raises UsageError if it is not."""
    array = np.ascontiguousarray(content(index)).reshape(-1)
    dtype = np.dtype(spec.dtype)
    if array.dtype != dtype or array.nbytes != spec.sample_bytes:
        raise UsageError(
            f"content of sample {index} does not fit its spec",
            expected=f"{spec.sample_bytes} bytes of {dtype.name}",
            got=f"{array.nbytes} bytes of {array.dtype.name}",
        )
    return array.reshape(spec.shape)


def as_bytes(array: Array) -> memoryview:
    """Return a contiguous array's memory as bytes, without a copy."""
    return array.reshape(-1).view(np.uint8).data


def gather(pieces: Iterator[bytes | memoryview]) -> Iterator[memoryview]:
    """Yield the same bytes in pieces that suit a store: small ones joined, big ones cut; big ones are not copied."""
    pending = bytearray()
    for piece in pieces:
        if len(piece) < CHUNK_BYTES // 4:
            pending += piece
            if len(pending) >= CHUNK_BYTES // 4:
                yield memoryview(pending)
                pending = bytearray()
            continue
        if pending:
            yield memoryview(pending)
            pending = bytearray()
        view = memoryview(piece)
        yield from (view[start : start + CHUNK_BYTES] for start in range(0, len(view), CHUNK_BYTES))
    if pending:
        yield memoryview(pending)


def told_by(layout: Layout) -> Expectation:
    """Return what the layout's maker was told; nothing when the layout came from `whole_file_layout`."""
    return layout.context if isinstance(layout.context, Expectation) else NOTHING_EXPECTED


def extent_bytes(data: memoryview, extent: Extent) -> memoryview:
    """Return `data` as flat bytes. Raises CorruptError when it is not as long as the extent."""
    view = data if data.format == "B" and data.ndim == 1 else data.cast("B")
    if len(view) != extent.length_bytes:
        raise CorruptError("bytes are missing", expected=f"{extent.length_bytes} bytes", got=f"{len(view)}")
    return view


def hold_against(array: Array, extent: Extent, told: Expectation, what: str) -> None:
    """Raise CorruptError unless `array`, sample axis first, has the samples, shape and dtype that were told."""
    if array.shape[0] != extent.samples:
        raise CorruptError(f"{what}: wrong number of samples", expected=str(extent.samples), got=str(array.shape[0]))
    if told.dtype is not None and array.dtype != np.dtype(told.dtype):
        raise CorruptError(f"{what}: wrong element type", expected=told.dtype, got=array.dtype.str)
    if told.shape is not None and array.shape[1:] != told.shape:
        raise CorruptError(f"{what}: wrong sample shape", expected=str(told.shape), got=str(array.shape[1:]))


def view_samples(data: memoryview, samples: int, told: Expectation, what: str) -> Array:
    """Return `samples` equal samples lying back to back in `data` as a view, sample axis first.

    Without a told shape a sample is a row of elements; without a told dtype the elements are bytes.
    Raises CorruptError when the bytes do not make up that many samples.
    """
    dtype = np.dtype(told.dtype or "uint8")
    elements = len(data) // dtype.itemsize
    if told.shape is not None:
        per_sample = 1
        for side in told.shape:
            per_sample *= side
    else:
        per_sample = elements // max(samples, 1)
    if samples < 1 or per_sample < 1 or per_sample * samples * dtype.itemsize != len(data):
        raise CorruptError(
            f"{what}: the bytes do not make up the samples",
            expected=f"{samples} of {told.shape or 'equal size'} {dtype.name}",
            got=f"{len(data)} bytes",
        )
    return np.frombuffer(data, dtype).reshape(samples, *(told.shape if told.shape is not None else (per_sample,)))
