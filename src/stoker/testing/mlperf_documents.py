"""The documents of MLPerf Storage leaves and packages, with numbers that agree with each other."""

import statistics
from datetime import datetime, timedelta
from typing import Any, Final

from stoker.bench.rules.mlperf.formulas import checkpoint_bytes, core_hash, files_needed
from stoker.bench.rules.mlperf.tables import models
from stoker.core.units import GiB, MiB

UTILISATION: Final = 0.974
HOST_CORES: Final = 64
CODE_DIGEST: Final = "0123456789abcdef0123456789abcdef"
ENGINE_VERSION: Final = "3.0.0"
TOOL: Final[dict[str, Any]] = {
    "name": "mlpstorage",
    "version": "3.0.2",
    "git_sha": "unknown",
    "code_image": f"code-{CODE_DIGEST[:8]}",
}


def stamp(moment: datetime) -> str:
    """Return a moment as a leaf's folder is named."""
    return moment.strftime("%Y%m%d_%H%M%S")


def training_files(model: str, accelerator: str, *, accelerators: int, hosts: int, memory_gib: float) -> int:
    """Return the files that datasize asks for."""
    entry = models().training[model]
    batch = entry.accelerators[accelerator].batch_size
    return max(files_needed(entry, accelerators=accelerators, batch_size=batch, memory_bytes=hosts * memory_gib * GiB))


def training_config(model: str, accelerator: str, files: int, subfolders: int) -> dict[str, Any]:
    """Return the resolved workload of a training run."""
    entry = models().training[model]
    kind = entry.accelerators[accelerator]
    return {
        "model": {"name": model, "type": "cnn"},
        "framework": entry.framework,
        "workflow": {"generate_data": False, "train": True, "checkpoint": False},
        "dataset": {
            "data_folder": f"/mnt/data/{model}",
            "format": entry.format,
            "num_files_train": files,
            "num_subfolders_train": subfolders,
            "num_samples_per_file": entry.samples_per_file,
            "record_length_bytes": entry.record_length_bytes,
            "record_length_bytes_stdev": entry.record_length_stdev_bytes,
        },
        "reader": {
            "data_loader": entry.data_loader,
            "batch_size": kind.batch_size,
            "read_threads": 4,
            "file_shuffle": "seed",
            "sample_shuffle": "seed",
        },
        "train": {"epochs": entry.epochs, "computation_time": kind.computation_seconds},
        "metric": {"au": entry.au_threshold_ratio},
    }


def training_summary(
    model: str, accelerator: str, *, accelerators: int, hosts: int, memory_gib: float, files: int, speed: float = 1.0
) -> dict[str, Any]:
    """Return summary.json of a training run without its times; `speed` scales the utilisation of the run."""
    entry = models().training[model]
    kind = entry.accelerators[accelerator]
    demand = accelerators * kind.batch_size / kind.computation_seconds
    ratios = [UTILISATION * speed * (1 + 0.001 * (epoch % 3 - 1)) for epoch in range(entry.epochs)]
    aus, rates = [100 * ratio for ratio in ratios], [demand * ratio for ratio in ratios]
    mean = statistics.fmean(rates)
    per_second = entry.record_length_bytes / MiB
    return {
        "num_accelerators": accelerators,
        "num_hosts": hosts,
        "hostname": "client01",
        "metric": {
            "train_au_percentage": aus,
            "train_au_mean_percentage": statistics.fmean(aus),
            "train_au_meet_expectation": "success",
            "train_au_stdev_percentage": statistics.pstdev(aus),
            "train_throughput_samples_per_second": rates,
            "train_throughput_mean_samples_per_second": mean,
            "train_throughput_stdev_samples_per_second": statistics.pstdev(rates),
            "train_io_mean_MB_per_second": mean * per_second,
            "train_io_stdev_MB_per_second": statistics.pstdev(rates) * per_second,
        },
        "num_files_train": files,
        "num_files_eval": 0,
        "num_samples_per_file": entry.samples_per_file,
        "epochs": entry.epochs,
        "host_cpu_count": [HOST_CORES] * hosts,
        "host_processor_name": "x86_64",
        "potential_caching": [False] * hosts,
        "host_memory_GB": [memory_gib] * hosts,
        "data_size_per_host_GB": files * entry.file_bytes / GiB / hosts,
    }


def checkpoint_config(model: str, *, writes: int, reads: int) -> dict[str, Any]:
    """Return the resolved workload of a checkpointing run."""
    entry = models().checkpointing[model]
    return {
        "model": {
            "name": model.replace("llama3-", "llama_"),
            "type": "transformer",
            "num_layers": entry.layers,
            "model_datatype": "fp16",
            "optimizer_datatype": "fp32",
            "parallelism": {"tensor": entry.tensor, "pipeline": entry.pipeline, "zero_stage": entry.zero_stage},
            "transformer": {
                "vocab_size": entry.vocab_size,
                "hidden_size": entry.hidden_size,
                "ffn_hidden_size": entry.ffn_hidden_size,
                "num_attention_heads": entry.attention_heads,
                "num_kv_heads": entry.kv_heads,
            },
        },
        "framework": "pytorch",
        "workflow": {"generate_data": False, "train": False, "checkpoint": True},
        "checkpoint": {
            "checkpoint_folder": f"/mnt/checkpoints/{model}",
            "time_between_checkpoints": 5,
            "num_checkpoints_write": writes,
            "num_checkpoints_read": reads,
            "fsync": True,
            "mode": "default",
        },
    }


def checkpoint_summary(model: str, *, hosts: int, writes: int, reads: int) -> dict[str, Any]:
    """Return summary.json of a checkpointing run without its times."""
    entry = models().checkpointing[model]
    size = checkpoint_bytes(entry) / GiB
    metric: dict[str, Any] = {"checkpoint_size_GB": size}
    for count, way, speed in ((writes, "save", 15.9), (reads, "load", 17.8)):
        if count:
            metric[f"{way}_checkpoint_io_mean_GB_per_second"] = speed
            metric[f"{way}_checkpoint_io_stdev_GB_per_second"] = 0.2
            metric[f"{way}_checkpoint_duration_mean_seconds"] = size / speed
            metric[f"{way}_checkpoint_duration_stdev_seconds"] = 0.1
    return {"num_accelerators": entry.processes, "num_hosts": hosts, "hostname": "client01", "metric": metric}


def metadata(
    benchmark: str, model: str, command: str, moment: datetime, *, accelerator: str = "", processes: int, **more: Any
) -> dict[str, Any]:
    """Return a leaf's metadata; `more` may hold args, parameters, override_parameters, hosts and memory_gib."""
    hosts, memory_gib = more.get("hosts", 1), more.get("memory_gib", 256.0)
    names = [f"client{number:02d}" for number in range(1, hosts + 1)]
    memory = int(memory_gib * GiB)
    args = {
        "hosts": names,
        "num_client_hosts": hosts,
        "client_host_memory_in_gb": memory_gib,
        "results_dir": "/home/user/results",
        **more.get("args", {}),
    }
    return {
        "benchmark_type": benchmark,
        "model": model,
        "command": command,
        "run_datetime": stamp(moment),
        "num_processes": processes,
        "accelerator": accelerator,
        "parameters": more.get("parameters", {}),
        "override_parameters": more.get("override_parameters", {}),
        "args": args,
        "executed_command": f"mpirun -n {processes} engine",
        "exit_status": 0,
        "runtime": 446.2,
        "invocation_start_time": moment.isoformat(),
        "provenance_file": "provenance.json",
        "system_info": {
            "num_hosts": hosts,
            "total_cores": HOST_CORES * hosts,
            "total_memory_bytes": memory * hosts,
            "collection_method": "mpi",
            "hosts": [
                {
                    "hostname": name,
                    "memory": {"total": memory},
                    "cpu": {"num_cores": HOST_CORES // 2, "num_logical_cores": HOST_CORES, "architecture": "x86_64"},
                    "disks": [],
                }
                for name in names
            ],
        },
    }


def separation(target: str) -> dict[str, Any]:
    """Return fs_separation.json of two file systems."""
    return {
        "version": 1,
        "method": "link_exdev",
        "data_or_chkpt_path": target,
        "results_path": "/home/user/results",
        "data_or_chkpt_realpath": target,
        "results_realpath": "/home/user/results",
        "same_filesystem": False,
        "probed_at": "2026-03-02T10:14:52",
        "probed_by_rank": 0,
        "probed_by_host": "client01",
    }


def gates(target: str, *, hosts: int, needed_bytes: int) -> dict[str, Any]:
    """Return gates.json of a run that all gates let pass."""
    seen = {f"client{number + 1:02d}": {"device": 51, "inode": 4711, "same_content": True} for number in range(hosts)}
    space = {"available_bytes": 2 * needed_bytes, "required_bytes": needed_bytes, "deficit_bytes": 0}
    facts = {"CAP-01": space, "CAP-02": {"path": target, "seen": seen}, "CAP-03": {"same_filesystem": False}}
    return {
        "version": 1,
        "target": target,
        "results": "/home/user/results",
        "via": "ssh" if hosts > 1 else "local",
        "hosts": list(seen),
        "checked_at": "2026-03-02T10:14:52",
        "gates": [
            {"id": rule, "state": "passed", "observed": "as it should be", "facts": facts[rule]} for rule in facts
        ],
    }


def provenance(family: str, config: dict[str, Any] | None) -> dict[str, Any]:
    """Return provenance.json; without a configuration its hash is unknown."""
    known = config is not None and family in ("training", "checkpointing")
    return {
        "schema": "mlps-run-provenance/1",
        "rules_edition": "3.0",
        "layout_version": 3,
        "tool": TOOL,
        "dlio": {"version": ENGINE_VERSION, "source": "unknown", "commit": "unknown"},
        "storage_library": {"name": "unknown", "version": "unknown"},
        "core_config": {
            "algorithm": "core-config-v1",
            "allowlist": f"{family}@1" if known else "unknown",
            "hash": core_hash(family, config) if known and config is not None else "unknown",
            "keys": "unknown",
        },
        "stamped_at": "2026-03-02T10:14:52",
        "stamped_by": "mlpstorage",
        "provenance": {"tool.version": "package-metadata", "rules_edition": "tool-constant"},
    }


_SUPPLIES: Final[dict[str, Any]] = {
    "min_psus_active": 1,
    "psus_configured": [
        {"unit_count": 2, "inlet_voltage": 230, "nameplate_power_watts": 1600, "efficiency": "Titanium"}
    ],
}


def _node() -> dict[str, Any]:
    return {
        "friendly_description": "controller",
        "quantity": 2,
        "chassis": {
            "model_name": "X-2000",
            "rack_units": 2,
            "cpu_model": "Example 9000",
            "cpu_qty": 2,
            "cpu_cores": 64,
            "memory_capacity": 512,
            "power": _SUPPLIES,
        },
        "networking": [{"unit_count": 2, "type": "ethernet", "state": "up", "speed": 400, "traffic": ["data"]}],
        "drives": [
            {
                "unit_count": 24,
                "vendor_name": "Example",
                "model_name": "N1",
                "interface": "nvme",
                "media_type": "TLC",
                "capacity_in_GB": 7680,
                "performance": {"seq_read_MBps": 14000, "form_factor": "E3.S", "interface_speed": "Gen5x4"},
            }
        ],
        "operating_system": {"name": "Linux", "version": "6.8"},
        "environment": [],
        "sysctl": [{"name": "vm.dirty_ratio", "value": "20"}],
    }


def _switch() -> dict[str, Any]:
    return {
        "unit_count": 1,
        "vendor_name": "Example",
        "model_name": "S64",
        "rack_units": 1,
        "ports": [],
        "configuration": [],
        "power": _SUPPLIES,
    }


def system_description(name: str, *, multi_host: bool = True) -> dict[str, Any]:
    """Return the description of a remote system on premises that keeps every rule."""
    architecture = {
        "storage_location": "remote",
        "benchmark_API": "file",
        "product_API": "file",
        "client_footprint": "open_source",
        "client_installation": "in_box",
    }
    capabilities = {
        "multi_host": multi_host,
        "simultaneous_write": True,
        "simultaneous_read": True,
        "remap_time_in_seconds": 0,
    }
    solution = {
        "submission_name": name,
        "friendly_description": "Two-node flash filer",
        "architecture": architecture,
        "capabilities": capabilities,
        "usable_capacity_tib": 180.5,
        "availability": "available",
    }
    return {
        "system_under_test": {
            "solution": solution,
            "deployment": "onprem",
            "total_rack_units": 5,
            "rack_power_supplies": [],
            "product_nodes": [_node()],
            "product_switches": [_switch()],
            "clients": [],
        }
    }


def system_description_v2(name: str) -> dict[str, Any]:
    """Return a description as edition 2.0 has it."""
    hardware = {"model": "X-2000", "rack_units": 2, "power_supplies": 2, "psu_configuration": "active/passive"}
    power = {"quantity": 2, "psu1_nameplate_power": 1600, "psu2_nameplate_power": 1600, "design_power": 1600}
    return {
        "System": {"name": name, "description": "Two-node flash filer", "type": "parallel-filesystem"},
        "Nodes": {
            "storage_node": {
                "quantity": 2,
                "hardware": {**hardware, "memory_capacity": 512, "cpu_qty": 2, "cpu_model": "Example 9000"},
                "networking": {"data": {"model": "N400", "speed": 400, "qty": 2}},
                "operating_system": {"name": "Linux", "version": "6.8"},
            }
        },
        "PowerRequirements": {"storage_node": {**power, "num_active_psus": 1, "num_passive_psus": 1}},
    }


def system_description_v1(name: str) -> dict[str, Any]:
    """Return a description as edition 1.0 has it."""
    return {
        "networks": [{"type": "ethernet"}],
        "nodes": [{"CPU": "Example 9000", "DRAM": 512, "nic_ports": 2, "drives": 24}],
        "benchmark_hosts": [{"count": 1}],
        "storage_system": {
            "vendor_name": "Example",
            "solution_name": name,
            "usable_capacity_GiB": 180_000,
            "raw_capacity_GiB": 200_000,
        },
    }


# What the tool's parser fills in although closed never uses it.
KV_DEFAULTS: Final[dict[str, Any]] = {
    "gpu_mem_gb": 16.0,
    "cpu_mem_gb": 32.0,
    "duration": 60,
    "generation_mode": "realistic",
    "enable_rag": True,
    "enable_autoscaling": True,
    "seed": 42,
    "trials": 3,
    "inter_option_delay": 90,
}


def kv_commands(leaf: str) -> list[dict[str, str]]:
    """Return the command lines of the engine: three options, three trials each."""
    found = []
    for option, entry in models().kv_cache.options.items():
        given = f"--model {entry.model} --num-users {entry.users} --duration {entry.duration_seconds}"
        given += f" --gpu-mem-gb {entry.gpu_memory_gb} --cpu-mem-gb {entry.cpu_memory_gb}"
        given += f" --max-concurrent-allocs {entry.concurrent_allocs} --generation-mode {entry.generation}"
        for trial in range(1, models().kv_cache.trials + 1):
            place = f"--rank-output-base /results/{leaf}/option_{option}/trial_{trial} --rank-cache-base /mnt/cache"
            command = f"mpirun -n 2 python3 mlperf_wrapper.py {place} --seed-base 42 {given}"
            found.append({"command": command, "stdout": f"kvcache_opt{option}_trial{trial}.stdout.log"})
    return found


def kv_rank(rank: int, trial: int) -> dict[str, Any]:
    """Return a rank's output; ranks and trials differ a little."""
    shift = 1 + 0.01 * rank + 0.02 * trial
    return {
        "requests": [{"latency_ms": 12.5}],
        "summary": {
            "total_requests": 1000,
            "storage_throughput_tokens_per_sec": 2000 * shift,
            "cache_stats": {
                "tier_storage_read_bandwidth_gbps": 6.7 * shift,
                "tier_storage_write_bandwidth_gbps": 1.4 * shift,
                "storage_read_device_p95_ms": 90 * shift,
                "storage_write_device_p95_ms": 120 * shift,
                "storage_entries": 400,
            },
        },
    }


def kv_summary(moment: datetime, *, hosts: int, per_node: int, trials: int) -> dict[str, Any]:
    """Return summary.json of a KV-cache run, aggregated from the ranks' outputs."""
    total = hosts * per_node
    outputs = [[kv_rank(rank, trial)["summary"] for rank in range(total)] for trial in range(1, trials + 1)]

    def summed(*keys: str) -> float:
        return statistics.fmean(sum(_under(rank, keys) for rank in ranks) for ranks in outputs)

    def largest(key: str) -> float:
        return max(_under(rank, ("cache_stats", key)) for ranks in outputs for rank in ranks)

    figures = {
        "aggregated_read_bandwidth_gbps": summed("cache_stats", "tier_storage_read_bandwidth_gbps"),
        "aggregated_write_bandwidth_gbps": summed("cache_stats", "tier_storage_write_bandwidth_gbps"),
        "aggregated_storage_throughput_tokens_per_sec": summed("storage_throughput_tokens_per_sec"),
        "aggregated_device_read_p95_ms": largest("storage_read_device_p95_ms"),
        "aggregated_device_write_p95_ms": largest("storage_write_device_p95_ms"),
        "rank_count": total,
        "trial_count": trials,
        "partial_failure": False,
        "missing_files": [],
        "cpu_tier_ranks": [],
    }
    return {
        "schema_version": "1.0",
        "run_datetime": stamp(moment),
        "npernode": per_node,
        "host_count": hosts,
        "total_ranks": total,
        "trials_per_option": trials,
        "options": {option: {"option": int(option), **figures} for option in models().kv_cache.options},
        "partial_failure": False,
        "trial_failures": {},
    }


def _under(document: dict[str, Any], keys: tuple[str, ...]) -> float:
    found: Any = document
    for key in keys:
        found = found[key]
    return float(found)


def vector_figures(index: str, vectors: int, dimension: int) -> dict[str, Any]:
    """Return the figures of a search, as statistics.json and summary.json hold them."""
    return {
        "total_queries": 8600,
        "throughput_qps": 143.2,
        "mean_latency_ms": 6.9,
        "p95_latency_ms": 7.5,
        "p99_latency_ms": 7.9,
        "p999_latency_ms": 9.1,
        "recall": {"recall_at_k": 0.95, "mean_recall": 0.95, "k": 10, "num_queries_evaluated": 1000},
        "num_vectors": vectors,
        "dimension": dimension,
        "index_type": index,
        "database": "milvus",
    }


def later(moment: datetime, seconds: float) -> datetime:
    """Return the moment `seconds` later."""
    return moment + timedelta(seconds=seconds)
