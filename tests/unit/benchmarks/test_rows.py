"""One tiny real turn of the rows: the scripts run, and tell what they did."""

import importlib.util
import shutil
from pathlib import Path

import pytest
from benchmarks.conditions import Conditions
from benchmarks.contest import Contest
from benchmarks.dataset import make_dataset
from benchmarks.dlio import Dlio
from benchmarks.peers import Peers, find_peers, run_turn, turn_of
from benchmarks.rows import ceiling, epochs, generation, growth, objects, reads, small_files

from stoker.core.plan import DatasetSpec
from stoker.core.units import KiB, MiB

needs_engine = pytest.mark.skipif(
    importlib.util.find_spec("stoker.kernels.reading") is None, reason="this build has no batch read engines"
)


def conditions(folder: Path, *, peers: Peers | None = None) -> Conditions:
    return Conditions(folder, peers or Peers({}, {}, dict.fromkeys(("fio", "torch", "s3dlio"), "not here")), "quick", 1)


@needs_engine
@pytest.mark.parametrize("sequential", [False, True])
def test_our_reads_count_what_was_read(tmp_path: Path, sequential: bool) -> None:
    path = tmp_path / "file"
    reads.write_file(path, 4 * MiB)
    case = reads.Case(False, sequential, 4 * KiB, 8)
    found = reads.contest(conditions(tmp_path), case, path, 0.05).document()
    (ours,) = found["contenders"]
    assert ours["rounds"][0]["payload_bytes"] == 4 * KiB * ours["rounds"][0]["samples"] > 0
    assert found["missing"] == {"fio io_uring": "not here"}


@needs_engine
@pytest.mark.skipif(shutil.which("fio") is None, reason="fio is not installed: apt-get install fio")
def test_reads_beside_fio(tmp_path: Path) -> None:
    path = tmp_path / "file"
    reads.write_file(path, 4 * MiB)
    peers = find_peers({}, tmp_path)
    found = reads.contest(conditions(tmp_path, peers=peers), reads.Case(False, False, 4 * KiB, 8), path, 0.1)
    document = found.document()
    assert [entry["name"] for entry in document["contenders"]] == ["stoker", "fio io_uring"]
    assert document["ratios"][0]["bytes_per_second"]["median"] > 0


def test_fio_tells_bytes_seconds_and_cpu() -> None:
    job = {"usr_cpu": 10.0, "sys_cpu": 40.0, "job_runtime": 2000}
    job |= {"read": {"runtime": 1000, "io_bytes": 4096, "total_ios": 1}}
    turn = reads.fio_result({"jobs": [job]})
    assert (turn.payload_bytes, turn.samples, turn.cpu_seconds, turn.wall_seconds) == (4096, 1, 1.0, 1.0)


def test_every_scale_covers_both_caches_and_orders() -> None:
    for scale in ("quick", "default", "full"):
        found = reads.cases(Conditions(Path(), Peers({}), scale))
        assert {(case.direct, case.sequential) for case in found} == {(a, b) for a in (0, 1) for b in (0, 1)}
        assert len({case.key for case in found}) == len(found)


def test_null_epoch_counts_every_sample(tmp_path: Path) -> None:
    asked = ceiling.null_turn(64 * KiB, 16, 8, {"batch_size": 16, "read_threads": 1, "decode_threads": 0})
    contest = ceiling.contest("null", "", {**asked, "epochs": 2}, conditions(tmp_path))
    (ours,) = contest.document()["contenders"]
    assert ours["rounds"][0]["samples"] == 2 * 8 * 16
    assert ours["rounds"][0]["payload_bytes"] == 2 * 8 * 64 * KiB
    assert ours["rounds"][0]["peak_bytes"] > 0


def test_epoch_beside_a_plain_loop_has_equal_samples(tmp_path: Path) -> None:
    spec = DatasetSpec("hdf5", 6, record_length_bytes=90 * 90)
    case = epochs.Case("epochs/tiny", spec, 2, 1, ("hdf5", "s3dlio", "dlio"))
    here = conditions(tmp_path)
    here.peers.missing["dlio"] = "not here"
    document = epochs.contest(case, here, tmp_path).document()
    assert {entry["rounds"][0]["samples"] for entry in document["contenders"]} == {6}
    assert {entry["rounds"][0]["payload_bytes"] for entry in document["contenders"]} == {6 * 90 * 90}
    assert document["missing"] == {"s3dlio": "not here", "DLIO": "not here"}


def test_sample_bytes_count_the_parquet_columns_that_are_read() -> None:
    cases = {case.key: case.spec for case in epochs.all_cases()}
    assert epochs.sample_bytes(cases["epochs/dlrm parquet"]) == 160
    assert epochs.sample_bytes(cases["epochs/resnet50 tfrecord 112 KiB"]) == pytest.approx(114_660, rel=0.01)


def test_small_files_with_each_number_of_workers(tmp_path: Path) -> None:
    here = Conditions(tmp_path, Peers({}, {}, {"torch": "not here"}), "quick", 1, files=70)
    found = small_files.run(here)
    assert [contest.key[-9:] for contest in found] == ["1 workers", "2 workers"]
    assert all(len(contest.contenders) == 2 for contest in found)
    assert not list(tmp_path.iterdir())


def test_growth_parts_tell_seconds_and_memory(tmp_path: Path) -> None:
    here = conditions(tmp_path)
    growth.make_files(tmp_path / "listed", 50)
    assert growth.grown(here, "list", files=50, url=f"file://{tmp_path}/listed")["seconds"] > 0
    (tmp_path / "saved").mkdir()
    url = f"file://{tmp_path}/saved"
    growth.grown(here, "save", files=50, url=url)
    assert growth.grown(here, "open", files=50, url=url)["peak_bytes"] > 0


def test_plans_of_all_ranks_hold_every_sample_once(tmp_path: Path) -> None:
    asked = {"files": 100, "samples_per_file": 10, "batch_size": 3, "ranks": 7, "planned_ranks": 7, "check": True}
    assert growth.grown(conditions(tmp_path), "ranks", **asked)["seconds"] > 0


def test_ranks_start_together(tmp_path: Path) -> None:
    found = growth.start_ranks(conditions(tmp_path), 2)
    assert found["seconds"] == 2 * found["seconds_per_rank"] > 0


@pytest.mark.parametrize("how", ["memcpy", "sfc64", "urandom"])
def test_fills_count_blocks(tmp_path: Path, how: str) -> None:
    asked = {"how": how, "block_bytes": 64 * KiB, "blocks": 3}
    assert turn_of(run_turn(conditions(tmp_path).python, "peer_fill", asked)).payload_bytes == 3 * 64 * KiB


@pytest.mark.parametrize("how", ["stoker", "numpy", "constant"])
def test_files_are_made_in_full(tmp_path: Path, how: str) -> None:
    asked = {"how": how, "folder": str(tmp_path), "files": 2, "file_bytes": 100_000}
    assert turn_of(run_turn(conditions(tmp_path).python, "generate_files", asked)).payload_bytes == 200_000
    made = [path for path in tmp_path.rglob("*") if path.suffix in (".npz", ".bin")]
    assert len(made) == 2
    assert all(path.stat().st_size >= 100_000 for path in made)


def test_fill_without_dgen_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "_BLOCK_BYTES", 64 * KiB)
    document = generation.fills(conditions(tmp_path)).document()
    assert document["missing"] == {"dgen-py": "not here"}
    assert len(document["contenders"]) == 4


def test_tables_of_other_commands_are_taken_over() -> None:
    kept = {"wall_seconds": 2.0, "cpu_seconds": 1.0, "payload_bytes": 100, "samples": 4}
    found: Contest = objects.contest("get 1 MiB", {"obstore, asyncio": [kept], "stoker": [kept]}, {"boto3": "not here"})
    document = found.document()
    assert document["ceiling"] == "obstore, asyncio"
    assert document["contenders"][1]["samples_per_second"]["median"] == 2.0


def test_dlio_is_told_where_and_what_to_read(tmp_path: Path) -> None:
    made = make_dataset(tmp_path / "data", DatasetSpec("npz", 4, record_length_bytes=4096))
    dlio = Dlio("python", made.folder, made.spec, 2, 3, 1, 4096.0)
    words = dlio.words(2)
    assert f"++workload.dataset.data_folder={made.folder}" in words
    assert "++workload.dataset.num_files_train=2" in words
    assert dlio.steps == 2
