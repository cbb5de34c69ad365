"""The corpus goes on: vector database, KV cache, provenance, files, older editions."""

import os

import mlperf_corpus_gates
from mlperf_corpus import (
    IMAGE,
    KV,
    OPEN_KV,
    OPEN_VECTORS,
    OTHER_DIGEST,
    OVERRIDES,
    RUNS,
    TRAINING,
    VECTORS,
    _first,
    broken,
    odd_entry,
)
from mlperf_places import GONE

assert mlperf_corpus_gates  # it fills the corpus, too

V_RUNS = f"{VECTORS}/run/*"
OLD = "Closed/example/results/sysA"
OLD_RUNS = f"{OLD}/training/unet3d/run/*"

# Vector database
broken("other_dimension", "vectors", "5.1.2", lambda s: s.put(f"{V_RUNS}/summary.json", "dimension", 512, only=1))
broken("fewer_vectors", "vectors", "5.2.1", lambda s: s.put(f"{V_RUNS}/summary.json", "num_vectors", 999_999, only=1))
broken(
    "load_failed",
    "vectors",
    "5.2.2 META-02",
    lambda s: s.put(f"{VECTORS}/datagen/*/*_metadata.json", "exit_status", 1),
)
broken("four_searches", "vectors", "5.3.1", lambda s: s.drop(V_RUNS, only=0).manifest())
broken("no_recall", "vectors", "5.3.2", lambda s: s.put(f"{V_RUNS}/statistics.json", "recall", GONE, only=0))
broken("zero_recall", "vectors", "5.3.2", lambda s: s.put(f"{V_RUNS}/statistics.json", "recall.mean_recall", 0, only=0))
broken("no_p999", "vectors", "5.3.4", lambda s: s.put(f"{V_RUNS}/statistics.json", "p999_latency_ms", GONE, only=0))
broken("falling", "vectors", "5.3.4", lambda s: s.put(f"{V_RUNS}/statistics.json", "p99_latency_ms", 1.0, only=0))
broken(
    "ninety_percent_copy",
    "vectors",
    "5.3.5",
    lambda s: s.put(f"{V_RUNS}/result_verdict.json", "flat_setup.coverage", 0.9, only=0),
)
broken("no_verdict", "vectors", "5.3.5", lambda s: s.drop(f"{V_RUNS}/result_verdict.json", only=0))
broken(
    "vectors_in_results",
    "vectors",
    "5.4.1",
    lambda s: s.put(f"{V_RUNS}/*_metadata.json", "args.storage_root", "/home/user/results/v", only=0),
)
broken("vector_probe", "vectors", "5.4.2", lambda s: s.put(f"{V_RUNS}/fs_separation.json", "method", "stat", only=0))
broken(
    "undeclared_objects",
    "vectors",
    "5.5.1",
    lambda s: s.put(f"{V_RUNS}/*_metadata.json", "args.storage_type", "object", only=0),
)
broken("other_vector_code", "vectors", "5.6.1", lambda s: s, OTHER_DIGEST)
broken("other_engine", "vectors", "5.6.2", lambda s: s.put(f"{V_RUNS}/summary.json", "database", "pgvector", only=0))
broken("open_index_in_closed", "closed_wrong_index", "5.6.3", lambda s: s)
broken(
    "other_degree",
    "vectors",
    "5.6.4",
    lambda s: s.put(f"{V_RUNS}/*_metadata.json", f"{OVERRIDES}index.max_degree", 32, only=0),
)
broken(
    "open_dimension",
    "open_vectors",
    "5.6.5",
    lambda s: s.put(f"{OPEN_VECTORS}/run/*/*_metadata.json", f"{OVERRIDES}dataset.dimension", 8, only=0),
)
broken(
    "vectors_without_metadata",
    "open_vectors",
    "META-01",
    lambda s: s.drop(f"{OPEN_VECTORS}/datasize/*/*_metadata.json"),
)

# KV cache
broken("two_options", "kv", "6.3.1.1", lambda s: s.put(f"{KV}/summary.json", "options.3", GONE))
broken("users_given", "kv", "6.3.1.1", lambda s: _command(s, KV, 0, "--num-users 200", "--num-users 10"))
broken("tier_not_given", "kv", "6.3.1.1", lambda s: _command(s, KV, 4, "--cpu-mem-gb 4", ""))
broken("other_seed_of_the_engine", "kv", "6.3.2.1", lambda s: _command(s, KV, 2, "--seed-base 42", "--seed-base 7"))
broken("other_seed", "kv", "6.3.2.1", lambda s: s.put(f"{KV}/*_metadata.json", "args.seed", 7))
broken("short_delay", "kv", "6.3.2.1", lambda s: s.put(f"{KV}/*_metadata.json", "args.inter_option_delay", 20))
broken("own_config", "kv", "6.3.2.1", lambda s: s.put(f"{KV}/*_metadata.json", "args.config", "mine.yaml"))
broken("autoscaling", "kv", "6.3.2.2", lambda s: _command(s, KV, 8, "--seed", "--enable-autoscaling --seed"))
broken("uneven_ranks", "kv", "6.3.3.1", lambda s: s.put(f"{KV}/summary.json", "npernode", 3))
broken("lost_rank", "open_kv", "6.3.3.3 6.3.4.1 6.3.4.2", lambda s: s.drop(f"{OPEN_KV}/option_1/trial_2/rank_1"))
broken(
    "two_results_of_a_rank",
    "kv",
    "6.3.3.3 6.3.4.1 6.3.4.2",
    lambda s: _twice(s, f"{KV}/option_2/trial_1/rank_0"),
)
broken("missing_files", "kv", "6.3.3.4", lambda s: s.put(f"{KV}/summary.json", "options.2.missing_files", ["rank_1"]))
broken("partial", "kv", "6.3.3.4", lambda s: s.put(f"{KV}/summary.json", "partial_failure", True))
broken(
    "bandwidth_added_over_trials",
    "kv",
    "6.3.4.1",
    lambda s: s.put(f"{KV}/summary.json", "options.1.aggregated_read_bandwidth_gbps", lambda old: 3 * old),
)
broken(
    "tokens_too_high",
    "kv",
    "6.3.4.2",
    lambda s: s.put(
        f"{KV}/summary.json", "options.1.aggregated_storage_throughput_tokens_per_sec", lambda old: 1.02 * old
    ),
)
broken(
    "mean_latency_for_the_worst",
    "kv",
    "6.3.4.3",
    lambda s: s.put(f"{KV}/summary.json", "options.3.aggregated_device_read_p95_ms", 92.0),
)
broken(
    "never_touched_storage",
    "kv",
    "6.3.4.4",
    lambda s: s.put(f"{KV}/summary.json", "options.2.cpu_tier_ranks", [0, 1]),
)
broken("bucket_as_cache", "kv", "6.4.1", lambda s: s.put(f"{KV}/*_metadata.json", "args.cache_dir", "s3://bucket/kv"))
broken("retrieval_in_closed", "kv", "6.6.1", lambda s: _command(s, KV, 8, "--seed", "--enable-rag --seed"))
broken(
    "override_in_closed_kv",
    "kv",
    "6.6.1",
    lambda s: s.put(f"{KV}/*_metadata.json", f"{OVERRIDES}num_users", 4),
)
broken("open_unknown_model", "open_kv", "6.6.2", lambda s: s.put(f"{OPEN_KV}/*_metadata.json", "args.model", "gpt-9"))
broken(
    "open_unknown_key",
    "open_kv",
    "6.6.2",
    lambda s: s.put(f"{OPEN_KV}/*_metadata.json", f"{OVERRIDES}num_user", 4),
)
broken("option_with_defaults", "open_kv", "6.6.3", lambda s: s.put(f"{OPEN_KV}/*_metadata.json", "args.option", 1))

# Provenance, code, metadata
broken("no_stamp", "training", "PROV-01", lambda s: s.drop(f"{RUNS}/provenance.json", only=0))
broken("stamp_without_engine", "training", "PROV-01", lambda s: s.put(f"{RUNS}/provenance.json", "dlio", GONE, only=0))
broken(
    "stamp_of_another_edition",
    "training",
    "PROV-01",
    lambda s: s.put(f"{RUNS}/provenance.json", "rules_edition", "2.0", only=0),
)
broken("no_manifest", "training", "PROV-02", lambda s: s.drop("closed/example/submission.yaml"))
broken(
    "manifest_of_other_runs",
    "training",
    "PROV-02",
    lambda s: s.put("closed/example/submission.yaml", "runs", lambda old: old[1:]),
)
broken("manifest_with_a_figure", "training", "PROV-02", lambda s: s.put("closed/*/submission.yaml", "throughput", 5))
broken("dangling_pointer", "training", "CHECK-01", lambda s: s.write(f"{_first(s, RUNS)}/.mlps-code-image", "code-ff"))
broken("no_pointer", "training", "CHECK-01", lambda s: s.drop(f"{RUNS}/.mlps-code-image", only=3))
broken("another_digest", "training", "CHECK-02", lambda s: s.put(f"{IMAGE}/.code-hash.json", "hash", OTHER_DIGEST))
broken(
    "unused_image",
    "training",
    "CHECK-03",
    lambda s: s.write("code-images/code-ffffffff/.code-hash.json", f'{{"hash": "{OTHER_DIGEST}"}}'),
)
broken("older_pool", "training", "CHECK-04", lambda s: s.drop("code-images/.mlps-image-pool"))
broken(
    "stamped_core_differs",
    "training",
    "COMP-01",
    lambda s: s.put(f"{RUNS}/provenance.json", "core_config.hash", "0" * 16, only=4),
)
broken(
    "leaf_of_another_model",
    "training",
    "META-01",
    lambda s: s.put(f"{RUNS}/*_metadata.json", "model", "retinanet", only=4),
)
broken("leaf_of_open", "training", "META-01", lambda s: s.put(f"{RUNS}/*_metadata.json", "args.mode", "open", only=4))
broken("failed_run", "training", "META-02", lambda s: s.put(f"{RUNS}/*_metadata.json", "exit_status", 137, only=4))

broken(
    "preloaded",
    "training",
    "SANE-03",
    lambda s: s.put(f"{RUNS}/*_metadata.json", "args.mpi_params", ["-x", "LD_PRELOAD=/opt/libeatmydata.so"], only=4),
)

# Files
broken("link_out_of_the_tree", "training", "FILE-01", lambda s: s.link(f"{TRAINING}/passwords", "/etc/passwd"))
broken("link_to_a_folder", "training", "FILE-01", lambda s: s.link(f"{TRAINING}/run/20260309_101010", "../datagen"))
broken("pipe", "training", "FILE-01", odd_entry)
broken("rollup_is_not_json", "training", "FILE-02", lambda s: s.write(f"{TRAINING}/results.json", "{"))
broken("huge_json", "training", "FILE-02", lambda s: _sparse(s, f"{TRAINING}/results.json", 17 << 20))
broken("huge_yaml", "training", "FILE-02", lambda s: _sparse(s, "closed/example/systems/sysA.yaml", 2 << 20))
broken("nan", "training", "FILE-02", lambda s: s.write(f"{TRAINING}/results.json", '[{"Read B/W (GiB/s)": NaN}]'))
broken("not_utf8", "training", "FILE-02", lambda s: s.write("closed/example/submission.yaml", b"org: \xff\n"))
broken("deep_json", "training", "FILE-02", lambda s: s.write(f"{TRAINING}/results.json", "[" * 100_000))
broken(
    "alias_bomb",
    "training",
    "FILE-02",
    lambda s: s.write("mlperf-results.yaml", "a: &a [1,1,1,1,1,1,1,1,1]\n" + _bomb()),
)
broken("deep_folders", "training", "FILE-03", lambda s: s.folder(f"{_first(s, RUNS)}/" + "/".join("d" * 40)))
broken("name_is_not_text", "training", "FILE-04", lambda s: s.write(f"{_first(s, RUNS)}/\udcff.log"))
broken("nothing_there", "nothing", "TREE-01 1.1 2.1.6", lambda s: s)
broken("only_whatif", "leaf", "TREE-01", lambda s: s.put("*_metadata.json", "args.mode", "whatif"))

# Older editions
broken(
    "old_subset_of_sixteen",
    "second_edition_large",
    "4.3.5",
    lambda s: s.put(
        "Closed/*/results/*/checkpointing/*/*/dlio_config/config.yaml", "workload.checkpoint.mode", "subset"
    ).put("Closed/*/results/*/checkpointing/*/*/summary.json", "num_accelerators", 16),
)
broken(
    "old_few_processes",
    "second_edition_large",
    "4.6.1",
    lambda s: s.put("Closed/*/results/*/checkpointing/*/*/summary.json", "num_accelerators", 16),
)
broken(
    "old_unknown_type",
    "second_edition",
    "2.1.7",
    lambda s: s.put("Closed/example/systems/sysA.yaml", "System.type", "tape"),
)
broken(
    "first_edition_without_capacity",
    "first_edition",
    "2.1.7",
    lambda s: s.put("Closed/example/systems/sysA.json", "storage_system.raw_capacity_GiB", GONE),
)
broken("old_code_is_empty", "second_edition", "2.1.6", lambda s: s.drop("Closed/example/code/main.py"))
broken("old_without_code", "second_edition", "2.1.5.a", lambda s: s.drop("Closed/example/code"))
broken("old_five_runs", "second_edition", "2.1.17", lambda s: s.drop(OLD_RUNS, only=0))
broken(
    "old_override",
    "second_edition",
    "3.6.2",
    lambda s: s.put(f"{OLD_RUNS}/*_metadata.json", f"{OVERRIDES}train.epochs", 1, only=0),
)
broken(
    "old_open_override",
    "second_edition_open",
    "3.6.3",
    lambda s: s.put("Open/*/results/*/training/*/run/*/*_metadata.json", f"{OVERRIDES}train.epochs", 1, only=0),
)
broken(
    "first_edition_low_utilisation",
    "first_edition",
    "3.3.2",
    lambda s: s.put(f"{OLD}/unet3d-h100/run2/*/summary.json", "metric.train_au_mean_percentage", 80.0).put(
        f"{OLD}/unet3d-h100/run2/*/summary.json", "metric.train_au_percentage", [80.0]
    ),
)
broken(
    "first_edition_mean",
    "first_edition",
    "3.3.8",
    lambda s: s.put(
        f"{OLD}/unet3d-h100/mlperf_storage_report.json",
        "overall.train_throughput_mean_samples_per_second",
        lambda old: 1.1 * old,
    ),
)
broken("first_edition_config", "first_edition", "2.1.20", lambda s: s.drop(f"{OLD}/unet3d-h100/run3/*/configs/*.yaml"))
broken("first_edition_four_runs", "first_edition", "2.1.17", lambda s: s.drop(f"{OLD}/unet3d-h100/run5"))
broken(
    "first_edition_model",
    "first_edition",
    "2.1.11",
    lambda s: s.put(f"{OLD}/unet3d-h100/mlperf_storage_report.json", "overall.accelerator", "b200"),
)


def _bomb() -> str:
    return "".join(f"{chr(98 + n)}: &{chr(98 + n)} [{','.join([f'*{chr(97 + n)}'] * 9)}]\n" for n in range(8))


def _sparse(spot, name: str, size_bytes: int) -> None:
    os.truncate(spot.root / name, size_bytes)


def _command(spot, leaf: str, at: int, old: str, new: str) -> None:
    def changed(text: str) -> str:
        assert old in text
        return text.replace(old, new)

    spot.put(f"{leaf}/*_metadata.json", f"command_output_files.{at}.command", changed)


def _twice(spot, pattern: str) -> None:
    path = spot.find(pattern)[0]
    (path / "kvcache_results_again.json").write_text(next(path.glob("*.json")).read_text())
