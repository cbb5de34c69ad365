"""What a workload switches on: generation alone, training alone, evaluation, checkpoints, subfolders, several ranks."""

import numpy as np
import pytest
from dlio_commands import OUT, Place, tiny
from dlio_schema import check_output_files, compatible_figures, hydra_file


def test_generation_alone_makes_both_splits_and_no_figures(place: Place) -> None:
    workload = tiny("npz", workflow={"train": False}, dataset={"num_files_eval": 3})
    done = place.dlio(place.workload("mine", workload))
    assert done.code == 0, done.errors
    assert done.document["generated"] == {"train": 8, "valid": 3}
    assert place.files("train") == [f"img_{number}_of_8.npz" for number in range(8)]
    assert place.files("valid") == [f"img_{number}_of_3.npz" for number in range(3)]
    assert not list((place.folder / OUT).glob("*.json"))
    assert hydra_file(place, "overrides.yaml") == ["workload=mine"]


def test_training_alone_reads_what_an_earlier_command_made(place: Place) -> None:
    word = place.workload("mine", tiny("hdf5"))
    place.dlio(word, "++workload.workflow.train=False")
    made = {name: (place.folder / "data/train" / name).stat().st_mtime_ns for name in place.files("train")}
    done = place.dlio(word, "++workload.workflow.generate_data=False")
    assert done.code in (0, 3), done.errors
    check_output_files(place, steps=4)
    assert made == {name: (place.folder / "data/train" / name).stat().st_mtime_ns for name in place.files("train")}


def test_training_without_a_dataset_says_how_to_make_one(place: Place) -> None:
    done = place.dlio(place.workload("mine", tiny("npz")), "++workload.workflow.generate_data=False")
    assert done.code == 5
    assert "++workload.workflow.generate_data=True" in done.errors
    assert not (place.folder / OUT / "summary.json").exists()


def test_fewer_files_than_asked_for_is_an_error(place: Place) -> None:
    word = place.workload("mine", tiny("npz"))
    place.dlio(word, "++workload.workflow.train=False")
    done = place.dlio(word, "++workload.workflow.generate_data=False", "++workload.dataset.num_files_train=12")
    assert done.code == 5
    assert "12" in done.errors and "8" in done.errors


def test_more_files_than_asked_for_are_read_in_part(place: Place) -> None:
    word = place.workload("mine", tiny("npz"))
    place.dlio(word, "++workload.workflow.train=False")
    done = place.dlio(word, "++workload.workflow.generate_data=False", "++workload.dataset.num_files_train=6")
    assert done.code in (0, 3), done.errors
    check_output_files(place, steps=3)


def test_evaluation_follows_the_epochs_it_was_asked_after(place: Place) -> None:
    workload = tiny(
        "npz",
        workflow={"evaluation": True},
        dataset={"num_files_eval": 6},
        reader={"batch_size_eval": 3},
        train={"epochs": 3},
        evaluation={"eval_time": 0.005, "eval_after_epoch": 1, "epochs_between_evals": 2},
    )
    done = place.dlio(place.workload("mine", workload))
    assert done.code in (0, 3), done.errors
    check_output_files(place, steps=4, eval_steps=2)
    stats = place.json("0_per_epoch_stats.json")
    assert [epoch for epoch, timeline in stats.items() if "eval" in timeline] == ["1", "3"]
    assert place.json("summary.json")["num_files_eval"] == 6
    log = (place.folder / OUT / "dlio.log").read_text()
    assert "[METRIC] Eval Accelerator Utilization [AU] (%): " in log


def test_subfolders_are_named_and_filled_as_by_dlio(place: Place) -> None:
    workload = tiny("npy", dataset={"num_files_train": 20, "num_subfolders_train": 10}, train={"epochs": 1})
    done = place.dlio(place.workload("mine", workload))
    assert done.code in (0, 3), done.errors
    assert place.files("train") == sorted(f"{number % 10:02}/img_{number:02}_of_20.npy" for number in range(20))
    check_output_files(place, steps=10)


def test_checkpoints_in_the_training_loop_end_blocks(place: Place) -> None:
    workload = tiny("npz", checkpoint={"checkpoint_folder": "checkpoints", "steps_between_checkpoints": 2})
    word = place.workload("mine", workload)
    done = place.dlio(word, "++workload.workflow.checkpoint=True", "++workload.model.model_size_bytes=5000")
    assert done.code in (0, 3), done.errors
    stats = place.json("0_per_epoch_stats.json")
    epochs = sorted(stats)
    assert all({"block1", "block2"} <= set(stats[epoch]) for epoch in epochs)
    saves = [name for epoch in epochs for name in stats[epoch] if "ckpt" in name]
    assert saves == [f"save_ckpt{number}" for number in range(1, 2 * len(epochs) + 1)]
    files = sorted(str(path.relative_to(place.folder)) for path in (place.folder / "checkpoints").rglob("*.pt"))
    assert files == [
        f"checkpoints/global_epoch{epoch}_step{step}/model_states-0.pt" for epoch in epochs for step in (2, 4)
    ]
    metric = place.json("summary.json")["metric"]
    assert metric["checkpoint_size_GB"] == 5000 / 2**30
    assert metric["save_checkpoint_duration_mean_seconds"] > 0 and metric["train_au_mean_percentage"] > 0


def test_checkpoints_alone_are_written_and_read(place: Place) -> None:
    keys = ["model.num_layers=1", "model.transformer.hidden_size=64", "model.transformer.vocab_size=500"]
    keys += ["checkpoint.num_checkpoints_write=2", "checkpoint.num_checkpoints_read=2"]
    keys += ["checkpoint.time_between_checkpoints=0.1", "checkpoint.checkpoint_folder=checkpoints"]
    (place.folder / "conf").mkdir()
    done = place.dlio("workload=llama_8b_zero3", *(f"++workload.{key}" for key in keys))
    assert done.code in (0, 3), done.errors
    folders = sorted(path.name for path in (place.folder / "checkpoints").iterdir())
    assert folders == ["global_epoch1_step1", "global_epoch1_step2"]
    metric = place.json("summary.json")["metric"]
    assert "train_au_mean_percentage" not in metric
    assert metric["load_checkpoint_io_mean_GB_per_second"] > 0
    log = (place.folder / OUT / "dlio.log").read_text()
    assert "[METRIC] Checkpoint load duration (seconds): " in log


def test_two_local_ranks_share_the_samples(place: Place) -> None:
    workload = tiny("indexed_binary", dataset={"num_files_train": 5, "num_samples_per_file": 5})
    done = place.dlio(place.workload("mine", workload), "--ranks", "2")
    assert done.code in (0, 3), done.errors
    check_output_files(place, steps=6)  # 25 samples, 2 ranks, batch 2: 6 steps, 1 sample left out
    result = place.result()
    assert {epoch.dropped_samples for epoch in result.epochs} == {1}
    assert place.json("summary.json")["num_accelerators"] == 2


def test_compatible_figures_are_those_of_dlios_formulas_on_dlios_files(place: Place) -> None:
    workload = tiny("npz", dataset={"num_files_train": 16})
    done = place.dlio(place.workload("mine", workload), "--ranks", "2", "--dlio-metrics", "compatible")
    assert done.code in (0, 3), done.errors
    metric = place.json("summary.json")["metric"]
    for epoch in (1, 2):
        figures = [compatible_figures(place, rank, epoch, batch=2) for rank in (0, 1)]
        told = [place.json(f"{rank}_output.json")[str(epoch)] for rank in (0, 1)]
        np.testing.assert_allclose([part["au"]["block1"] for part in told], [au for au, _ in figures], rtol=1e-3)
        np.testing.assert_allclose(
            metric["train_au_percentage"][epoch - 1], np.mean([au for au, _ in figures]), rtol=1e-3
        )
        rates = metric["train_throughput_samples_per_second"]
        np.testing.assert_allclose(rates[epoch - 1], sum(rate for _, rate in figures), rtol=1e-3)
    nominal_mib = 4096 / 2**20
    mean = metric["train_throughput_mean_samples_per_second"]
    assert metric["train_io_mean_MB_per_second"] == pytest.approx(mean * nominal_mib)


def test_files_that_are_not_kept_are_removed_and_nothing_else(place: Place) -> None:
    word = place.workload("mine", tiny("npz", dataset={"keep_files": False}))
    (place.folder / "data").mkdir()
    (place.folder / "data" / "notes.txt").write_text("mine")
    done = place.dlio(word)
    assert done.code in (0, 3), done.errors
    check_output_files(place, steps=4)
    assert place.files("train") == []
    assert (place.folder / "data" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("form", ["jpeg", "png"])
def test_several_pictures_in_a_file_are_refused_before_anything_is_written(place: Place, form: str) -> None:
    done = place.dlio(place.workload("mine", tiny(form, dataset={"num_samples_per_file": 2})))
    assert done.code == 2
    assert "one sample" in done.errors or "num_samples_per_file" in done.errors
    assert not (place.folder / "data").exists()


def test_odirect_reads_around_the_page_cache_or_says_why_it_cannot(place: Place) -> None:
    done = place.dlio(place.workload("mine", tiny("npy", reader={"odirect": True})))
    if done.code == 5:
        assert "O_DIRECT is refused" in done.errors
        return
    assert done.code in (0, 3), done.errors
    check_output_files(place, steps=4)
    evidence = place.result().evidence
    assert (evidence.io_mode_requested, evidence.io_mode) == ("direct", "direct")
