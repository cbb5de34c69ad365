"""A command as DLIO's words, where each came from, and what the rules say of it before it runs."""

from pathlib import Path
from typing import Any

import pytest

from stoker.bench.report.submission import LeafFacts, write_leaf
from stoker.bench.run.dlio import compose, resolve
from stoker.bench.run.hosts.start import Ended
from stoker.bench.run.mlperf.conducting import engine_arguments, outcome_of
from stoker.bench.run.mlperf.dataset import extent_of, newest_size
from stoker.bench.run.mlperf.engine import Engine, launch_settings
from stoker.bench.run.mlperf.exits import FAILURE, INTERRUPTED, SUCCESS, ConfigurationError
from stoker.bench.run.mlperf.prepare import Prepared, prepare
from stoker.bench.run.mlperf.resolving import Place, resolve_invocation
from stoker.bench.run.mlperf.results_dir import ResultsDir, initialise
from stoker.bench.run.mlperf.storing import data_place
from stoker.bench.run.mlperf.words import quoted
from stoker.core.errors import UsageError
from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.generate import generate
from stoker.storage.opening import open_store

RUN = Place("open", "training", "unet3d", "run", "file")


@pytest.fixture
def results(tmp_path: Path) -> ResultsDir:
    return initialise(tmp_path / "results", "acme")


def prepared(
    results: ResultsDir, place: Place = RUN, environment: dict[str, str] | None = None, **flags: Any
) -> Prepared:
    needed = {
        "results_dir": str(results.root),
        "systemname": "sysA",
        "client_host_memory_in_gb": "0.25",
        "num_accelerators": "2",
        "accelerator_type": "b200",
        "data_dir": "/data",
        **flags,
    }
    return prepare(resolve_invocation(place, needed, environment or {}, strict=False), environment or {})


def test_the_words_of_a_run_are_what_the_engine_resolves(results: ResultsDir) -> None:
    found = prepared(results, params=("dataset.num_files_train=56", "reader.read_threads=2"), o_direct=True)
    words = found.dlio_words("/out of/it's here")
    config = resolve(compose(words)[0], strict=True)
    assert config.value("dataset.data_folder") == "/data/unet3d"
    assert (config.value("dataset.num_files_train"), config.value("reader.read_threads")) == (56, 2)
    assert (config.value("reader.odirect"), config.value("workflow.train")) == (True, True)
    assert "/out of/it's here" in words[-2].replace("\\'", "'")
    assert found.workload["dataset"]["num_files_train"] == 56


def test_objects_are_reached_by_the_keys_that_the_tool_may_set(results: ResultsDir) -> None:
    place = Place("open", "training", "unet3d", "run", "object")
    found = prepared(results, place, data_dir="s3://bucket/some where", params=("dataset.num_files_train=56",))
    config = resolve(compose(found.dlio_words("out"))[0])
    assert (config.value("storage.storage_type"), config.value("storage.storage_root")) == ("s3", "bucket")
    assert config.value("dataset.data_folder") == "some where/unet3d"
    assert found.foretold.refusal(allow_invalid=True) == ""


@pytest.mark.parametrize(
    "text", ["plain", "a b", "it's", "a,b", "{x}", "back\\slash", "end\\", "a\\'b", "ünï", "a=b", "(c)"]
)
def test_any_path_survives_as_a_value(text: str) -> None:
    words = ["workload=unet3d_b200", f"++workload.dataset.data_folder={quoted(text)}"]
    assert resolve(compose(words)[0]).value("dataset.data_folder") == text


def test_an_option_and_an_override_must_not_contradict_each_other(results: ResultsDir) -> None:
    with pytest.raises(UsageError, match=r"dataset\.data_folder contradicts --data-dir"):
        prepared(results, params=("dataset.data_folder=/elsewhere",))


def sized(results: ResultsDir, stamp: str, files: object) -> None:
    leaf = results.leaf("open", "sysA", "training", "unet3d", "datasize", stamp)
    facts = LeafFacts(
        family="training", command="datasize", division="open", org="acme", system="sysA", model="unet3d", stamp=stamp,
        parameters={"dataset": {"num_files_train": files, "num_subfolders_train": 3}},
    )  # fmt: skip
    write_leaf(leaf, facts, run_folder=None)


def test_a_run_takes_what_the_newest_datasize_said(results: ResultsDir) -> None:
    sized(results, "20260101_000000", 100)
    sized(results, "20260102_000000", 200)
    sized(results, "20260103_000000", "many")  # not a number: passed over
    found = prepared(results)
    word = found.extent.words["dataset.num_files_train"]
    assert (word.value, word.origin) == ("200", "datasize")
    assert word.where.endswith("datasize/20260102_000000")
    assert newest_size(found.invocation, results) is not None
    other = resolve_invocation(RUN, {"systemname": "sysB"}, {}, strict=False)
    assert newest_size(other, results) is None


def test_a_run_takes_what_lies_there_and_its_subfolders(results: ResultsDir, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "data/unet3d"), create=True)
    generate(store, DatasetSpec(format="npz", files=6, record_length_bytes=64.0, subfolders=2))
    store.close()
    found = prepared(results, data_dir=str(tmp_path / "data"))
    assert {key: word.value for key, word in found.extent.words.items()} == {
        "dataset.num_files_train": "6",
        "dataset.num_subfolders_train": "2",
    }
    fewer = prepared(results, data_dir=str(tmp_path / "data"), params=("dataset.num_files_train=5",))
    assert fewer.extent.files == 5
    more = prepared(results, data_dir=str(tmp_path / "data"), params=("dataset.num_files_train=7",))
    assert "at most 6, as were generated" in more.foretold.refusal()


@pytest.mark.parametrize("value", ["-1", "1.5", "many", "9" * 20])
def test_a_file_count_that_is_none_is_refused(results: ResultsDir, value: str) -> None:
    with pytest.raises(UsageError, match="a whole number is needed"):
        prepared(results, params=(f"dataset.num_files_train={value}",))


@pytest.mark.parametrize(
    ("flags", "rule"),
    [
        ({"params": ("dataset.num_files_train=56",)}, "3.3.1"),
        ({"num_accelerators": "3", "hosts": ("a b",)}, "3.3.6"),
        ({"hosts": ("a:1 b:2",)}, "3.3.6"),
        ({"params": ("reader.batch_size=3",)}, "3.6.3"),
        ({"params": ("reader.bach_size=3",)}, "3.6.3"),
    ],
)
def test_what_the_rules_refuse_is_known_before_the_run(results: ResultsDir, flags: Any, rule: str) -> None:
    verdict = prepared(results, **flags).foretold
    assert f"[{rule} " in verdict.refusal()
    assert verdict.refusal(allow_invalid=True) == ""


def test_data_inside_of_the_results_are_refused(results: ResultsDir) -> None:
    assert "[3.4.1 " in prepared(results, data_dir=str(results.root / "data")).foretold.refusal()


def test_closed_refuses_what_only_open_allows_even_where_invalid_is_allowed(results: ResultsDir) -> None:
    place = Place("closed", "training", "unet3d", "run", "file")
    verdict = prepared(results, place, params=("framework=jax", "dataset.num_files_train=100000")).foretold
    assert "framework" in verdict.refusal(allow_invalid=True)


def test_a_large_enough_run_is_not_refused(results: ResultsDir) -> None:
    found = prepared(results, num_client_hosts="1", params=("dataset.num_files_train=1000000",))
    assert found.foretold.refusal() == ""


def test_the_engine_gets_a_fresh_seed_and_our_folder(results: ResultsDir, tmp_path: Path) -> None:
    found = prepared(
        results, params=("dataset.num_files_train=56",), timeseries_interval="2", max_timeseries_samples="9"
    )
    first, second = (engine_arguments(found, Engine(None), tmp_path, tmp_path / "ours") for _ in range(2))
    seeds = [next(word for word in words if word.startswith("--access-seed=")) for words in (first, second)]
    assert seeds[0] != seeds[1]
    assert {f"--run-folder={tmp_path / 'ours'}", "--ranks=2", "--host-interval=2", "--host-samples=9"} <= set(first)
    quiet = prepared(results, params=("dataset.num_files_train=56",), skip_timeseries=True)
    assert "--host-interval=0" in engine_arguments(quiet, Engine(None), tmp_path, tmp_path)


def test_closed_always_samples(results: ResultsDir, tmp_path: Path) -> None:
    found = prepared(
        results, Place("closed", "training", "unet3d", "run", "file"), params=("dataset.num_files_train=9",)
    )
    words = engine_arguments(found, Engine(None), tmp_path, tmp_path)
    assert not [word for word in words if word.startswith("--host-")]


@pytest.mark.parametrize(
    ("ended", "code"),
    [
        (Ended(0, told=True), SUCCESS),
        (Ended(3, told=True), SUCCESS),  # ran to its end; the verdict is told apart
        (Ended(4, told=True), SUCCESS),
        (Ended(6, told=True), INTERRUPTED),
        (Ended(130, told=True), INTERRUPTED),
        (Ended(143, told=False), INTERRUPTED),
        (Ended(0, told=False), FAILURE),
        (Ended(1, told=True), FAILURE),
        (Ended(5, told=True), FAILURE),
    ],
)
def test_how_the_engine_ended_as_the_reference_tool_says_it(ended: Ended, code: int) -> None:
    assert outcome_of(ended)[0] == code


def test_a_variable_names_the_path_of_the_launcher(results: ResultsDir) -> None:
    invocation = prepared(results, mpi_bin="mpiexec").invocation
    assert (
        launch_settings(invocation, {"MPI_EXEC_BIN": "/opt/mpi/bin/mpiexec"})["mpi_bin"].value == "/opt/mpi/bin/mpiexec"
    )
    assert launch_settings(invocation, {"MPI_RUN_BIN": "/opt/x"})["mpi_bin"].value == "mpiexec"


def test_ranks_are_local_unless_a_host_or_the_launcher_is_named(results: ResultsDir) -> None:
    assert not prepared(results, oversubscribe=True, allow_run_as_root=True).invocation.over_mpi
    assert prepared(results, hosts=("other",)).invocation.over_mpi
    assert prepared(results, mpi_bin="mpirun").invocation.over_mpi


def test_without_results_only_commands_that_keep_nothing_go_on(tmp_path: Path) -> None:
    flags = {"data_dir": "/d", "results_dir": str(tmp_path / "none"), "systemname": "s", "accelerator_type": "b200"}
    view = resolve_invocation(Place("open", "training", "unet3d", "configview", "file"), flags, {}, strict=False)
    assert prepare(view, {}).results is None
    with pytest.raises(ConfigurationError, match="E101"):
        prepare(resolve_invocation(RUN, flags, {}, strict=False), {})


def test_an_extent_without_anything_has_no_files(results: ResultsDir) -> None:
    found = prepared(results)
    assert extent_of(found.invocation, results, data_place(found.invocation, {})).files is None
