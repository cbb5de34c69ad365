"""One entry of the catalogue: a model on an accelerator, and the dataset and training plan that follow from it."""

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any, Final

import msgspec
import numpy as np

from stoker.core.errors import UnknownNameError
from stoker.core.plan import DatasetSpec, Spread, TrainingPlan
from stoker.core.registry import nearest
from stoker.formats.parquet_schemas import dlrm_columns, flux_columns

EDITIONS: Final = ("v2.0", "v3.0")
_COLUMNS: Final = {"dlrm": dlrm_columns, "flux": flux_columns}


# Decoding these takes longer than reading them from a fast store.
_COSTLY_FORMATS: Final = ("jpeg", "png", "csv", "hdf5", "parquet")


def decoders(format_name: str, read_threads: int, computation_threads: int) -> int:
    """Return how many threads decode: what is told, but for costly formats as many as read.

    In the frameworks that the workloads come from a reading worker decodes, too, so its number counts for both.
    """
    return max(computation_threads, read_threads) if format_name in _COSTLY_FORMATS else computation_threads


class CheckpointBlock(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The checkpoint block of a template, and the editions that switch it on."""

    after_epoch: int
    epochs_between: int
    model_size_bytes: int
    editions: tuple[str, ...] = ()


class CatalogueEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A model on an accelerator as the MLPerf Storage templates have it.

    `status` maps an edition to `closed` (also allowed in open) or `whatif` (may be run, never submitted); an edition
    that does not offer the entry is absent. `record_length_bytes` is the nominal mean of a sample; `columns` names the
    Parquet columns, of which a part may be read. `record_resize_bytes` is what the reference hands to the framework
    instead of the sample.
    """

    model: str
    accelerator: str
    framework: str
    data_loader: str
    format: str
    files: int
    samples_per_file: int
    record_length_bytes: float
    batch_size: int
    computation_seconds: float
    read_threads: int
    epochs: int
    au_threshold_ratio: float
    status: dict[str, str]
    model_type: str = ""
    record_length_stdev_bytes: float = 0.0
    record_resize_bytes: int = 0
    columns: str = ""
    row_group_rows: int = 0
    computation_threads: int = 1
    prefetch_batches: int = 2
    file_shuffle: str = "off"
    sample_shuffle: str = "off"
    shuffle_size: int = 1024
    dont_use_mmap: bool = False
    checkpoint: CheckpointBlock | None = None

    @property
    def read_sample_bytes(self) -> float:
        """Return the payload bytes of a sample that are read: all, or the Parquet columns that training asks for."""
        if not self.columns:
            return self.record_length_bytes
        read = [column for column in self.parquet_columns() if column["read"]]
        return float(sum(column["size"] * np.dtype(column["dtype"]).itemsize for column in read))

    @property
    def demand_samples_per_second(self) -> float:
        """Return the samples one accelerator takes when it never waits (100 % AU)."""
        return self.batch_size / self.computation_seconds

    @property
    def demand_bytes_per_second(self) -> float:
        """Return the payload bytes one accelerator reads when it never waits (100 % AU)."""
        return self.demand_samples_per_second * self.read_sample_bytes

    @property
    def demand_nominal_bytes_per_second(self) -> float:
        """Return the same counted with whole samples, as the reference does; larger only when columns are skipped."""
        return self.demand_samples_per_second * self.record_length_bytes

    def parquet_columns(self) -> list[dict[str, Any]]:
        """Return the Parquet columns as {name, dtype, size, read}, none for other formats."""
        return _COLUMNS[self.columns]() if self.columns else []

    def dataset(self, *, files: int = 0) -> DatasetSpec:
        """Return the training split with `files` files, or with the template's number of them."""
        options: dict[str, Any] = {}
        dims: tuple[int, ...] = ()
        if self.columns:
            options["columns"] = self.parquet_columns()
            dims = (int(self.record_length_bytes),)  # a row of bytes: the columns decide the shape
        if self.row_group_rows:
            options["row_group_size"] = self.row_group_rows
        return DatasetSpec(
            format=self.format,
            files=files or self.files,
            samples_per_file=self.samples_per_file,
            record_length_bytes=self.record_length_bytes,
            record_length_stdev_bytes=self.record_length_stdev_bytes,
            record_dims=dims,
            options=options,
        )

    def training_plan(
        self, *, ranks: int, target_url: str = "", files: int = 0, epochs: int = 0, seed: int = 123
    ) -> TrainingPlan:
        """Return the plan of `ranks` such accelerators; 0 files or epochs take the template's number."""
        return TrainingPlan(
            model=self.model,
            accelerator=self.accelerator,
            dataset=self.dataset(files=files),
            ranks=ranks,
            target_url=target_url,
            batch_size=self.batch_size,
            computation=Spread(parameters={"value": self.computation_seconds}),
            epochs=epochs or self.epochs,
            read_threads=self.read_threads,
            decode_threads=decoders(self.format, self.read_threads, self.computation_threads),
            prefetch_batches=self.prefetch_batches,
            seed=seed,
            au_threshold_ratio=self.au_threshold_ratio,
        )


@cache
def _tables() -> dict[str, dict[str, CatalogueEntry]]:
    """Return model → accelerator → entry, from the package's own tables."""
    tables = {}
    folder = files("stoker.bench.workloads.catalogue") / "data"
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if not file.name.endswith(".toml"):
            continue
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        kinds = table.pop("accelerators")
        tables[str(table["model"])] = {
            kind: msgspec.convert({**table, "accelerator": kind, **own}, CatalogueEntry) for kind, own in kinds.items()
        }
    return tables


def models() -> list[str]:
    """Return the models, sorted."""
    return sorted(_tables())


def accelerators(model: str) -> list[str]:
    """Return the accelerators that have a template for `model`, sorted. Raises UnknownNameError for no such model."""
    return sorted(_of_model(model))


def entry(model: str, accelerator: str) -> CatalogueEntry:
    """Return the entry. Raises UnknownNameError with the nearest and all known names for an unknown one."""
    found = _of_model(model).get(accelerator)
    if found is None:
        raise _unknown(f"{model} template for accelerator", accelerator, accelerators(model))
    return found


def entries() -> list[CatalogueEntry]:
    """Return every entry, sorted by model and accelerator."""
    return [entry(model, kind) for model in models() for kind in accelerators(model)]


def _of_model(model: str) -> dict[str, CatalogueEntry]:
    found = _tables().get(model)
    if found is None:
        raise _unknown("training model", model, models())
    return found


def _unknown(kind: str, name: str, known: list[str]) -> UnknownNameError:
    close = nearest(name, known)
    hint = f"did you mean {close!r}? " if close else ""
    return UnknownNameError(f"no {kind}", where=name, remedy=f"{hint}known: {', '.join(known)}")
