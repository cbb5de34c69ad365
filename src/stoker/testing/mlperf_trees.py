"""Makes whole trees of MLPerf Storage results, of editions 1.0, 2.0 and 3.0, that keep every rule.

For tests of whatever reads such trees: each file has the names and keys of the reference tool, and all numbers follow
from the tables and formulas of the rules. Nothing was measured: never take such a tree for a result.
"""

import json
import statistics
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import yaml

from stoker.bench.rules.mlperf.tables import models
from stoker.testing import mlperf_documents as made

START: Final = datetime(2026, 3, 2, 10, 0, 0)
RUN_SECONDS: Final = 446.0
PAUSE_SECONDS: Final = 20.0
CONFIG_FILES: Final = ("config.yaml", "hydra.yaml", "overrides.yaml")
_DUMPER: Final[Any] = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


class TreeMaker:
    """Writes a tree under `root`; call the families that it should hold, then `finish`."""

    def __init__(
        self,
        root: Path,
        *,
        edition: str = "3.0",
        org: str = "example",
        memory_gib: float = 256.0,
        gated: bool = False,
    ) -> None:
        """With `gated` the runs keep a record of the gates before them, as this project's own do."""
        self.root = root
        self.gated = gated
        self.edition = edition
        self.org = org
        self.memory_gib = memory_gib
        self._systems: dict[tuple[str, str], bool] = {}
        self._runs: dict[str, list[str]] = {}
        self._clock = START

    def submitter(self, division: str) -> Path:
        """Return the submitter's folder in a division, `closed` or `open`."""
        name = division if self.edition == "3.0" else division.capitalize()
        return self.root / name / self.org

    def _results(self, division: str, system: str) -> Path:
        self._systems.setdefault((division, system), True)
        return self.submitter(division) / "results" / system

    def training(
        self,
        division: str,
        system: str,
        model: str = "unet3d",
        accelerator: str = "b200",
        *,
        accelerators: int = 8,
        hosts: int = 1,
        runs: int = 6,
    ) -> Path:
        """Write a training result: datasize, datagen, `runs` runs and the rollup. Return the model's folder."""
        folder = self._results(division, system) / "training" / model
        files = made.training_files(
            model, accelerator, accelerators=accelerators, hosts=hosts, memory_gib=self.memory_gib
        )
        facts = {"division": division, "model": model, "accelerator": accelerator, "accelerators": accelerators}
        facts |= {"hosts": hosts, "files": files, "subfolders": files // 10_000}
        self._training_leaf(folder, "datasize", facts)
        self._training_leaf(folder, "datagen", facts)
        summaries = [self._training_leaf(folder, "run", {**facts, "number": number}) for number in range(runs)]
        bandwidth = statistics.fmean(each["metric"]["train_io_mean_MB_per_second"] for each in summaries[1:])
        row = {"Organization": self.org, "Model": model, "# Simulated Accelerators": accelerators}
        self._rollup(folder, {**row, "Read B/W (GiB/s)": round(bandwidth / 1024, 4)})
        return folder

    def _training_leaf(self, folder: Path, command: str, facts: dict[str, Any]) -> dict[str, Any]:
        moment = self._tick()
        leaf = folder / command / made.stamp(moment)
        model, accelerator, hosts = facts["model"], facts["accelerator"], facts["hosts"]
        entry = models().training[model]
        dataset = {"num_files_train": facts["files"], "num_subfolders_train": facts["subfolders"]}
        dataset["total_disk_bytes"] = round(facts["files"] * entry.file_bytes)
        args: dict[str, Any] = {"mode": facts["division"], "accelerator_type": accelerator, "data_dir": "/mnt/data"}
        args["max_accelerators" if command == "datasize" else "num_accelerators"] = facts["accelerators"]
        document = made.metadata(
            "training",
            model,
            command,
            moment,
            accelerator=accelerator,
            processes=facts["accelerators"],
            args=args,
            parameters={"dataset": dataset},
            override_parameters={"dataset.num_files_train": str(facts["files"])} if command == "run" else {},
            hosts=hosts,
            memory_gib=self.memory_gib,
        )
        config = made.training_config(model, accelerator, facts["files"], facts["subfolders"])
        self._leaf(leaf, "training", command, moment, document, config if command != "datasize" else None)
        if command != "run":
            return {}
        summary = made.training_summary(
            model,
            accelerator,
            accelerators=facts["accelerators"],
            hosts=hosts,
            memory_gib=self.memory_gib,
            files=facts["files"],
            speed=1 + 0.002 * (facts["number"] % 3 - 1),
        )
        self._ran(leaf, summary, moment, "/mnt/data")
        return summary

    def checkpointing(
        self, division: str, system: str, model: str = "llama3-8b", *, hosts: int = 1, split: bool = False
    ) -> Path:
        """Write a checkpointing result: one invocation, or a writing and a reading one. Return the model's folder."""
        folder = self._results(division, system) / "checkpointing" / model
        entry = models().checkpointing[model]
        summaries = []
        for writes, reads in [(10, 0), (0, 10)] if split else [(10, 10)]:
            moment = self._tick()
            leaf = folder / made.stamp(moment)
            args: dict[str, Any] = {
                "mode": division,
                "accelerator_type": "b200",
                "checkpoint_folder": "/mnt/checkpoints",
            }
            args |= {"num_checkpoints_write": writes, "num_checkpoints_read": reads, "checkpoint_subset": False}
            document = made.metadata(
                "checkpointing",
                model,
                "run",
                moment,
                accelerator="b200",
                processes=entry.processes,
                args=args,
                override_parameters={"checkpoint.checkpoint_folder": "/mnt/checkpoints"},
                hosts=hosts,
                memory_gib=self.memory_gib,
            )
            config = made.checkpoint_config(model, writes=writes, reads=reads)
            self._leaf(leaf, "checkpointing", "run", moment, document, config)
            summary = made.checkpoint_summary(model, hosts=hosts, writes=writes, reads=reads)
            self._ran(leaf, summary, moment, "/mnt/checkpoints")
            summaries.append(summary["metric"])
        self._rollup(folder, _checkpoint_row(self.org, model, summaries))
        return folder

    def vector_database(
        self, division: str, system: str, index: str = "DISKANN", *, engine: str = "milvus", runs: int = 5
    ) -> Path:
        """Write a vector-database result. Return the index's folder."""
        folder = self._results(division, system) / "vector_database" / engine / index
        for command in ("datasize", "datagen", *["run"] * runs):
            moment = self._tick()
            leaf = folder / command / made.stamp(moment)
            args: dict[str, Any] = {"mode": division, "dimension": 1536, "num_vectors": 1_000_000, "vector_dim": 1536}
            args |= {"vdb_engine": "milvus", "storage_root": "/mnt/vectors", "storage_type": "file"}
            document = made.metadata("vectordb", index, command, moment, processes=1, args=args)
            self._leaf(leaf, "vector_database", command, moment, document, None)
            if command == "run":
                figures = made.vector_figures(index, 1_000_000, 1536)
                self._json(leaf / "statistics.json", figures)
                self._json(leaf / "config.json", {"index": {"index_type": index}})
                self._json(leaf / "recall_stats.json", figures["recall"])
                (leaf / "milvus_benchmark_p0.csv").write_text("timestamp,latency_ms\n")
                (leaf / "recall_hits_p0.jsonl").write_text("")
                setup = {"ok": True, "coverage": 1.0, "total_vectors": 1_000_000, "copied_vectors": 1_000_000}
                self._json(leaf / "result_verdict.json", {"result": "valid", "valid": True, "flat_setup": setup})
                self._ran(leaf, figures, moment, "/mnt/vectors")
        return folder

    def kv_cache(
        self, division: str, system: str, model: str = "llama3.1-8b", *, hosts: int = 1, per_node: int = 2
    ) -> Path:
        """Write a KV-cache result: three options, three trials each. Return the model's folder."""
        folder = self._results(division, system) / "kv_cache" / model
        self._tick()
        moment = self._tick()
        leaf = folder / "run" / made.stamp(moment)
        args: dict[str, Any] = {
            "mode": division,
            "cache_dir": "/mnt/cache",
            "npernode": per_node,
            "num_processes": hosts * per_node,
            **made.KV_DEFAULTS,
        }
        document = made.metadata("kvcache", model, "run", moment, processes=hosts * per_node, args=args, hosts=hosts)
        document["command_output_files"] = made.kv_commands(str(leaf.relative_to(self.root)))
        self._leaf(leaf, "kv_cache", "run", moment, document, None)
        self._gates(leaf, "/mnt/cache", hosts)
        trials = models().kv_cache.trials
        self._json(leaf / "summary.json", made.kv_summary(moment, hosts=hosts, per_node=per_node, trials=trials))
        for option in models().kv_cache.options:
            for trial in range(1, trials + 1):
                for rank in range(hosts * per_node):
                    place = leaf / f"option_{option}" / f"trial_{trial}" / f"rank_{rank}"
                    self._json(place / f"kvcache_results_{made.stamp(moment)}.json", made.kv_rank(rank, trial))
        return folder

    def v1_training(
        self, division: str, system: str, model: str = "unet3d", accelerator: str = "h100", *, accelerators: int = 8
    ) -> Path:
        """Write a training result as edition 1.0 has it: five runs and a report. Return the result's folder."""
        folder = self._results(division, system) / f"{model}-{accelerator}"
        files = made.training_files(model, accelerator, accelerators=accelerators, hosts=1, memory_gib=self.memory_gib)
        summaries = []
        for number in range(1, 6):
            leaf = folder / f"run{number}" / "client01"
            summary = made.training_summary(
                model,
                accelerator,
                accelerators=accelerators,
                hosts=1,
                memory_gib=self.memory_gib,
                files=files,
                speed=1 + 0.002 * (number % 3 - 1),
            )
            moment = self._tick()
            self._config(leaf / "configs", made.training_config(model, accelerator, files, 0))
            self._json(leaf / "0_output.json", {})
            self._json(leaf / "per_epoch_stats.json", {})
            (leaf / "dlio.log").write_text("engine\n")
            self._json(leaf / "summary.json", _timed(summary, moment))
            summaries.append(summary["metric"])
        self._json(folder / "mlperf_storage_report.json", _v1_report(model, accelerator, accelerators, summaries))
        return folder

    def finish(self) -> Path:
        """Write what lies beside the results: descriptions, manifests, the code, the mark of the root."""
        if self.edition == "3.0":
            self._yaml(
                self.root / "mlperf-results.yaml",
                {"mlperf_results_version": 2, "orgname": self.org, "initialized_at": "2026-03-02T09:00:00+00:00"},
            )
            pool = self.root / "code-images"
            image = pool / f"code-{made.CODE_DIGEST[:8]}"
            image.mkdir(parents=True, exist_ok=True)
            (pool / ".mlps-image-pool").write_text("")
            (image / "main.py").write_text("print('the tool')\n")
            digest = {"hash": made.CODE_DIGEST, "algorithm": "md5", "captured_at": "2026-03-02T09:00:00"}
            self._json(image / ".code-hash.json", {**digest, "mlpstorage_version": "3.0.2", "git_sha": "unknown"})
        for division, system in self._systems:
            self._system(division, system)
        for division in {division for division, _ in self._systems}:
            if self.edition == "3.0":
                self._manifest(division)
            else:
                code = self.submitter(division) / "code"
                code.mkdir(parents=True, exist_ok=True)
                (code / "main.py").write_text("print('the tool')\n")
        return self.root

    def _system(self, division: str, system: str) -> None:
        folder = self.submitter(division) / "systems"
        if self.edition == "1.0":
            self._json(folder / f"{system}.json", made.system_description_v1(system))
        else:
            describe = made.system_description if self.edition == "3.0" else made.system_description_v2
            self._yaml(folder / f"{system}.yaml", describe(system))
        (folder / f"{system}.pdf").write_bytes(b"%PDF-1.4\n")

    def _manifest(self, division: str) -> None:
        self._yaml(
            self.submitter(division) / "submission.yaml",
            {
                "schema": "mlps-submission-manifest/1",
                "org": self.org,
                "division": division,
                "edition": "3.0",
                "layout": 3,
                "tool": made.TOOL,
                "versions": {"tool": [made.TOOL["version"]], "dlio": [made.ENGINE_VERSION]},
                "systems": sorted(system for where, system in self._systems if where == division),
                "runs": sorted(self._runs.get(division, [])),
                "code_images": [made.TOOL["code_image"]],
            },
        )

    def _tick(self) -> datetime:
        """Return when the next invocation starts; it follows the one before without room for another."""
        moment = self._clock
        self._clock = made.later(moment, RUN_SECONDS + PAUSE_SECONDS)
        return moment

    def _leaf(
        self,
        leaf: Path,
        family: str,
        command: str,
        moment: datetime,
        document: dict[str, Any],
        config: dict[str, Any] | None,
    ) -> None:
        leaf.mkdir(parents=True)
        for stream in ("stdout", "stderr"):
            (leaf / f"{family}_{command}.{stream}.log").write_text("")
        self._json(leaf / f"{family}_{made.stamp(moment)}_metadata.json", document)
        if config is not None:
            self._config(leaf / "dlio_config", config)
        if self.edition == "3.0":
            self._json(leaf / "provenance.json", made.provenance(family, config))
            (leaf / ".mlps-code-image").write_text(f"{made.TOOL['code_image']}\n")
            if command == "run":
                division = document["args"]["mode"]
                path = leaf.relative_to(self.submitter(division)).as_posix()
                self._runs.setdefault(division, []).append(path)

    def _ran(self, leaf: Path, summary: dict[str, Any], moment: datetime, target: str) -> None:
        """Write what only a run leaves behind."""
        self._json(leaf / "summary.json", _timed(summary, moment))
        self._json(leaf / "0_output.json", {})
        self._json(leaf / "0_per_epoch_stats.json", {})
        (leaf / "dlio.log").write_text("engine\n")
        if self.edition == "3.0":
            self._json(leaf / "fs_separation.json", made.separation(target))
        self._gates(leaf, target, int(summary.get("num_hosts", 1)))

    def _gates(self, leaf: Path, target: str, hosts: int) -> None:
        if self.gated:
            self._json(leaf / "gates.json", made.gates(target, hosts=hosts, needed_bytes=1 << 40))
            self._json(leaf / "fs_separation.json", made.separation(target))

    def _config(self, folder: Path, config: dict[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._yaml(folder / "config.yaml", {"workload": config})
        self._yaml(folder / "hydra.yaml", {"hydra": {"run": {"dir": "out"}}})
        dataset = config.get("dataset")
        words = [f"++workload.dataset.num_files_train={dataset['num_files_train']}"] if dataset else []
        self._yaml(folder / "overrides.yaml", ["workload=shipped", *words])

    def _rollup(self, folder: Path, row: dict[str, Any]) -> None:
        if self.edition == "3.0":
            self._json(folder / "results.json", [row])
            (folder / "results.csv").write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")

    @staticmethod
    def _json(path: Path, document: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1))

    @staticmethod
    def _yaml(path: Path, document: Any) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.dump(document, Dumper=_DUMPER, sort_keys=False))


def _timed(summary: dict[str, Any], moment: datetime) -> dict[str, Any]:
    """Return the summary with the engine's own start and end: a little after the tool's start."""
    start, end = made.later(moment, 12.5), made.later(moment, RUN_SECONDS)
    return {"start": start.isoformat(), "end": end.isoformat(), **summary}


def _checkpoint_row(org: str, model: str, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    merged = {key: value for each in metrics for key, value in each.items()}
    return {
        "Organization": org,
        "Model": model,
        "Write B/W (GiB/s)": merged["save_checkpoint_io_mean_GB_per_second"],
        "Write Duration (secs)": merged["save_checkpoint_duration_mean_seconds"],
        "Read B/W (GiB/s)": merged["load_checkpoint_io_mean_GB_per_second"],
        "Read Duration (secs)": merged["load_checkpoint_duration_mean_seconds"],
    }


def _v1_report(model: str, accelerator: str, accelerators: int, metrics: list[dict[str, Any]]) -> dict[str, Any]:
    rates = [each["train_throughput_mean_samples_per_second"] for each in metrics]
    rates_mib = [each["train_io_mean_MB_per_second"] for each in metrics]
    return {
        "overall": {
            "model": model,
            "accelerator": accelerator,
            "num_benchmark_runs": len(metrics),
            "train_num_accelerators": str(accelerators),
            "train_throughput_mean_samples_per_second": statistics.fmean(rates),
            "train_throughput_mean_MB_per_second": statistics.fmean(rates_mib),
        },
        "runs": {},
    }
