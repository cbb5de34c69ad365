"""DLIO's and MLPerf's words on the command line: overrides, folders, sweeps, queries, shipped workloads."""

import yaml
from dlio_commands import CONFIG_FOLDER, OUT, Place, tiny
from dlio_schema import check_output_files, hydra_file


def test_the_wrapper_of_mlperf_finds_its_files(place: Place) -> None:
    words = [
        "workload=unet3d_h100",
        "++hydra.run.dir=results/unet3d/run/1",
        "++hydra.output_subdir=dlio_config",
        "++workload.dataset.num_files_train=8",
        "++workload.dataset.num_subfolders_train=0",
        "++workload.dataset.data_folder=storage/unet3d",
        "++workload.dataset.record_length_bytes=4096",
        "++workload.dataset.record_length_bytes_stdev=0",
        "++workload.reader.batch_size=2",
        "++workload.reader.read_threads=2",
        "++workload.train.computation_time=0.005",
        "++workload.train.epochs=2",
        "++workload.workflow.generate_data=True",
        "++workload.workflow.checkpoint=False",
    ]
    (place.folder / CONFIG_FOLDER / "workload").mkdir(parents=True)
    done = place.stoker("dlio", *words, f"--config-dir={CONFIG_FOLDER}", "--json")
    assert done.code in (0, 3), done.errors
    out = "results/unet3d/run/1"
    check_output_files(place, steps=4, out=out)
    assert hydra_file(place, "overrides.yaml", out) == [word for word in words if not word.startswith("++hydra")]
    config = hydra_file(place, "config.yaml", out)["workload"]
    assert config["dataset"]["num_files_train"] == 8
    assert config["reader"] == {**config["reader"], "batch_size": 2, "read_threads": 2, "file_shuffle": "seed"}
    hydra = hydra_file(place, "hydra.yaml", out)["hydra"]
    assert hydra["run"]["dir"] == out and hydra["output_subdir"] == "dlio_config"
    assert hydra["runtime"]["choices"]["workload"] == "unet3d_h100"
    assert len(place.files("train", "storage/unet3d")) == 8


def test_a_sweep_runs_once_for_each_combination(place: Place) -> None:
    place.workload("mine", tiny("npz", train={"epochs": 1}))
    words = ["-m", "workload=mine", "++workload.reader.batch_size=2,4", "++hydra.sweep.dir=sweep"]
    done = place.stoker("dlio", *words, f"--config-dir={CONFIG_FOLDER}", "--quiet")
    assert done.code in (0, 3), done.errors
    assert sorted(folder.name for folder in (place.folder / "sweep").iterdir()) == ["0", "1"]
    check_output_files(place, steps=4, out="sweep/0")
    check_output_files(place, steps=2, out="sweep/1")
    overrides = yaml.safe_load((place.folder / "sweep/1/.hydra/overrides.yaml").read_text())
    assert overrides == ["workload=mine", "++workload.reader.batch_size=4"]


def test_without_a_folder_the_output_goes_where_hydra_puts_it(place: Place) -> None:
    done = place.stoker("dlio", place.workload("mine", tiny("npz")), "--config-dir", CONFIG_FOLDER)
    assert done.code in (0, 3), done.errors
    (out,) = (place.folder / "hydra_log" / "tiny_npz").iterdir()
    assert {"summary.json", "dlio.log", "0_output.json", "0_per_epoch_stats.json", ".hydra"} <= {
        file.name for file in out.iterdir()
    }


def test_the_output_section_names_folder_and_log(place: Place) -> None:
    word = place.workload("mine", tiny("npz", output={"folder": "elsewhere", "log_file": "mine.log"}))
    done = place.dlio(word)
    assert done.code in (0, 3), done.errors
    names = {file.name for file in (place.folder / "elsewhere").iterdir()}
    assert {"summary.json", "mine.log", "0_output.json", "0_per_epoch_stats.json"} <= names
    assert hydra_file(place, "overrides.yaml") == ["workload=mine"]
    assert not (place.folder / OUT / "summary.json").exists()


def test_a_second_run_into_the_same_folder_replaces_dlios_files_and_keeps_our_first_result(place: Place) -> None:
    word = place.workload("mine", tiny("npz", train={"epochs": 1}))
    place.dlio(word)
    done = place.dlio(word, "++workload.reader.batch_size=4")
    assert done.code in (0, 3), done.errors
    assert len(place.json("0_output.json")["1"]["load"]["block1"]) == 2
    assert place.result().plan.batch_size == 2
    assert done.document["folder"] != f"{OUT}/stoker"


def test_a_query_prints_one_value_and_runs_nothing(place: Place) -> None:
    word = place.workload("mine", tiny("npz"))
    done = place.stoker("dlio", word, "++workload.workflow.query=reader.batch_size", "--config-dir", CONFIG_FOLDER)
    assert (done.code, done.out) == (0, "2\n")
    assert not (place.folder / "data").exists() and not (place.folder / "hydra_log").exists()


def test_unknown_keys_are_warned_of_and_are_errors_when_strict(place: Place) -> None:
    word = place.workload("mine", tiny("npz", workflow={"evaluate": True}, reader={"bach_size": 7}))
    done = place.dlio(word, "--strict")
    assert done.code == 2
    assert "reader.batch_size" in done.errors and "workflow.evaluation" in done.errors
    assert not (place.folder / "data").exists()
    done = place.dlio(word)
    assert done.code in (0, 3)
    assert done.errors.count("warning: ") == 2 and "mine.yaml" in done.errors


def test_a_dry_run_tells_the_plan_and_touches_nothing(place: Place) -> None:
    done = place.dlio(place.workload("mine", tiny("npz")), "--dry-run")
    assert done.code == 0, done.errors
    assert done.document["batch_size"] == 2 and done.document["predicted"]["steps_per_epoch"] == 4
    assert {entry.name for entry in place.folder.iterdir()} == {CONFIG_FOLDER}


def test_shipped_workloads_are_planned_as_they_are(place: Place) -> None:
    done = place.stoker("dlio", "-m", "workload=resnet50_a100,cosmoflow_h100,bert_v100", "--dry-run", "--ranks", "2")
    assert done.code == 0, done.errors
    for word in ("resnet50", "cosmoflow", "bert"):
        assert word in done.out
