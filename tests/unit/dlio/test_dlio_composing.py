"""Words to composed workloads: names, folders, files, overrides, sweeps, inheritance, interpolation."""

from pathlib import Path
from typing import Any

import pytest
from dlio_runs import config_of, workload_file

from stoker.bench.run.dlio import compose, shipped_names
from stoker.bench.run.dlio.shipped import entry_workload, load_shipped
from stoker.bench.run.dlio.tree import find, leaves, plain
from stoker.bench.workloads import catalogue
from stoker.core.errors import StokerError, UnknownNameError, UsageError

DLIO_NAMES = [
    *("bert_v100", "cosmoflow_a100", "cosmoflow_h100", "cosmoflow_v100", "default", "dlrm", "llama_1t", "llama_405b"),
    *("llama_70b", "llama_70b_zero3", "llama_7b", "llama_7b_zero3", "llama_8b_zero3", "megatron_deepspeed_LLNL"),
    *("resnet50_a100", "resnet50_h100", "resnet50_tf", "resnet50_v100", "unet3d_a100", "unet3d_a100_s3"),
    *("unet3d_h100", "unet3d_h100_s3", "unet3d_v100", "unet3d_v100_s3"),
]
NEWER_NAMES = [
    *("llama3_8b", "llama3_70b", "llama3_405b", "llama3_1t"),
    *("dlrm_b200", "dlrm_mi355", "flux_b200", "flux_mi355", "retinanet_b200", "retinanet_mi355", "unet3d_b200"),
]


def composed(*words: str) -> dict[str, Any]:
    return plain(compose(list(words))[0].workload)


def test_all_shipped_names_are_there() -> None:
    assert shipped_names() == sorted([*DLIO_NAMES, *NEWER_NAMES])
    assert len(DLIO_NAMES) == 24


@pytest.mark.parametrize("name", [*DLIO_NAMES, *NEWER_NAMES])
def test_every_shipped_workload_composes_with_places(name: str) -> None:
    run = compose([f"workload={name}"])[0]
    assert run.name == name
    assert all(leaf.origin.kind == "shipped" and leaf.origin.where for _, leaf in leaves(run.workload))


def test_files_and_catalogue_agree_where_both_have_a_workload() -> None:
    for entry in catalogue.entries():
        name = f"{entry.model}_{entry.accelerator}"
        if name not in DLIO_NAMES:
            continue
        from_file, own = plain(load_shipped(name)), entry_workload(entry)
        for section in ("dataset", "train", "metric"):
            own_section = {key: value for key, value in own[section].items() if key != "data_folder"}
            assert own_section.items() <= from_file[section].items()
        for key, value in from_file["reader"].items():
            assert own["reader"].get(key, value) == value


def test_no_word_at_all_is_the_default_workload() -> None:
    assert composed()["model"] == {"name": "default"}


@pytest.mark.parametrize(
    ("word", "path", "value"),
    [
        ("workload.train.epochs=2", "train.epochs", 2),
        ("+workload.reader.read_threads=8", "reader.read_threads", 8),
        ("++workload.reader.read_threads=8", "reader.read_threads", 8),
        ("++workload.train.epochs=3", "train.epochs", 3),
        ("++workload.train.computation_time=1e-3", "train.computation_time", 0.001),
        ("++workload.dataset.record_dims=[3,4]", "dataset.record_dims", [3, 4]),
        (
            "++workload.train.computation_time={mean:1.0,stdev:0.1}",
            "train.computation_time",
            {"mean": 1.0, "stdev": 0.1},
        ),
        ("++workload.framework=tensorflow", "framework", "tensorflow"),
        ("++workload.brand.new.key=x", "brand.new.key", "x"),
        ("++workload.dataset.data_folder='with, comma'", "dataset.data_folder", "with, comma"),
        ("++workload.output.folder=null", "output.folder", None),
    ],
)
def test_overrides_set_add_and_force(word: str, path: str, value: Any) -> None:
    run = compose(["workload=default", word])[0]
    node = find(run.workload, path.split("."))
    assert node is not None
    assert plain(node) == value
    assert all(leaf.origin == (type(leaf.origin))("override", word) for _, leaf in leaves({"x": node}))


def test_a_mapping_override_merges_and_a_value_replaces() -> None:
    assert composed("++workload.reader={batch_size:9}")["reader"] == {
        "data_loader": "pytorch",
        "batch_size": 9,
        "batch_size_eval": 1,
    }


def test_deletion() -> None:
    assert "evaluation" not in composed("~workload.evaluation")
    assert "epochs" not in composed("~workload.train.epochs=10")["train"]


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("workload.train.epoch=2", "did you mean 'epochs'"),
        ("workload.reader.read_threads=2", r"write \+\+workload.reader.read_threads= to add it"),
        ("+workload.train.epochs=2", r"write \+\+workload.train.epochs= to replace it"),
        ("~workload.nothing", "to delete"),
        ("~workload.train.epochs=11", "another value"),
        ("++workload=x", "no workload"),
        ("++workloads.train.epochs=2", "did you mean 'workload'"),
        ("++train.epochs=2", "write workload.train.epochs"),
        ("++workload.train.epochs", "has no value"),
        ("workload.train.epochs=1,2", "--multirun"),
        ("=5", "no proper key"),
        ("++a..b=5", "no proper key"),
        ("--no-such-flag", "unknown flag"),
        ("--multi-run", "did you mean --multirun"),
        ("--config-dir", "needs a value"),
        ("workload=unet3d_a10", "did you mean 'unet3d_a100'"),
        ("workload=../../etc/passwd", "leaves its root"),
        ("--config-dir=/no/such/folder", "folder is missing"),
        ("--config-name=x", "needs --config-dir"),
        ("++hydra=x", "whole tree"),
    ],
)
def test_wrong_words_are_told_in_one_sentence(word: str, told: str) -> None:
    with pytest.raises(StokerError, match=told.replace("--", "[-]-")) as caught:
        compose(["workload=default", word] if not word.startswith("workload=") else [word])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("separate", [False, True])
def test_config_dir_adds_and_shadows_workloads(tmp_path: Path, separate: bool) -> None:
    workload_file(tmp_path, "model: {name: mine}\n")
    workload_file(tmp_path, "model: {name: other}\n", name="unet3d_h100")
    folder = ["--config-dir", str(tmp_path)] if separate else [f"--config-dir={tmp_path}"]
    assert composed(*folder, "workload=mine") == {"model": {"name": "mine"}}
    run = compose([*folder, "workload=unet3d_h100"])[0]
    assert plain(run.workload) == {"model": {"name": "other"}}
    assert "not from the one that is shipped" in run.notes[0]
    assert composed(*folder, "workload=unet3d_a100")["model"]["name"] == "unet3d"
    with pytest.raises(UnknownNameError, match=r"nobody\.yaml"):
        compose([*folder, "workload=nobody"])


def test_a_plain_file_with_and_without_the_wrapper(tmp_path: Path) -> None:
    bare, wrapped = tmp_path / "bare.yaml", tmp_path / "wrapped.yaml"
    bare.write_text("model: {name: bare}\n")
    wrapped.write_text("# @package _global_\nworkload:\n  model: {name: wrapped}\nhydra:\n  run: {dir: there}\n")
    assert composed(str(bare)) == {"model": {"name": "bare"}}
    run = compose([str(wrapped), "++workload.model.name=again"])[0]
    assert plain(run.workload) == {"model": {"name": "again"}}
    assert plain(run.hydra)["run"] == {"dir": "there"}
    with pytest.raises(UsageError, match="both a file and a name"):
        compose([str(bare), "workload=default"])


def test_defaults_lists_inherit_and_hydras_own_groups_are_tolerated(tmp_path: Path) -> None:
    text = """
defaults:
  - override hydra/job_logging: disabled
  - override hydra/help: dlio_benchmark_help.yaml
  - unet3d_h100
  - _self_
train:
  epochs: 1
"""
    words = workload_file(tmp_path, text)
    tree = composed(*words)
    assert (tree["train"], tree["model"]["name"]) == ({"computation_time": 0.323, "epochs": 1}, "unet3d")
    assert "defaults" not in tree


def test_self_first_lets_the_parent_win(tmp_path: Path) -> None:
    words = workload_file(tmp_path, "defaults: [_self_, default]\ntrain: {epochs: 1}\nmodel: {type: own}\n")
    assert composed(*words)["train"]["epochs"] == 10
    assert composed(*words)["model"] == {"name": "default", "type": "own"}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("defaults: [mine]\n", "too deeply"),
        ("defaults: hello\n", "not a list"),
        ("defaults: [{db: mysql}]\n", "not understood"),
        ("defaults: [nobody]\n", "no workload"),
        ("model: {name: '${oc.env:HOME}'}\n", "resolver is not supported"),
        ("model: {name: '${.type}'}\n", "interpolation is not supported"),
        ("model: {name: '${workload.model.name}'}\n", "does not end"),
        ("model: {name: 'x${workload.model.name}x'}\n", "does not end"),
        ("model: {name: '${workload.nobody}'}\n", "names no value"),
    ],
)
def test_bad_inheritance_and_interpolation(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        compose(workload_file(tmp_path, text))


def test_interpolation_follows_overrides_and_keeps_types(tmp_path: Path) -> None:
    text = """
model: {name: m}
dataset: {data_folder: "data/${workload.model.name}", num_files_train: 4}
reader: {batch_size: "${dataset.num_files_train}"}
"""
    tree = composed(
        *workload_file(tmp_path, text), "++workload.model.name=other", "++workload.dataset.num_files_train=6"
    )
    assert tree["dataset"]["data_folder"] == "data/other"
    assert tree["reader"]["batch_size"] == 6


def test_config_name_takes_a_root_file(tmp_path: Path) -> None:
    (tmp_path / "root.yaml").write_text(
        "defaults:\n - _self_\n - workload: unet3d_a100\n - override hydra/help: x\n"
        "hydra:\n  run:\n    dir: ./results/${workload.model.name}/${now:%Y}\n"
        "workload:\n  train: {epochs: 77, seed: 5}\n"
    )
    run = compose([f"--config-dir={tmp_path}", "--config-name", "root"])[0]
    assert run.name == "unet3d_a100"
    assert plain(run.workload)["train"] == {"epochs": 5, "seed": 5, "computation_time": 0.636}
    assert plain(run.hydra)["run"]["dir"].startswith("./results/")
    with pytest.raises(UsageError, match="needs --config-dir"):
        compose(["--config-name=root"])


def test_multirun_gives_the_product_in_order() -> None:
    words = [
        "-m",
        "workload=default,unet3d_h100",
        "++workload.train.epochs=1,2",
        "++workload.dataset.record_dims=[2,3]",
    ]
    runs = compose(words)
    assert [(run.name, plain(run.workload)["train"]["epochs"]) for run in runs] == [
        ("default", 1),
        ("default", 2),
        ("unet3d_h100", 1),
        ("unet3d_h100", 2),
    ]
    assert [run.sweep_number for run in runs] == [0, 1, 2, 3]
    assert runs[1].overrides[1] == "++workload.train.epochs=2"
    with pytest.raises(UsageError, match="too large"):
        compose(["--multirun", *[f"++workload.x.k{n}=0,1,2,3,4,5,6,7,8,9" for n in range(4)]])


def test_hydra_groups_are_accepted_and_told() -> None:
    run = compose(["hydra/job_logging=disabled", "workload=default"])[0]
    assert "no effect" in run.notes[0]


SECRETS = [
    "++workload.storage.storage_options.secret_access_key=canary",
    "++workload.storage.storage_options={access_key_id:canary,secret_access_key:canary}",
    "++workload.dataset.data_folder=s3://user:canary@bucket/x",
]


@pytest.mark.parametrize("word", SECRETS)
def test_secrets_stay_out_of_words_origins_and_settings(word: str) -> None:
    config = config_of("workload=default", word)
    assert "canary" not in str(config.composition.overrides)
    assert "canary" not in str([resolved.origin for resolved in config.values.values()])
    if "storage" in word:
        assert "canary" not in str(config.settings())


def test_a_broken_secret_is_not_repeated_in_the_message() -> None:
    with pytest.raises(UsageError, match="quotes") as caught:
        compose(["++workload.storage.storage_options.secret_access_key=canary("])
    assert "canary" not in str(caught.value)
