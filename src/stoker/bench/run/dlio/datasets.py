"""The dataset section as `DatasetSpec`: one for a split, with the options its format knows."""

import math
from typing import Any, Final

import msgspec
import numpy as np

from stoker.bench.run.dlio.config import DlioConfig
from stoker.core.errors import UsageError
from stoker.core.plan import DatasetSpec
from stoker.formats.api import FORMATS, SampleSpec
from stoker.loader.dataset.recipe import Recipe

TRAIN: Final = "train"
VALID: Final = "valid"
_IMAGES: Final = ("jpeg", "png")


def dataset_spec(config: DlioConfig, split: str) -> DatasetSpec:
    """Return the split `train` or `valid` as the configuration describes it; nothing is checked with the format yet.

    Raises UsageError for an element type or columns that do not exist.
    """
    kind = "eval" if split == VALID else "train"
    spec = DatasetSpec(
        format=config.text("dataset.format"),
        files=config.whole(f"dataset.num_files_{kind}"),
        samples_per_file=config.whole("dataset.num_samples_per_file"),
        record_length_bytes=config.number("dataset.record_length_bytes"),
        record_length_stdev_bytes=config.number("dataset.record_length_bytes_stdev"),
        record_dims=tuple(config.value("dataset.record_dims")),
        element_type=_element_type(config),
        split=split,
        prefix=config.text("dataset.file_prefix"),
        subfolders=config.whole(f"dataset.num_subfolders_{kind}"),
        options=_options(config),
    )
    return _with_exact_length(spec)


def check_dataset(spec: DatasetSpec, *, files_before: int = 0) -> None:
    """Raise what its format and generator have against the split: UsageError, MissingExtraError."""
    Recipe(spec, files_before=files_before)


def _element_type(config: DlioConfig) -> str:
    name = config.text("dataset.record_element_type")
    try:
        np.dtype(name)
    except (TypeError, ValueError, SyntaxError):
        where = config.where("dataset.record_element_type")
        raise UsageError("no such element type", where=where, expected="a NumPy name", got=name) from None
    return "uint8" if config.text("dataset.format") in _IMAGES else name


def _options(config: DlioConfig) -> dict[str, Any]:
    """Return the format's options, only those that say something."""
    form, compression = config.text("dataset.format"), config.text("dataset.compression")
    options: dict[str, Any] = {}
    if compression != "none":
        options["compression"] = compression
    if (form, compression) == ("hdf5", "gzip") or (
        (form, compression) == ("npz", "zip") and config.given("dataset.compression_level")
    ):
        options["compression_level"] = config.whole("dataset.compression_level")
    if form == "hdf5":
        options |= _given(config, "dataset.hdf5", ("chunk_dims", "num_dset_per_record", "max_shape"))
    if form == "parquet":
        options |= _given(config, "dataset.parquet", ("columns", "row_group_size"))
    return options


def _given(config: DlioConfig, section: str, names: tuple[str, ...]) -> dict[str, Any]:
    values = {name: config.value(f"{section}.{name}") for name in names if config.given(f"{section}.{name}")}
    return {name: value for name, value in values.items() if value not in ([], None)}


def _with_exact_length(spec: DatasetSpec) -> DatasetSpec:
    """Return the spec whose record length follows from the shape, where the shape or the columns are given."""
    columns = spec.options.get("columns")
    if columns:
        row = FORMATS.load(spec.format).check_spec(SampleSpec((1,), options={"columns": columns}))
        changes: dict[str, Any] = {"record_dims": row.shape, "element_type": "uint8", "record_length_stdev_bytes": 0.0}
        return msgspec.structs.replace(spec, record_length_bytes=float(row.sample_bytes), **changes)
    if spec.record_dims:
        length = math.prod(spec.record_dims) * np.dtype(spec.element_type).itemsize
        return msgspec.structs.replace(spec, record_length_bytes=float(length))
    return spec


def dataset_notes(config: DlioConfig, spec: DatasetSpec) -> list[str]:
    """Return what a reader of the result should know about the sizes."""
    notes = []
    given = config.number("dataset.record_length_bytes")
    if config.given("dataset.record_length_bytes") and spec.record_dims and spec.record_length_bytes != given:
        source = "columns" if spec.options.get("columns") else "record_dims"
        notes.append(
            f"the {source} decide the length of a sample: {spec.record_length_bytes:g} bytes, not the {given:g} given"
        )
    width = np.dtype(spec.element_type).itemsize
    if width > 1 and not spec.record_dims:
        notes.append(f"elements are {width} bytes wide, so a sample is {width} times record_length_bytes, as in DLIO")
    return notes
