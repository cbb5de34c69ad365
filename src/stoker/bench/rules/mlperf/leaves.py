"""A leaf: the folder of one invocation, and the facts that its documents hold."""

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, Final

from stoker.bench.rules.mlperf.reading import Files, Folder, dig, number, numbers, whole, words
from stoker.core.units import GiB

CONFIG_FOLDERS: Final = ("dlio_config", "configs")
_FAMILIES: Final = {
    "training": "training",
    "checkpointing": "checkpointing",
    "vectordb": "vector_database",
    "vector_database": "vector_database",
    "kvcache": "kv_cache",
    "kv_cache": "kv_cache",
}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Leaf:
    """One invocation: what its place in the tree says, and its documents. A document that is missing is None."""

    def __init__(
        self, files: Files, folder: Folder, division: str, family: str, model: str, command: str, time: str
    ) -> None:
        self.files = files
        self.folder = folder
        self.division = division
        self.family = family
        self.model = model
        self.command = command
        self.time = time
        self.hosts_seen = 0  # 1.0 keeps a folder a host

    @classmethod
    def alone(cls, files: Files, division: str) -> "Leaf":
        """Return the leaf that is the whole tree; its metadata tell what it is."""
        leaf = cls(files, files.top, division, "", "", "", "")
        told = leaf.metadata
        benchmark = words(told, "benchmark_type") or ""
        leaf.family = _FAMILIES.get(benchmark, "training" if told is None else "")
        leaf.model = words(told, "model") or ""
        leaf.command = words(told, "command") or "run"
        leaf.time = words(told, "run_datetime") or ""
        leaf.division = division or words(told, "args.mode") or ""
        return leaf

    @property
    def path(self) -> str:
        """Return the path of the folder."""
        return self.folder.path

    def has(self, name: str) -> bool:
        """Tell whether the folder holds a plain file of this name."""
        return name in self.folder.files

    def ending(self, suffix: str) -> list[str]:
        """Return the names of files that end so, sorted; those that begin with a dot do not count."""
        return sorted(name for name in self.folder.files if name.endswith(suffix) and not name.startswith("."))

    @cached_property
    def metadata_name(self) -> str:
        """Return the name of the metadata file, nothing when there is none."""
        found = self.ending("_metadata.json")
        return found[0] if found else ""

    @cached_property
    def metadata(self) -> dict[str, Any] | None:
        """Return what the tool wrote about the invocation."""
        return self._mapping(self.metadata_name)

    @cached_property
    def summary(self) -> dict[str, Any] | None:
        """Return summary.json."""
        return self._mapping("summary.json")

    def document(self, name: str) -> dict[str, Any] | None:
        """Return another JSON document of the folder that is a mapping."""
        return self._mapping(name)

    def _mapping(self, name: str) -> dict[str, Any] | None:
        found = self.files.json(self.folder.below(name)) if self.has(name) else None
        return found if isinstance(found, dict) else None

    @cached_property
    def config_folder(self) -> Folder | None:
        """Return the engine's configuration folder."""
        found = (self.folder.find(name) for name in CONFIG_FOLDERS)
        return next((folder for folder in found if folder is not None), None)

    @cached_property
    def config_path(self) -> str:
        """Return the path of the resolved configuration."""
        return self.config_folder.below("config.yaml") if self.config_folder else ""

    @cached_property
    def config(self) -> dict[str, Any] | None:
        """Return the resolved workload: sections such as dataset and reader."""
        if self.config_folder is None or "config.yaml" not in self.config_folder.files:
            return None
        found = self.files.yaml(self.config_path)
        inner = dig(found, ["workload"])
        told = inner if isinstance(inner, dict) else found
        return told if isinstance(told, dict) else None

    @cached_property
    def overrides(self) -> dict[str, tuple[Any, str, str]]:
        """Return the keys that were overridden: dotted key to (value, path of the file, key in the file)."""
        return {**self._engine_overrides(), **self._tool_overrides()}

    def _tool_overrides(self) -> dict[str, tuple[Any, str, str]]:
        given = dig(self.metadata, ["override_parameters"])
        path = self.folder.below(self.metadata_name)
        if not isinstance(given, dict):
            return {}
        return {_bare(key): (value, path, f"override_parameters.{key}") for key, value in given.items()}

    def _engine_overrides(self) -> dict[str, tuple[Any, str, str]]:
        folder = self.config_folder
        if folder is None or "overrides.yaml" not in folder.files:
            return {}
        path = folder.below("overrides.yaml")
        given = self.files.yaml(path)
        found = {}
        for word in given if isinstance(given, list) else []:
            key, equals, value = str(word).lstrip("+~").partition("=")
            if equals and key.startswith("workload."):
                found[_bare(key)] = (value, path, key)
        return found

    def argument(self, name: str) -> Any:
        """Return an argument of the command line as the metadata keep it, None when it is not there."""
        return dig(self.metadata, ["args", name])

    @cached_property
    def start_seconds(self) -> float | None:
        """Return when the engine started, as seconds since 1970 of the host's own clock."""
        return _seconds(words(self.summary, "start"))

    @cached_property
    def end_seconds(self) -> float | None:
        """Return when the engine ended."""
        return _seconds(words(self.summary, "end"))

    @property
    def invoked_seconds(self) -> float | None:
        """Return when the tool was started."""
        return _seconds(words(self.metadata, "invocation_start_time"))

    @property
    def accelerators(self) -> int | None:
        """Return how many accelerators were emulated."""
        return whole(self.summary, "num_accelerators") or whole(self.metadata, "num_processes")

    @property
    def accelerator(self) -> str:
        """Return the kind of accelerator, nothing when it is not told."""
        told = (words(self.metadata, name) for name in ("accelerator", "args.accelerator_type"))
        return next((name for name in told if name), "")

    @cached_property
    def hosts(self) -> int | None:
        """Return how many clients took part: as the engine counted, else as collected, else as listed."""
        counted = whole(self.summary, "num_hosts") or whole(self.metadata, "system_info.num_hosts")
        listed = self.argument("hosts")
        return counted or (len(listed) if isinstance(listed, list) and listed else None) or self.hosts_seen or None

    @cached_property
    def declared_memory_bytes(self) -> float | None:
        """Return the memory of all clients as it was declared."""
        each = number(self.metadata, "args.client_host_memory_in_gb")
        hosts = whole(self.metadata, "args.num_client_hosts") or self.hosts
        return each * GiB * hosts if each is not None and hosts else None

    @cached_property
    def measured_memory_bytes(self) -> float | None:
        """Return the memory of all clients as it was collected."""
        return number(self.metadata, "system_info.total_memory_bytes")

    @property
    def memory_bytes(self) -> float | None:
        """Return the larger of declared and measured memory of all clients."""
        known = [each for each in (self.declared_memory_bytes, self.measured_memory_bytes) if each]
        return max(known, default=None)

    @property
    def files_count(self) -> int | None:
        """Return the training files: as read, or as sized or generated."""
        told = ("parameters.dataset.num_files_train",)
        found = whole(self.summary, "num_files_train") if self.command == "run" else None
        return found or next((each for key in told if (each := whole(self.metadata, key))), None)

    @property
    def nodes(self) -> list[Mapping[str, Any]]:
        """Return the hosts as they were collected."""
        found = dig(self.metadata, ["system_info", "hosts"])
        return [host for host in found if isinstance(host, dict)] if isinstance(found, list) else []

    @cached_property
    def au_mean_percent(self) -> float | None:
        """Return the mean utilisation of the run in per cent."""
        told = number(self.summary, "metric.train_au_mean_percentage")
        listed = numbers(self.summary, "metric.train_au_percentage")
        return told if told is not None else (sum(listed) / len(listed) if listed else None)

    @property
    def samples_per_second(self) -> float | None:
        """Return the mean throughput of the run."""
        return number(self.summary, "metric.train_throughput_mean_samples_per_second")


def _bare(key: str) -> str:
    return key.lstrip("+~").removeprefix("workload.")


def _seconds(text: str | None) -> float | None:
    """Return a time such as 2026-03-02T10:15:04.12 in seconds, None when it is none. Zones are left aside: all times
    of a leaf are of one host's clock."""
    try:
        found = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return (found.replace(tzinfo=UTC) - _EPOCH).total_seconds()
