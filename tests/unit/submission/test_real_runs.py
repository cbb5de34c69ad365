"""Six runs that really happened, in leaves of our own making: the judge finds what is true of them, and misses none."""

import json
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from stoker.bench.report.submission import (
    LeafFacts,
    capture_image,
    describe_system,
    drift,
    hosts_of_run,
    write_cover,
    write_leaf,
    write_manifest,
    write_rollups,
)
from stoker.bench.rules.mlperf import judge_tree, read_tree
from stoker.bench.rules.mlperf.documents import shipped_schema
from stoker.bench.rules.mlperf.validator import faults
from stoker.bench.run.dlio_run import DlioJob, DlioOutcome, Watchers, run_dlio
from stoker.core.result import load_result

FILES = 14
WORDS = (
    "workload=unet3d_b200",
    f"++workload.dataset.num_files_train={FILES}",
    "++workload.dataset.record_length_bytes=4096",
    "++workload.dataset.record_length_bytes_stdev=0",
    "++workload.dataset.record_length_bytes_resize=4096",
    "++workload.train.computation_time=0.01",
    "++workload.train.epochs=1",
    "++hydra.output_subdir=dlio_config",
)
PLACE = "closed/acme/results/sysA/training/unet3d"


def engine(root: Path, leaf: Path, *words: str) -> DlioOutcome:
    """Run the engine into a leaf; its own folder goes elsewhere, as whoever runs it for a submission has it."""
    given = (*WORDS, f"++workload.dataset.data_folder={root.parent / 'data'}")
    (outcome,) = run_dlio(DlioJob([*given, f"++hydra.run.dir={leaf}", *words]), Watchers())
    for stream in ("stdout", "stderr"):
        (leaf / f"training_{leaf.parent.name}.{stream}.log").write_text("")
    if outcome.result is not None:
        evidence = root.parent / "evidence" / leaf.name
        evidence.parent.mkdir(exist_ok=True)
        outcome.run_folder.rename(evidence)
        outcome.run_folder = evidence
        shutil.copy(evidence / "fs_separation.json", leaf)
    return outcome


def leaf_facts(root: Path, command: str, stamp: str, image: str, started: str) -> LeafFacts:
    args = {"accelerator_type": "b200", "num_accelerators": 1, "max_accelerators": 1, "client_host_memory_in_gb": 1}
    args |= {"num_client_hosts": 1}
    return LeafFacts(
        family="training",
        command=command,
        division="closed",
        org="acme",
        system="sysA",
        model="unet3d",
        accelerator="b200",
        stamp=stamp,
        args={**args, "data_dir": str(root.parent / "data"), "results_dir": str(root)},
        parameters={"dataset": {"num_files_train": FILES, "num_subfolders_train": 0, "total_disk_bytes": FILES * 4096}},
        overrides={"dataset.num_files_train": str(FILES)} if command == "run" else {},
        executed_command="stoker dlio",
        started_text=started,
        ranks=1,
        code_image=image,
    )


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tree with six real runs, and everything that belongs beside them."""
    root = tmp_path_factory.mktemp("ran") / "tree"
    root.mkdir()
    (root / "mlperf-results.yaml").write_text("mlperf_results_version: 2\norgname: acme\ninitialized_at: '2026'\n")
    image = capture_image(root)
    first = datetime(2026, 3, 2, 10, 0, 0)
    for number, command in enumerate(["datasize", "datagen", *["run"] * 6]):
        stamp = (first + timedelta(seconds=number)).strftime("%Y%m%d_%H%M%S")
        leaf = root / PLACE / command / stamp
        leaf.mkdir(parents=True)
        started, outcome = datetime.now().isoformat(), DlioOutcome()
        if command != "datasize":
            flow = ("generate_data", "train") if command == "run" else ("train", "generate_data")
            switched = [f"++workload.workflow.{name}={value}" for name, value in zip(flow, (False, True), strict=True)]
            outcome = engine(root, leaf, *switched)
        folder = outcome.run_folder if outcome.result is not None else None
        write_leaf(leaf, leaf_facts(root, command, stamp, image, started), run_folder=folder)
    describe_system(root / "closed/acme/systems/sysA.yaml", hosts_of_run(root.parent / "evidence" / stamp))
    write_cover(root / "closed/acme/systems/sysA.yaml", submitter="acme", division="closed", date="2026-03-02")
    write_manifest(root / "closed/acme")
    write_rollups(root)
    return root


TRUE = {
    "2.1.7",  # the description was not filled in
    "3.1.2",  # too few files for the memory of the host
    "3.3.1",
    "3.4.2",  # data and results lie on one file system
    "3.6.2",  # records, epochs and computation of a toy
    "SANE-01",  # which is faster than the accelerator could be
}
PERHAPS = {"2.1.18", "3.3.2", "SANE-02"}  # on a machine that does other things meanwhile: gaps, utilisation, spread


def test_judge_finds_what_is_true_and_misses_no_artefact(ran: Path) -> None:
    judgement = judge_tree(read_tree(ran))
    told = {finding.rule: finding.line for finding in judgement.findings}
    assert judgement.leaves == 8 and judgement.answer == "invalid"
    assert set(told) - PERHAPS == TRUE, told
    assert [finding.line for finding in judgement.findings if "missing" in finding.observed] == []
    blind = {each.rule: each.reason for each in judgement.rules if each.blind}
    assert set(blind) == {"3.3.4"}, blind  # whether the product serves several hosts was not filled in


def test_description_of_a_real_host_is_only_blank_where_hands_are_needed(ran: Path) -> None:
    lines = [f.line for f in judge_tree(read_tree(ran)).findings if f.rule == "2.1.7"]
    assert lines and all(": nothing, where " in line for line in lines)


def test_hosts_of_the_next_run_do_not_drift(ran: Path) -> None:
    hosts = hosts_of_run(next((ran.parent / "evidence").iterdir()))
    assert drift(ran / "closed/acme/systems/sysA.yaml", hosts).diff == ""


def test_rollup_is_the_mean_of_the_five_runs_after_the_warm_up(ran: Path) -> None:
    (row,) = json.loads((ran / PLACE / "results.json").read_text())
    runs = sorted((ran.parent / "evidence").iterdir())[1:]
    rates = [load_result(run).metrics.delivered_bytes_per_second for run in runs]
    told = [json.loads((ran / PLACE / "run" / run.name / "summary.json").read_text()) for run in runs]
    mean = sum(each["metric"]["train_io_mean_MB_per_second"] for each in told) / 5 / 1024
    assert row["Read B/W (GiB/s)"] == pytest.approx(mean, rel=1e-12)
    assert row["Read B/W (GiB/s)"] == pytest.approx(sum(rates) / 5 / (1 << 30), rel=0.2)


@pytest.mark.parametrize(
    ("pattern", "kind"), [("*_metadata.json", "metadata"), ("run/*/summary.json", "summary_training")]
)
def test_documents_of_real_runs_keep_their_schemas(ran: Path, pattern: str, kind: str) -> None:
    found = sorted((ran / PLACE).rglob(pattern))
    assert found
    for path in found:
        assert faults(json.loads(path.read_text()), shipped_schema(kind)) == []
