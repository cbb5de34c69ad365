"""Typed values with origins; unknown, misspelt and ineffective keys told; DLIO's conditions."""

from pathlib import Path

import pytest
from dlio_runs import config_of, workload_file

from stoker.bench.run.dlio import TABLE, compose, query, resolve, shipped_names
from stoker.bench.run.dlio.config import DlioConfig
from stoker.core.errors import UnknownNameError, UsageError


def problems(config: DlioConfig) -> dict[str, str]:
    return {problem.path: problem.kind for problem in config.problems}


def test_rows_are_sound() -> None:
    paths = [row.path for row in TABLE.rows]
    assert len(set(paths)) == len(paths)
    for row in TABLE.rows:
        assert row.meaning
        assert row.effect in ("honoured", "noted", "inert", "not_run")
        assert (row.kind == "choice") == bool(row.choices)
        if row.default is not None and row.kind == "choice":
            assert row.default in row.choices


@pytest.mark.parametrize("name", shipped_names())
def test_every_shipped_workload_resolves(name: str) -> None:
    config = config_of(f"workload={name}")
    assert {problem.kind for problem in config.problems} <= {"misspelt", "unknown", "not_run", "no_effect"}


def test_defaults_are_dlios() -> None:
    config = config_of("workload=llama_7b")
    expected = {
        "framework": "pytorch",
        "workflow.train": False,
        "dataset.record_length_bytes": 65536,
        "dataset.num_files_train": 8,
        "dataset.format": "tfrecord",
        "reader.prefetch_size": 2,
        "reader.file_shuffle": "off",
        "train.seed": 123,
        "output.metric.exclude_start_steps": 1,
        "metric.au": 0.90,
        "checkpoint.steps_between_checkpoints": -1,
    }
    assert {path: config.value(path) for path in expected} == expected


def test_origins_tell_file_override_and_default(tmp_path: Path) -> None:
    words = workload_file(tmp_path, "train:\n  epochs: 3\n")
    config = config_of(*words, "++workload.train.seed=9")
    where = {path: config.values[path].origin for path in ("train.epochs", "train.seed", "train.computation_time")}
    assert where["train.epochs"].where == f"{tmp_path}/workload/mine.yaml:2"
    assert (where["train.seed"].kind, where["train.seed"].where) == ("override", "++workload.train.seed=9")
    assert where["train.computation_time"].kind == "default"
    settings = config.settings()
    assert [settings[path].origin for path in where] == ["file", "flag", "default"]
    assert config_of("workload=default").settings()["train.epochs"].origin == "preset"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (
            "reader: {batch_size: four}",
            "reader.batch_size at .*mine.yaml:1 is no good: expected a whole number, got 'four'",
        ),
        ("reader: {batch_size: 1.5}", "expected a whole number"),
        ("reader: {batch_size: 0}", "at least 1"),
        ("reader: {batch_size: [1]}", "expected a whole number"),
        ("reader: {batch_size: true}", "expected a whole number"),
        ("reader: {batch_size: {a: 1}}", "got a mapping"),
        ("reader: 5", "a section of keys"),
        ("dataset: {record_length_bytes: .inf}", "finite"),
        ("dataset: {record_length_bytes: 0}", "at least 1"),
        ("dataset: {num_files_train: 99999999999999999999999}", "whole number"),
        ("dataset: {keep_files: maybe}", "true or false"),
        ("dataset: {record_dims: [1, x]}", "whole number"),
        ("dataset: {record_dims: 5}", "list of whole numbers"),
        ("dataset: {record_dims: [0]}", "at least 1"),
        ("dataset: {format: nzp}", "'npz'"),
        ("dataset: {format: hdf5_opt}", "'hdf5'"),
        ("dataset: {data_folder: [a]}", "text"),
        ("dataset: {parquet: {columns: many}}", "name, dtype, size, read"),
        ("framework: pytorhc", "'pytorch'"),
        ("reader: {data_loader: torch}", "'pytorch'"),
        ("reader: {file_shuffle: sometimes}", "off seed random"),
        ("train: {epochs: -1}", "at least 1"),
        ("train: {computation_time: {mean: fast}}", "finite number"),
        ("train: {computation_time: quick}", "finite number"),
        ("metric: {au: 90}", "write 0.9"),
        ("storage: {storage_type: nfs}", "local_fs"),
        ("storage: {storage_options: 5}", "mapping"),
    ],
)
def test_a_wrong_type_is_told_with_place_key_expected_and_got(tmp_path: Path, line: str, told: str) -> None:
    words = workload_file(tmp_path, f"{line}\n")
    with pytest.raises(UsageError, match=told):
        config_of(*words)


def test_null_and_empty_sections_stand_for_the_defaults(tmp_path: Path) -> None:
    config = config_of(
        *workload_file(tmp_path, "reader:\ntrain: {}\noutput: {folder: null}\ndataset: {format: null}\n")
    )
    assert (config.whole("reader.batch_size"), config.text("output.folder"), config.text("dataset.format")) == (
        1,
        "",
        "tfrecord",
    )
    assert config.problems == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [("off", "off"), ("'off'", "off"), ("seed", "seed"), ("False", "off"), ("no", "off")],
)
def test_shuffle_off_in_any_spelling(tmp_path: Path, text: str, value: str) -> None:
    config = config_of(*workload_file(tmp_path, f"reader: {{file_shuffle: {text}}}\n"))
    assert config.text("reader.file_shuffle") == value
    assert config_of("++workload.reader.sample_shuffle=False").text("reader.sample_shuffle") == "off"


STRANGE = {
    "model: {model_size: 5}": ("model.model_size", "misspelt", "model.model_size_bytes"),
    "workflow: {evaluate: true}": ("workflow.evaluate", "misspelt", "workflow.evaluation"),
    "dataset: {record_length: 5}": ("dataset.record_length", "misspelt", "dataset.record_length_bytes"),
    "dataset: {num_file_train: 5}": ("dataset.num_file_train", "unknown", "dataset.num_files_train"),
    "reader: {bach_size: 5}": ("reader.bach_size", "unknown", "reader.batch_size"),
    "readers: {batch_size: 5}": ("readers.batch_size", "unknown", "reader.batch_size"),
    "epochs: 5": ("epochs", "unknown", "train.epochs"),
    "zzz: {qqq: 5}": ("zzz.qqq", "unknown", ""),
    "storage: {storage_options: {acess_key_id: x}}": (
        "storage.storage_options.acess_key_id",
        "unknown",
        "access_key_id",
    ),
}


@pytest.mark.parametrize("line", STRANGE)
def test_unknown_and_misspelt_keys_are_told_with_their_neighbour(tmp_path: Path, line: str) -> None:
    path, kind, neighbour = STRANGE[line]
    words = workload_file(tmp_path, f"# first\n{line}\n")
    config = config_of(*words)
    found = next(problem for problem in config.problems if problem.path == path)
    assert (found.kind, found.where) == (kind, f"{tmp_path}/workload/mine.yaml:2")
    assert neighbour in found.message
    with pytest.raises(UsageError, match="not strictly right") as caught:
        config_of(*words, strict=True)
    assert path.rpartition(".")[2] in str(caught.value)


@pytest.mark.parametrize(
    ("line", "path", "kind"),
    [
        (
            "{workflow: {checkpoint: true}, checkpoint: {recovery_rank_shift: true}}",
            "checkpoint.recovery_rank_shift",
            "not_run",
        ),
        ("{workflow: {checkpoint: true}, checkpoint: {type: all_ranks}}", "checkpoint.type", "no_effect"),
        ("workflow: {profiling: true}", "workflow.profiling", "not_run"),
        ("dataset: {enable_chunking: true}", "dataset.enable_chunking", "no_effect"),
        ("reader: {file_access: shared}", "reader.file_access", "no_effect"),
        ("reader: {reader_classname: a.b.C}", "reader.reader_classname", "not_run"),
        ("reader: {transfer_size: 65536}", "reader.transfer_size", "not_run"),
        ("storage: {simulate_io: true}", "storage.simulate_io", "not_run"),
        ("dataset: {format: npz, hdf5: {chunk_dims: [4]}}", "dataset.hdf5.chunk_dims", "no_effect"),
        ("dataset: {format: npz, compression_level: 4}", "dataset.compression_level", "no_effect"),
        ("dataset: {format: jpeg, record_element_type: float32}", "dataset.record_element_type", "no_effect"),
        ("{framework: pytorch, reader: {data_loader: tensorflow}}", "reader.data_loader", "refused_by_dlio"),
        ("{dataset: {format: tfrecord}, reader: {data_loader: pytorch}}", "dataset.format", "refused_by_dlio"),
        ("{dataset: {format: csv}, reader: {odirect: true}}", "reader.odirect", "refused_by_dlio"),
        ("{dataset: {format: csv}, storage: {storage_type: s3}}", "dataset.format", "refused_by_dlio"),
        ("workflow: {train: false, evaluation: true}", "workflow.evaluation", "no_effect"),
        ("reader: {data_loader: synthetic}", "reader.data_loader", "not_run"),
        ("reader: {data_loader: custom, data_loader_sampler: index}", "reader.data_loader", "not_run"),
        ("{dataset: {data_folder: s3://b/x}, storage: {}, reader: {odirect: true}}", "reader.odirect", "no_effect"),
        (
            "{dataset: {data_folder: s3://b/x}, storage: {storage_root: other}}",
            "storage.storage_root",
            "no_effect",
        ),
        ("storage: {uri_scheme: gs}", "storage.uri_scheme", "no_effect"),
        (
            "storage: {storage_options: {prefetch_workers: 64}}",
            "storage.storage_options.prefetch_workers",
            "not_run",
        ),
    ],
)
def test_keys_without_effect_are_never_silent(tmp_path: Path, line: str, path: str, kind: str) -> None:
    words = workload_file(tmp_path, f"{line}\n")
    assert problems(config_of(*words)).get(path) == kind
    with pytest.raises(UsageError, match="not strictly right"):
        config_of(*words, strict=True)


def test_checkpoint_keys_are_idle_while_checkpoints_are_off() -> None:
    config = config_of("workload=default", "++workload.checkpoint.fsync=True", "++workload.model.num_layers=4")
    assert config.problems == ()
    assert config_of("workload=default", strict=True).problems == ()


def test_hydras_other_settings_are_told() -> None:
    config = config_of("workload=default", "++hydra.job.chdir=True", "++hydra.run.dir=/tmp/x")
    assert problems(config) == {"hydra.job.chdir": "no_effect"}


def test_accepted_keys_that_are_done_another_way_are_noted() -> None:
    notes = " ".join(config_of("workload=unet3d_h100").notes)
    assert "reader.data_loader=pytorch" in notes
    assert "framework=pytorch" in notes


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("dataset: {record_dims: [4], record_length_bytes_stdev: 5}", "exclude each other"),
        (
            "dataset: {format: jpeg, record_dims: [4, 4, 3]}",
            r"jpeg format does not support more than 2 dimensions, but got 3 dimensions\.",
        ),
        ("dataset: {format: hdf5, record_dims: [5, 4], hdf5: {num_dset_per_record: 2}}", "multiple of"),
    ],
)
def test_conditions_on_the_whole(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        config_of(*workload_file(tmp_path, f"{line}\n"))


def test_data_reader_wins_over_reader(tmp_path: Path) -> None:
    config = config_of(
        *workload_file(tmp_path, "reader: {batch_size: 2, read_threads: 9}\ndata_reader: {batch_size: 3}\n")
    )
    assert (config.whole("reader.batch_size"), config.whole("reader.read_threads")) == (3, 1)
    assert "data_reader counts" in " ".join(config.notes)


DRIVER = """
model: {name: unet3d, model_size: 1024, framework: pytorch}
workflow: {train: true}
dataset: {data_folder: "file:///mnt/data", format: npz, num_files_train: 16}
reader: {batch_size: 2, prefetch: 4, shuffle: true, compute_threads: 3, seed: 7}
checkpoint: {enabled: false, uri: "file:///mnt/checkpoints"}
metric: {au: 85}
pytorch_config: {num_workers: 6, persistent_workers: true}
"""


def test_the_dl_driver_dialect_is_understood_in_a_plain_file(tmp_path: Path) -> None:
    file = tmp_path / "driver.yaml"
    file.write_text(DRIVER)
    config = resolve(compose([str(file)])[0])
    expected = {
        "reader.prefetch_size": 4,
        "reader.file_shuffle": "seed",
        "reader.sample_shuffle": "seed",
        "reader.computation_threads": 3,
        "reader.read_threads": 6,
        "train.seed": 7,
        "metric.au": 0.85,
        "model.model_size_bytes": 1024,
        "framework": "pytorch",
        "checkpoint.checkpoint_folder": "file:///mnt/checkpoints",
        "workflow.checkpoint": False,
    }
    assert {path: config.value(path) for path in expected} == expected
    assert config.dialect == "dl-driver"
    assert config.values["reader.prefetch_size"].origin.where == f"{file}:5"
    assert problems(config) == {"pytorch_config.persistent_workers": "no_effect"}


def test_the_dialect_needs_its_shape(tmp_path: Path) -> None:
    words = workload_file(tmp_path, "reader: {prefetch: 4}\n")
    config = config_of(*words)
    assert (config.dialect, config.whole("reader.prefetch_size")) == ("dlio", 2)
    assert problems(config) == {"reader.prefetch": "misspelt"}
    with_url = config_of(*words, "++workload.dataset.data_folder=file:///mnt/x")
    assert (with_url.dialect, with_url.whole("reader.prefetch_size")) == ("dl-driver", 4)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("reader.batch_size", "4"),
        ("workload.reader.batch_size", "4"),
        ("data_reader.batch_size", "4"),
        ("dataset.num_files_eval", "8"),
        ("output.folder", "None"),
        ("train.computation_time", "1.0"),
        ("workflow.checkpoint", "False"),
    ],
)
def test_query_prints_one_value(path: str, text: str) -> None:
    assert query(config_of(f"++workload.workflow.query={path}")) == text


def test_query_refuses_unknown_keys_and_hides_secrets() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'reader\.batch_size'"):
        query(config_of("++workload.workflow.query=reader.batch_sizes"))
    with pytest.raises(UsageError, match="nothing is queried"):
        query(config_of())
    config = config_of("workload=unet3d_h100_s3", "++workload.workflow.query=storage.storage_options")
    assert "secret-key" not in query(config)
    assert "localhost:9020" in query(config)
