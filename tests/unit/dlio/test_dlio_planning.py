"""From configuration to plan: datasets, steps, order, durations, places."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
from dlio_runs import config_of, run_of, workload_file

from stoker.bench.run.credentials import apply_credentials
from stoker.bench.run.dlio import compose, resolve, shipped_names, to_plan
from stoker.bench.run.dlio.typed import spread
from stoker.core.errors import UsageError
from stoker.core.plan import Spread, TrainingPlan
from stoker.loader.dataset.recipe import Recipe
from stoker.storage.url import parse_url

LEAST_RANKS = {
    "llama_70b": 32,
    "llama_70b_zero3": 8,
    "llama_405b": 256,
    "llama_1t": 512,
    "megatron_deepspeed_LLNL": 32,
    "llama3_70b": 8,
    "llama3_405b": 256,
    "llama3_1t": 512,
}


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_workload_becomes_a_plan(name: str) -> None:
    ranks = LEAST_RANKS.get(name, 1)
    enough = ["++workload.dataset.num_files_train=4096"] if name == "llama_1t" else []
    run = run_of(f"workload={name}", *enough, ranks=ranks)
    assert msgspec.json.decode(msgspec.json.encode(run.plan), type=TrainingPlan) == run.plan
    assert parse_url(run.data_url).scheme in ("file", "s3")
    run.require_work()
    if name.startswith("llama") and name != "llama_1t":
        assert not (run.generate or run.train)
        assert run.checkpoint and not run.plan.trains
        assert run.plan.predicted["checkpoint_bytes"] > 1e9
        assert run.plan.checkpoint is not None
        assert (run.plan.checkpoint.writes, run.plan.checkpoint.reads, run.plan.checkpoint.fsync) == (10, 10, "full")
    else:
        assert run.plan.predicted["steps_per_epoch"] >= 1
    if ranks > 1:
        with pytest.raises(UsageError, match=f"multiple of {ranks}"):
            run_of(f"workload={name}", *enough, ranks=1)


@pytest.mark.parametrize(
    ("name", "ranks", "gib", "files"),
    [
        ("llama3_8b", 8, 104.70452, 16),
        ("llama3_70b", 64, 911.21213, 128),
        ("llama3_405b", 512, 5292.25, 1544),
        ("llama3_1t", 1024, 15426.59, 2072),
    ],
)
def test_the_rules_models_are_shipped_in_full(name: str, ranks: int, gib: float, files: int) -> None:
    plan = run_of(f"workload={name}", ranks=ranks).plan
    assert plan.predicted["checkpoint_bytes"] / 2**30 == pytest.approx(gib, rel=1e-6)
    assert plan.predicted["files"] == files
    assert plan.target_url == f"file://{os.getcwd()}/checkpoints/{name}?fsync=full"


def test_checkpoints_follow_their_keys() -> None:
    words = [
        "workload=llama3_8b",
        *(
            f"++workload.checkpoint.{word}"
            for word in (
                "checkpoint_folder=s3://bucket/c",
                "time_between_checkpoints=-2.5",
                "num_checkpoints_write=3",
                "num_checkpoints_read=0",
                "rank_sync=True",
                "fsync=False",
            )
        ),
    ]
    run = run_of(*words, ranks=4)
    what = run.plan.checkpoint
    assert what is not None
    assert (what.writes, what.reads, what.interval_seconds, what.rank_sync) == (3, 0, 2.5, True)
    assert (run.checkpoint_url, what.target_url, what.fsync) == ("s3://bucket/c", "s3://bucket/c", "full")
    assert what.shape.replicas(4) == 4
    unsynced = run_of("workload=llama3_8b", "++workload.checkpoint.fsync=False", ranks=1)
    assert unsynced.checkpoint_url.endswith("/checkpoints/llama3_8b?fsync=none")


def test_a_subset_pins_the_data_parallelism() -> None:
    mode = "++workload.checkpoint.mode=subset"
    run = run_of("workload=llama3_70b", mode, "++workload.model.parallelism.data=8", ranks=8)
    assert run.plan.checkpoint is not None and run.plan.checkpoint.subset
    assert run.plan.checkpoint.shape.data == 8
    assert run.plan.predicted["files"] == 16
    with pytest.raises(UsageError, match="pinned data parallelism"):
        run_of("workload=llama3_70b", mode, ranks=8)


def test_nothing_to_save_is_refused() -> None:
    words = [f"++workload.checkpoint.num_checkpoints_{verb}=-1" for verb in ("write", "read")]
    with pytest.raises(UsageError, match="no checkpoint is to be written"):
        run_of("workload=llama3_8b", *words, ranks=8)
    with pytest.raises(UsageError, match="all off"):
        run_of("workload=llama3_8b", "++workload.workflow.checkpoint=False", ranks=8).require_work()


@pytest.mark.parametrize(
    ("name", "ranks", "steps"),
    [("default", 1, 16), ("unet3d_h100", 1, 24), ("cosmoflow_a100", 8, 65_536), ("resnet50_a100", 8, 400)],
)
def test_steps_of_an_epoch(name: str, ranks: int, steps: int) -> None:
    run = run_of(f"workload={name}", ranks=ranks)
    assert run.plan.predicted["steps_per_epoch"] == steps
    if name == "default":
        evaluation = run.plan.evaluation
        assert evaluation is not None
        assert evaluation.dataset.samples // evaluation.batch_size == 8


def test_unet3d_in_full() -> None:
    run = run_of("workload=unet3d_h100", ranks=2)
    plan = run.plan
    dataset = plan.dataset
    assert (dataset.format, dataset.files, dataset.samples_per_file) == ("npz", 168, 1)
    assert (dataset.record_length_bytes, dataset.record_length_stdev_bytes) == (146_600_628, 68_341_808)
    assert (plan.model, plan.accelerator, plan.ranks, plan.batch_size, plan.epochs) == ("unet3d", "h100", 2, 7, 5)
    assert (plan.read_threads, plan.decode_threads, plan.prefetch_batches) == (4, 1, 2)
    assert (plan.queue_depth, plan.request_bytes) == (0, 0), "DLIO has no words for them: they are chosen"
    assert plan.computation == Spread(parameters={"value": 0.323})
    assert (plan.order, plan.seed, plan.seed_change_epoch) == ("shuffled", 123, True)
    assert (plan.exclude_start_steps, plan.exclude_end_steps, plan.au_threshold_ratio) == (1, 0, 0.90)
    assert run.data_url == f"file://{os.getcwd()}/data/unet3d"
    assert plan.checkpoint is not None
    assert (plan.checkpoint.after_epoch, plan.checkpoint.epochs_between) == (5, 2)
    assert plan.checkpoint.shape.blob_bytes == 10240, "the file gives a key that DLIO does not know"
    assert any("model_size" in warning for warning in run.warnings)


COMMON = """
workflow: {{generate_data: true, train: true{more}}}
dataset: {{num_files_train: 4, num_samples_per_file: {n}, record_length_bytes: 4096, format: {format}{extra}}}
reader: {{batch_size: 2}}
"""
SHAPES: dict[str, tuple[str, int, str, dict[str, Any]]] = {
    "npz": ("npz", 3, "", {}),
    "npz zipped": (
        "npz",
        3,
        ", compression: zip, compression_level: 2",
        {"compression": "zip", "compression_level": 2},
    ),
    "npy": ("npy", 2, ", record_element_type: float32", {}),
    "hdf5": ("hdf5", 2, ", compression: gzip", {"compression": "gzip", "compression_level": 4}),
    "hdf5 shaped": (
        "hdf5",
        2,
        ", record_dims: [4, 8], hdf5: {chunk_dims: [1, 2, 8], num_dset_per_record: 2, max_shape: [4, 16]}",
        {"chunk_dims": [1, 2, 8], "num_dset_per_record": 2, "max_shape": [4, 16]},
    ),
    "tfrecord": ("tfrecord", 5, ", record_length_bytes_stdev: 512", {}),
    "csv": ("csv", 4, ", compression: gzip", {"compression": "gzip"}),
    "jpeg": ("jpeg", 1, "", {}),
    "png": ("png", 1, ", record_dims: [20, 30]", {}),
    "indexed_binary": ("indexed_binary", 6, "", {}),
    "mmap_indexed_binary": ("mmap_indexed_binary", 6, "", {}),
    "synthetic": ("synthetic", 4, "", {}),
    "parquet": ("parquet", 8, ", parquet: {row_group_size: 4}", {"row_group_size": 4}),
    "parquet columns": (
        "parquet",
        8,
        ", parquet: {columns: [{name: a, dtype: float32, size: 3}, {name: b, dtype: int8, read: false}]}",
        {
            "columns": [
                {"name": "a", "dtype": "float32", "size": 3},
                {"name": "b", "dtype": "int8", "read": False},
            ]
        },
    ),
}


@pytest.mark.parametrize("framework", ["pytorch", "tensorflow"])
@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("name", SHAPES)
def test_every_shape_of_dataset_converts(tmp_path: Path, name: str, framework: str, *, checkpoint: bool) -> None:
    form, samples, extra, options = SHAPES[name]
    more = f", checkpoint: {str(checkpoint).lower()}"
    text = COMMON.format(more=more, n=samples, format=form, extra=extra) + f"framework: {framework}\n"
    run = run_of(*workload_file(tmp_path, text), f"++workload.reader.data_loader={framework}", ranks=2)
    spec = run.plan.dataset
    assert (spec.format, spec.samples, spec.options) == (form, 4 * samples, options)
    assert Recipe(spec).sample_spec(0).samples == samples
    assert run.checkpoint is checkpoint
    assert (run.plan.checkpoint is not None) == checkpoint


def test_columns_decide_the_length_of_a_row(tmp_path: Path) -> None:
    form, samples, extra, _ = SHAPES["parquet columns"]
    text = COMMON.format(more="", n=samples, format=form, extra=extra)
    plan = run_of(*workload_file(tmp_path, text)).plan
    assert (plan.dataset.record_length_bytes, plan.dataset.record_dims) == (13.0, (13,))
    assert any("columns decide" in note for note in plan.notes)


def test_record_dims_decide_the_length_of_a_sample() -> None:
    words = ["++workload.dataset.record_dims=[3,5]", "++workload.dataset.record_element_type=float64"]
    plan = run_of("workload=default", *words).plan
    assert plan.dataset.record_length_bytes == 120.0
    assert any("record_dims decide" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["++workload.reader.batch_size=65"], "too small for one step"),
        (["++workload.train.total_training_steps=17"], "at most 16 steps"),
        (["++workload.dataset.num_files_eval=0"], "evaluation data are too few"),
        (["++workload.evaluation.epochs_between_evals=0"], "at least 1 with evaluation on"),
        (["++workload.dataset.num_files_train=0"], "nothing to train on"),
        (["++workload.dataset.num_files_train=0", "++workload.dataset.num_files_eval=0"], "no files"),
        (["++workload.dataset.compression=lzf"], "npz does not support compression"),
        (["++workload.dataset.record_element_type=float99"], "no such element type"),
        (["++workload.dataset.record_element_type=object"], "cannot be stored|cannot"),
        (["++workload.dataset.file_prefix=../x"], "plain file name"),
        (["++workload.dataset.format=jpeg", "++workload.dataset.num_samples_per_file=2"], "one sample a file"),
        (["++workload.storage.storage_type=aistore"], "S3 endpoint"),
        (["++workload.dataset.data_folder=ftp://host/x"], "scheme that is not supported"),
        (["++workload.dataset.data_folder=s3://user:secret@bucket/x"], "credentials"),
        (["++workload.output.log_file=../x"], "leaves its root"),
        (["++hydra.output_subdir=../x"], "leaves its root"),
        (["++hydra.run.dir='${oc.env:HOME}'"], "folder name is not supported"),
    ],
)
def test_what_cannot_be_done_is_told(words: list[str], told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        run_of("workload=default", *words)
    assert "secret" not in str(caught.value)


def test_idle_evaluation_keys_do_not_stand_in_the_way() -> None:
    words = ["++workload.workflow.evaluation=False", "++workload.evaluation.epochs_between_evals=0"]
    assert run_of("workload=default", *words).plan.evaluation is None


def test_the_number_of_ranks_is_checked() -> None:
    config = config_of("workload=default")
    for ranks in (0, -1, 1 << 30):
        with pytest.raises(UsageError, match="number of ranks"):
            to_plan(config, ranks)


def test_uneven_files_lose_samples_not_files() -> None:
    words = ["++workload.dataset.num_files_train=17", "++workload.dataset.num_samples_per_file=3"]
    plan = run_of("workload=default", *words, ranks=2).plan
    assert plan.predicted["steps_per_epoch"] == 6
    assert any(note.startswith("3 samples an epoch") for note in plan.notes)


@pytest.mark.parametrize(
    ("files", "samples", "order", "seed"),
    [
        ("off", "off", "dlio", 123),
        ("seed", "off", "shuffled", 123),
        ("off", "seed", "shuffled", 123),
        ("seed", "random", "shuffled", 99),
        ("random", "off", "shuffled", 99),
    ],
)
def test_shuffles_do_what_they_are_for(files: str, samples: str, order: str, seed: int) -> None:
    words = [f"++workload.reader.file_shuffle={files}", f"++workload.reader.sample_shuffle={samples}"]
    plan = run_of("workload=default", *words).plan
    assert (plan.order, plan.seed) == (order, seed)


def test_a_random_shuffle_differs_from_run_to_run() -> None:
    config = config_of("workload=default", "++workload.reader.sample_shuffle=random")
    assert to_plan(config, 1).plan.seed != to_plan(config, 1).plan.seed


def test_reader_and_metric_keys_reach_the_plan() -> None:
    words = {
        "reader.read_threads": 0,
        "reader.prefetch_size": 0,
        "reader.computation_threads": 3,
        "reader.preprocess_time": 0.01,
        "reader.preprocess_time_stdev": 0.002,
        "train.total_training_steps": 5,
        "train.seed": 77,
        "train.seed_change_epoch": False,
        "output.metric.exclude_start_steps": 2,
        "output.metric.exclude_end_steps": 1,
        "metric.au": 0.5,
        "evaluation.eval_after_epoch": 2,
        "evaluation.epochs_between_evals": 3,
        "dataset.num_subfolders_train": 4,
        "dataset.file_prefix": "part",
        "dataset.keep_files": False,
        "workflow.generate_data": True,
    }
    run = run_of("workload=default", *[f"++workload.{path}={value}" for path, value in words.items()])
    plan = run.plan
    assert (plan.read_threads, plan.prefetch_batches, plan.decode_threads, plan.steps_max) == (1, 2, 3, 5)
    assert plan.preprocess == Spread("normal", {"mean": 0.01, "stdev": 0.002})
    assert (plan.seed, plan.seed_change_epoch, plan.au_threshold_ratio) == (77, False, 0.5)
    assert (plan.exclude_start_steps, plan.exclude_end_steps) == (2, 1)
    assert plan.evaluation is not None
    assert (plan.evaluation.after_epoch, plan.evaluation.epochs_between, plan.evaluation.batch_size) == (2, 3, 1)
    assert plan.evaluation.computation == Spread(parameters={"value": 0.5})
    assert (plan.dataset.subfolders, plan.dataset.prefix) == (4, "part")
    assert (run.keep_files, run.generate) == (False, True)
    assert [(spec.split, before) for spec, before in run.datasets] == [("train", 0), ("valid", 64)]


def test_more_threads_than_processors_are_noted() -> None:
    plan = to_plan(config_of("workload=unet3d_h100"), 1, cpus=2).plan
    assert any("usable CPUs" in note for note in plan.notes)


def test_excluding_all_steps_is_noted() -> None:
    plan = run_of("workload=default", "++workload.train.total_training_steps=1").plan
    assert any("cannot be told" in note for note in plan.notes)


@pytest.mark.parametrize(
    ("value", "stdev", "expected"),
    [
        (1.5, None, Spread(parameters={"value": 1.5})),
        ({"mean": 2}, None, Spread(parameters={"value": 2.0})),
        (1.5, 0.1, Spread("normal", {"mean": 1.5, "stdev": 0.1})),
        (1.5, 0, Spread(parameters={"value": 1.5})),
        ({"mean": 1.0, "stdev": 0.2}, None, Spread("normal", {"mean": 1.0, "stdev": 0.2})),
        ({"mean": 1.0, "stdev": 0.2}, 0.3, Spread("normal", {"mean": 1.0, "stdev": 0.3})),
        ({"type": "normal", "mean": 1.0, "stdev": 0.2}, None, Spread("normal", {"mean": 1.0, "stdev": 0.2})),
        ({"type": "normal", "mean": 1.0}, None, Spread(parameters={"value": 1.0})),
        ({"type": "uniform", "min": 1, "max": 2}, None, Spread("uniform", {"min": 1.0, "max": 2.0})),
        ({"type": "gamma", "shape": 2, "scale": 3}, None, Spread("gamma", {"shape": 2.0, "scale": 3.0})),
        ({"type": "exponential", "scale": 3}, None, Spread("exponential", {"scale": 3.0})),
        ({"type": "poisson", "lam": 3}, None, Spread("poisson", {"lam": 3.0})),
    ],
)
def test_durations(value: Any, stdev: float | None, expected: Spread) -> None:
    assert spread(value, stdev, "train.computation_time") == expected
    assert expected.mean_seconds() > 0


@pytest.mark.parametrize(
    ("value", "stdev", "told"),
    [
        ({"type": "weibull", "mean": 1}, None, "no such distribution"),
        ({"type": "uniform", "mean": 1}, None, "expected min, max"),
        ({"type": "uniform", "min": 3, "max": 1}, None, "min is above max"),
        ({"type": "gamma", "shape": -1, "scale": 1}, None, "negative"),
        ({"mean": 1, "min": 2}, None, "no such distribution"),
        ({"type": "poisson", "lam": 3}, 0.5, "wrong parameters"),
        ({}, None, "no such distribution"),
    ],
)
def test_durations_that_make_no_sense(value: Any, stdev: float | None, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        spread(value, stdev, "train.computation_time")


def test_durations_from_files_and_siblings(tmp_path: Path) -> None:
    text = "train:\n  computation_time: {type: gamma, shape: 2, scale: 0.1}\nevaluation: {eval_time: 1e-3}\n"
    plan = run_of(*workload_file(tmp_path, text)).plan
    assert plan.computation == Spread("gamma", {"shape": 2.0, "scale": 0.1})
    words = ["workload=default", "++workload.train.computation_time_stdev=0.25"]
    assert run_of(*words).plan.computation == Spread("normal", {"mean": 1.0, "stdev": 0.25})
    merged = run_of(*words, "++workload.train.computation_time={mean:3}").plan.computation
    assert merged == Spread("normal", {"mean": 3.0, "stdev": 0.25})


HERE = os.getcwd()
URLS = [
    ([], f"file://{HERE}/data/default"),
    (["dataset.data_folder=/mnt/x/"], "file:///mnt/x"),
    (["dataset.data_folder='/mnt/a b'"], "file:///mnt/a%20b"),
    (["dataset.data_folder=d", "storage.storage_root=/mnt"], "file:///mnt/d"),
    (["dataset.data_folder=/mnt/x", "reader.odirect=True"], "direct:///mnt/x"),
    (["dataset.data_folder=/mnt/x", "storage.storage_type=direct_fs"], "direct:///mnt/x"),
    (["dataset.data_folder=file:///mnt/x", "reader.odirect=True"], "direct:///mnt/x"),
    (["dataset.data_folder=directio:///mnt/x/"], "direct:///mnt/x"),
    (["dataset.data_folder=s3://bucket/prefix/"], "s3://bucket/prefix"),
    (["dataset.data_folder=az://container/p"], "az://container/p"),
    (["dataset.data_folder=gs://bucket/p"], "gs://bucket/p"),
    (["dataset.data_folder=./data/", "storage.storage_type=s3", "storage.storage_root=bucket"], "s3://bucket/data"),
    (
        [
            "dataset.data_folder=d",
            "storage.storage_type=s3",
            "storage.storage_root=bucket",
            "storage.storage_options.s3_max_attempts=5",
        ],
        "s3://bucket/d?retry_attempts=5",
    ),
    (
        ["dataset.data_folder=d", "storage.storage_type=s3", "storage.storage_root=b", "storage.uri_scheme=gs"],
        "gs://b/d",
    ),
    (
        [
            "dataset.data_folder=d",
            "storage.storage_type=s3",
            "storage.storage_root=b",
            "storage.storage_options.uri_scheme=az",
        ],
        "az://b/d",
    ),
    (["dataset.data_folder=/mnt/x", "storage.storage_options.storage_library=direct"], "direct:///mnt/x"),
]


@pytest.mark.parametrize(("words", "url"), URLS)
def test_where_the_data_lie(words: list[str], url: str) -> None:
    run = run_of("workload=default", *[f"++workload.{word}" for word in words])
    assert run.data_url == url
    assert run.plan.target_url == url


def test_credentials_go_into_the_environment_and_nowhere_else() -> None:
    words = ["++workload.storage.storage_options.secret_access_key=canary", "workload=unet3d_h100_s3"]
    run = run_of(*words)
    assert run.credentials["AWS_SECRET_ACCESS_KEY"] == "canary"
    assert run.credentials["AWS_ENDPOINT_URL"] == "http://localhost:9020"
    seen = [repr(run), str(run.documents), str(run.plan), run.data_url, str(run.warnings)]
    assert not any("canary" in text for text in seen)
    environment: dict[str, str] = {}
    assert "AWS_SECRET_ACCESS_KEY" in apply_credentials(run.credentials, environment)
    assert environment["AWS_REGION"] == "us-east-1"


def test_credentials_of_the_environment_count_more_than_the_files() -> None:
    run = run_of("workload=unet3d_h100_s3")
    environment = {"AWS_ACCESS_KEY_ID": "mine", "AWS_ENDPOINT_URL": "http://other"}
    assert apply_credentials(run.credentials, environment) == ["AWS_REGION"]
    assert "AWS_SECRET_ACCESS_KEY" not in environment
    assert environment["AWS_ENDPOINT_URL"] == "http://other"


def test_places_follow_hydra() -> None:
    places = run_of("workload=unet3d_h100").places
    assert places.folder == places.hydra_folder
    assert places.folder.startswith("hydra_log/unet3d/2023-11-1")
    assert (places.hydra_subdir, places.log_file) == (".hydra", "dlio.log")
    places = run_of("++hydra.run.dir=/tmp/out", "++hydra.output_subdir=dlio_config").places
    assert (places.folder, places.hydra_folder, places.hydra_subdir) == ("/tmp/out", "/tmp/out", "dlio_config")
    places = run_of("++hydra.run.dir=/tmp/out", "++workload.output.folder=/tmp/other").places
    assert (places.folder, places.hydra_folder) == ("/tmp/other", "/tmp/out")
    assert run_of("++hydra.output_subdir=null").places.hydra_subdir == ""


def test_places_of_a_sweep_are_numbered() -> None:
    runs = compose(["-m", "++workload.train.epochs=1,2", "hydra.sweep.dir=/tmp/sweep"])
    folders = [to_plan(resolve(run), 1).places.folder for run in runs]
    assert folders == ["/tmp/sweep/0", "/tmp/sweep/1"]


def test_documents_hold_what_was_composed_and_typed() -> None:
    words = ["workload=unet3d_h100_s3", "++workload.train.epochs=2", "++hydra.output_subdir=dlio_config"]
    documents = run_of(*words).documents
    assert documents["overrides.yaml"] == ["workload=unet3d_h100_s3", "++workload.train.epochs=2"]
    workload = documents["config.yaml"]["workload"]
    assert (workload["train"]["epochs"], workload["dataset"]["num_files_train"]) == (2, 168)
    assert workload["storage"]["storage_options"]["secret_access_key"] == "[redacted]"
    hydra = documents["hydra.yaml"]["hydra"]
    assert (hydra["mode"], hydra["output_subdir"]) == ("RUN", "dlio_config")
    assert hydra["overrides"]["hydra"] == ["++hydra.output_subdir=dlio_config"]
    assert hydra["runtime"]["choices"] == {"workload": "unet3d_h100_s3"}
