"""Everything that is decided before anything is touched: one structure for runs, dry runs and configview."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

from stoker.bench.rules.mlperf.tables import models
from stoker.bench.rules.mlperf.verifier import JobVerdict
from stoker.bench.run.dlio import DlioConfig
from stoker.bench.run.dlio.config import without_secrets
from stoker.bench.run.dlio.tree import plain
from stoker.bench.run.mlperf.dataset import Extent, extent_of
from stoker.bench.run.mlperf.exits import ConfigurationError
from stoker.bench.run.mlperf.foretold import Known, foretell
from stoker.bench.run.mlperf.resolving import Invocation
from stoker.bench.run.mlperf.results_dir import ResultsDir, check_name, open_results
from stoker.bench.run.mlperf.rows import CHECKPOINTING, KVCACHE, TRAINING, VECTORDB
from stoker.bench.run.mlperf.storing import DataPlace, data_place, store_notes
from stoker.bench.run.mlperf.vectors import check_vector_options, collection_of, storage_place, vector_notes
from stoker.bench.run.mlperf.words import Word, command_words, generate_words, resolved_config, run_words
from stoker.core.errors import UsageError


@dataclass(frozen=True)
class Prepared:
    """A command as decided.

    results    the results directory, None where a command that keeps nothing was given none
    data       where the data lie, None where the command was told none
    words      keys below `workload`, each with its origin
    config     the workload as the engine resolves it, None for families that our engine does not run
    foretold   what the rules say now
    """

    invocation: Invocation
    results: ResultsDir | None
    data: DataPlace | None
    extent: Extent
    words: tuple[Word, ...]
    config: DlioConfig | None
    foretold: JobVerdict
    notes: tuple[str, ...]

    @property
    def system(self) -> str:
        """Return the system's name."""
        return str(self.invocation.value("systemname") or "")

    @property
    def model(self) -> str:
        """Return the model that names the folders; of closed KV caches, which have two, that of the first option."""
        invocation = self.invocation
        if invocation.place.family != KVCACHE:
            return invocation.place.model
        first = next(iter(models().kv_cache.options.values()))
        return str(invocation.value("model") or first.model)

    @property
    def home(self) -> ResultsDir:
        """Return the results directory of a command that keeps something."""
        assert self.results is not None
        return self.results

    @property
    def target(self) -> DataPlace:
        """Return where the data lie, for a command that needs them."""
        assert self.data is not None
        return self.data

    @property
    def workload(self) -> dict[str, Any]:
        """Return the resolved workload, secrets hidden."""
        if self.config is None:
            return {}
        tree = plain(self.config.composition.workload)
        found: dict[str, Any] = without_secrets(tree)
        return found

    def dlio_words(self, folder: str) -> list[str]:
        """Return the words of the engine's command line."""
        return command_words(self.invocation, self.words, folder)


def prepare(invocation: Invocation, environment: Mapping[str, str] | None = None) -> Prepared:
    """Return the command as decided. Reads the results directory and the data's marker; changes nothing.

    Raises UsageError for what cannot be, ConfigurationError (E101) without a results directory.
    """
    environment = os.environ if environment is None else environment
    place = invocation.place
    results = _results(invocation, environment)
    if place.family == VECTORDB and place.command != "datasize":
        check_vector_options(invocation)
    if place.family == VECTORDB and place.command == "run":
        collection_of(invocation, results)
    if invocation.value("systemname"):
        check_name(invocation.value("systemname"), "system's name")
    data = _data(invocation, environment)
    if data is not None:
        os.environ.update(data.variables)  # stores of this process and of the engine take their endpoint from there
    training = place.family == TRAINING
    extent = extent_of(invocation, results, data) if training and place.command != "datasize" else Extent({})
    words = _words(invocation, data, extent)
    config = resolved_config(invocation, words) if words else None
    known = Known(
        files=extent.files,
        files_sized=extent.sized.files if extent.sized else None,
        files_made=extent.made.files if extent.made else None,
        measured_memory_bytes=measured_memory_bytes(invocation),
        data=data,
        results_dir=str(results.root) if results else "",
    )
    notes = [*extent.notes, *(store_notes(data, environment) if data else []), *_idle(invocation)]
    notes += vector_notes(invocation)
    foretold = foretell(invocation, known)
    return Prepared(invocation, results, data, extent, tuple(words), config, foretold, tuple(notes))


def _results(invocation: Invocation, environment: Mapping[str, str]) -> ResultsDir | None:
    """Return the results directory; only a command that keeps nothing, or a dry run, goes without one."""
    told = {"MLPSTORAGE_RESULTS_DIR": "", **environment}
    try:
        return open_results(invocation.value("results_dir"), told)
    except (UsageError, ConfigurationError):
        keeps = invocation.place.command != "configview" and not (
            invocation.place.command == "datasize" and invocation.place.family != TRAINING
        )
        if keeps and not invocation.value("dry_run"):
            raise
        return None


def _data(invocation: Invocation, environment: Mapping[str, str]) -> DataPlace | None:
    if invocation.place.family == VECTORDB:
        return storage_place(invocation)
    if invocation.place.family == KVCACHE:
        folder = invocation.value("cache_dir")
        path = os.path.abspath(folder) if folder else ""  # noqa: PTH100 - Path.absolute keeps `..`
        return DataPlace(path, path) if path else None
    option = {TRAINING: "data_dir", CHECKPOINTING: "checkpoint_folder"}.get(invocation.place.family)
    if option is None or invocation.value(option) is None or not invocation.place.access:
        return None
    return data_place(invocation, environment)


def _words(invocation: Invocation, data: DataPlace | None, extent: Extent) -> list[Word]:
    place = invocation.place
    if place.family not in (TRAINING, CHECKPOINTING) or place.command == "datasize":
        return []
    there = data or DataPlace(".", ".")
    make = generate_words if place.command == "datagen" else run_words
    words = make(invocation, there, extent.words)
    return words if data is not None else [word for word in words if word.where != "--data-dir"]


def measured_memory_bytes(invocation: Invocation) -> float | None:
    """Return this host's memory where it is the only client: other hosts are measured as the run goes."""
    if invocation.place.family != TRAINING or not invocation.here_only or invocation.host_count != 1:
        return None
    return float(psutil.virtual_memory().total)


def _idle(invocation: Invocation) -> list[str]:
    """Return a sentence for each option that is taken for scripts' sake alone."""
    told = []
    for name in ("dlio_bin_path", "kvcache_bin_path"):
        if invocation.value(name):
            told.append(f"--{name.replace('_', '-')} has no effect: the engine that runs is Stoker's own")
    if invocation.place.family == KVCACHE and invocation.value("gpu_mem_gb"):
        told.append("--gpu-mem-gb: the tier in GPU memory is left out, entries go to the tiers below it at once")
    return told
