"""Sizes of all families: the worked values of the rules' text, what binds, and requests that no job can hold."""

import pytest

from stoker.bench.rules.mlperf.sizing import (
    checkpoint_size,
    kv_option_size,
    kv_size,
    training_size,
    vector_size,
)
from stoker.bench.rules.mlperf.tables import models
from stoker.core.errors import UnknownNameError, UsageError
from stoker.core.units import GiB

WORKED = [  # model, accelerator, hosts, GiB of memory each, accelerators; files by bytes and by steps, GiB
    ("unet3d", "b200", 1, 512, 8, 18_751, 28_000, 3_822.9),
    ("unet3d", "b200", 4, 256, 64, 37_501, 224_000, 30_583.3),
    ("retinanet", "b200", 1, 512, 8, 8_511_285, 96_000, 2_560.0),
    ("retinanet", "b200", 1, 377, 40, 6_267_099, 480_000, 1_885.0),
    ("resnet50", "h100", 2, 128, 16, 9_582, 2_558, 1_280.0),
    ("cosmoflow", "h100", 2, 128, 16, 485_910, 8_000, 1_280.0),
]


@pytest.mark.parametrize("worked", WORKED, ids=lambda worked: f"{worked[0]}-{worked[2]}x{worked[3]}")
def test_training_sizes(worked) -> None:
    model, kind, hosts, memory, accelerators, by_bytes, by_steps, gib = worked
    files = max(by_bytes, by_steps)
    size = training_size(model, kind, accelerators=accelerators, hosts=hosts, memory_bytes_per_host=memory * GiB)
    assert (size.files_by_bytes, size.files_by_steps, size.files) == (by_bytes, by_steps, files)
    assert size.total_bytes / GiB == pytest.approx(gib, abs=0.15)
    assert size.bound == ("bytes" if by_bytes > by_steps else "steps")
    assert size.sentence.startswith(f"{files:,} files")
    first = "5 times the clients' memory" if by_bytes > by_steps else "500 steps an epoch"
    assert size.sentence.split(": ")[1].startswith(first)
    assert size.subfolders == (files // 10_000 if files > 10_000 else 0)


def test_every_template_can_be_sized() -> None:
    for name, model in models().training.items():
        for kind in model.accelerators:
            size = training_size(name, kind, accelerators=2, hosts=1, memory_bytes_per_host=64 * GiB)
            assert size.total_bytes >= 5 * 64 * GiB
            assert size.samples >= 500 * 2 * model.accelerators[kind].batch_size


@pytest.mark.parametrize(
    ("measured_ratio", "counts_ratio", "told"),
    [(0.97, 1.0, ""), (1.04, 1.0, ""), (1.2, 1.2, "the measured ones count"), (0.5, 1.0, "the declared ones count")],
)
def test_declared_and_measured_memory(measured_ratio: float, counts_ratio: float, told: str) -> None:
    declared = 2 * 512 * GiB
    size = training_size(
        "retinanet",
        "b200",
        accelerators=8,
        hosts=2,
        memory_bytes_per_host=512 * GiB,
        measured_memory_bytes=measured_ratio * declared,
    )
    assert size.memory_bytes == pytest.approx(counts_ratio * declared)
    assert any(told in note for note in size.notes) if told else not any("measured" in note for note in size.notes)


@pytest.mark.parametrize(
    ("model", "processes", "model_gib", "optimizer_gib", "files"),
    [
        ("llama3-8b", 8, 14.96, 89.75, 16),
        ("llama3-70b", 64, 130.18, 781.03, 128),
        ("llama3-405b", 512, 756.01, 4_536.23, 1_544),
        ("llama3-1t", 1_024, 2_203.66, 13_222.93, 2_072),
    ],
)
def test_checkpoint_sizes(model, processes, model_gib, optimizer_gib, files) -> None:
    size = checkpoint_size(model, processes=processes, hosts=8)
    assert size.model_bytes / GiB == pytest.approx(model_gib, abs=0.01)
    assert size.optimizer_bytes / GiB == pytest.approx(optimizer_gib, abs=0.01)
    assert size.checkpoint_bytes == size.model_bytes + size.optimizer_bytes
    assert size.files == files
    assert size.written_bytes == pytest.approx(10 * size.checkpoint_bytes)
    assert size.written_bytes_per_host == pytest.approx(size.written_bytes / 8)


def test_checkpoint_memory_follows_the_zero_stage() -> None:
    sharded = checkpoint_size("llama3-70b", processes=64, hosts=8)
    assert sharded.rank_bytes_first == sharded.rank_bytes_others == pytest.approx(sharded.checkpoint_bytes / 64)
    assert sharded.host_bytes == pytest.approx((8 * sharded.rank_bytes_others,) * 8)
    first = checkpoint_size("llama3-405b", processes=512, hosts=64)
    assert first.rank_bytes_others == pytest.approx(first.optimizer_bytes / 512)
    assert first.rank_bytes_first == pytest.approx(first.model_bytes + first.optimizer_bytes / 512)
    assert first.host_bytes[0] == pytest.approx(first.model_bytes + 8 * first.optimizer_bytes / 512)
    assert first.host_bytes[1] == pytest.approx(8 * first.optimizer_bytes / 512)
    assert sum(first.host_bytes) == pytest.approx(first.checkpoint_bytes)
    assert first.rank_file_bytes_max == pytest.approx(first.model_bytes / 256 + first.optimizer_bytes / 512)


@pytest.mark.parametrize(
    ("model", "gib"), [("llama3-8b", 104.7), ("llama3-70b", 113.9), ("llama3-405b", 94.5), ("llama3-1t", 137.7)]
)
def test_subset_writes_the_shares_of_the_first_ranks(model: str, gib: float) -> None:
    size = checkpoint_size(model, processes=8, subset=True)
    assert size.subset
    assert size.checkpoint_bytes / GiB == pytest.approx(gib, abs=0.1)


def test_cache_rule_of_checkpoints() -> None:
    size = checkpoint_size("llama3-8b", processes=8, hosts=1, memory_bytes_per_host=256 * GiB)
    assert size.cache_rule_held is True  # 1,047 GiB against 768
    size = checkpoint_size("llama3-8b", processes=8, hosts=1, memory_bytes_per_host=512 * GiB)
    assert size.cache_rule_held is False
    assert "clear the caches" in size.notes[0]
    assert checkpoint_size("llama3-8b", processes=8, writes=0, memory_bytes_per_host=GiB).cache_rule_held is None
    assert checkpoint_size("llama3-8b", processes=8).cache_rule_held is None


def test_more_processes_are_more_data_parallelism() -> None:
    usual, more = (checkpoint_size("llama3-405b", processes=count) for count in (512, 1024))
    assert (usual.data_parallel, more.data_parallel) == (2, 4)
    assert more.model_bytes == usual.model_bytes
    assert more.optimizer_bytes > usual.optimizer_bytes
    assert more.files == usual.files + 512


@pytest.mark.parametrize(
    ("index", "vectors", "dimension", "raw", "ratio_min", "ratio_max"),
    [
        ("DISKANN", 1_000_000, 1_536, 6_144_000_000, 1.30, 1.34),
        ("DISKANN", 10_000_000, 1_536, 61_440_000_000, 1.30, 1.34),
        ("HNSW", 1_000_000, 1_536, 6_144_000_000, 1.05, 1.15),
        ("AISAQ", 1_000_000, 512, 2_048_000_000, 1.99, 2.01),
        ("IVF_FLAT", 1_000_000, 1_536, 6_144_000_000, 1.0, 1.01),
        ("IVF_SQ8", 1_000_000, 1_536, 6_144_000_000, 0.25, 0.26),
        ("FLAT", 1_000_000, 1_536, 6_144_000_000, 0.0, 0.0),
    ],
)
def test_vector_sizes(index, vectors, dimension, raw, ratio_min, ratio_max) -> None:
    size = vector_size(index, vectors=vectors, dimension=dimension)
    assert size.raw_bytes == raw
    assert ratio_min <= size.index_ratio <= ratio_max
    assert size.shards_advised == vectors // 1_000_000  # advised, and never multiplied with
    assert size.exact_copy_bytes == (0 if index == "FLAT" else raw)
    assert size.total_bytes == raw + size.index_bytes + size.exact_copy_bytes
    assert size.served_from_memory is (index not in ("DISKANN", "AISAQ"))


@pytest.mark.parametrize(
    ("model", "each"),
    [
        ("tiny-1b", 24_576),
        ("mistral-7b", 131_072),
        ("llama2-7b", 524_288),
        ("llama3.1-8b", 131_072),
        ("llama3.1-70b-instruct", 327_680),
        ("deepseek-v3", 70_272),
        ("qwen3-32b", 262_144),
        ("gpt-oss-120b", 73_728),
        ("gpt-oss-20b", 49_152),
    ],
)
def test_kv_bytes_per_token(model: str, each: int) -> None:
    assert kv_size(model, users=1).bytes_per_token == each


def test_kv_working_set() -> None:
    size = kv_size("llama3.1-8b", users=200, clients=2, cpu_memory_gb=4)
    coding = {persona.name: persona for persona in size.personas}["coding"]
    assert (coding.tokens_min, coding.tokens_max) == (4_196, 25_500)
    assert coding.bytes_max == 400 * 25_500 * 131_072
    assert size.working_set_bytes_max == 400 * 131_072 * (4_296 + 25_500 + 17_184) // 3
    assert size.tier_bytes == 2 * 4 * GiB
    assert size.storage_bytes_max == size.working_set_bytes_max - size.tier_bytes
    assert size.largest_entry_bytes == 25_500 * 131_072
    assert kv_size("llama3.1-8b", users=1, tensor_parallel=8).largest_entry_bytes == 25_500 * 131_072 // 8
    assert kv_size("tiny-1b", users=1, gpu_memory_gb=64).storage_bytes_mean == 0


def test_kv_options_of_closed() -> None:
    sizes = {option: kv_option_size(option, clients=1) for option in models().kv_cache.options}
    assert {option: size.users_per_client for option, size in sizes.items()} == {"1": 200, "2": 100, "3": 70}
    assert sizes["2"].tier_bytes == 4 * GiB
    assert sizes["3"].bytes_per_token == 327_680


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda: training_size("unet3", "b200", accelerators=1, hosts=1, memory_bytes_per_host=GiB), "unet3d"),
        (lambda: training_size("unet3d", "mi355", accelerators=1, hosts=1, memory_bytes_per_host=GiB), "b200"),
        (lambda: checkpoint_size("llama3-9b", processes=8), "llama3-8b"),
        (lambda: vector_size("DISKAN", vectors=1, dimension=1), "DISKANN"),
        (lambda: vector_size("HNSW", vectors=1, dimension=1, dtype="SPARSE"), "FLOAT_VECTOR"),
        (lambda: kv_size("llama3.1-9b", users=1), "llama3.1-8b"),
        (lambda: kv_option_size("4"), "1, 2, 3"),
    ],
)
def test_unknown_names_are_told_the_nearest(ask, told: str) -> None:
    with pytest.raises(UnknownNameError, match=told):
        ask()


@pytest.mark.parametrize(
    "ask",
    [
        lambda: training_size("unet3d", "b200", accelerators=0, hosts=1, memory_bytes_per_host=GiB),
        lambda: training_size("unet3d", "b200", accelerators=1, hosts=0, memory_bytes_per_host=GiB),
        lambda: training_size("unet3d", "b200", accelerators=1, hosts=1, memory_bytes_per_host=0),
        lambda: checkpoint_size("llama3-70b", processes=60),
        lambda: checkpoint_size("llama3-70b", processes=128, subset=True),
        lambda: checkpoint_size("llama3-70b", processes=0),
        lambda: vector_size("HNSW", vectors=0, dimension=1),
        lambda: kv_size("tiny-1b", users=0),
    ],
)
def test_what_cannot_be_is_refused(ask) -> None:
    with pytest.raises(UsageError):
        ask()
