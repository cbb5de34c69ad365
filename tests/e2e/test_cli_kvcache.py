"""`stoker run kvcache` and `stoker mlperf … kvcache` as a user types them: real caches, small ones."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_place import Place
from test_cli_mlperf import good, mlperf, place_in

from stoker.bench.rules.mlperf import judge_tree, read_tree
from stoker.bench.run.mlperf.results_dir import initialise

SMALL = ("--model", "tiny-1b", "--tensor-parallel", "1024", "--num-users", "4")
"""Entries of at most 600 KB: a 1024th of those of the smallest model."""
SAME_DISK = "--skip-fs-separation-gate"
OPEN = ("open", "kvcache", "run", "--cache-dir", "cache", "--num-users", "1", "--gpu-mem-gb", "0", "--cpu-mem-gb", "0")
QUICK = ("--duration", "1", "--generation-mode", "none", "--inter-option-delay", "0", SAME_DISK)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def ready(tmp_path: Path) -> Place:
    initialise(tmp_path / "results", "acme")
    return place_in(tmp_path)


def run_folder(place: Place) -> Path:
    (found,) = (place / "stoker-results").iterdir()
    return found


def leaves(place: Place, division: str = "open") -> list[Path]:
    return sorted((place / f"results/{division}/acme/results/sysA/kv_cache").glob("*/run/*"))


@pytest.mark.slow
def test_two_clients_serve_their_users_in_two_trials(place: Place) -> None:
    words = ("run", "kvcache", "cache", *SMALL, "--ranks", "2", "--duration", "1.5", "--trials", "2", "--enable-rag")
    done = place.stoker(*words, "--rag-num-docs", "2", "--cpu-mem-gb", "0.001", "--verify", "0.5", "--json")
    assert done.code in (0, 3), done.errors
    told = done.document
    assert (told["status"], told["ranks"], len(told["trials"])) == ("complete", 2, 2)
    for trial in told["trials"]:
        storage, counts = trial["tiers"]["storage"], trial["counts"]
        assert trial["complete"] and trial["ranks"] == 2 and counts["requests"] > 10
        assert storage["reads"] > 0 and counts["stamped_bytes"] > 0 and counts["verified_bytes"] > 0
        assert storage["demote_writes"] > 0 and trial["tiers"]["cpu"]["writes"] > 0
    ledger = told["evidence"]["ledger"]
    assert ledger["requested_bytes"] == ledger["from_store_bytes"] + ledger["from_cache_bytes"] > 0
    assert list((place / "cache").iterdir()) == []
    folder = run_folder(place)
    page = (folder / "report.html").read_text()
    assert "Latencies by tier" in page and "What the storage tier moved" in page
    again = place.stoker("report", str(folder), "--json", "--dry-run")
    assert again.document["headline"] == told["headline"]
    checked = place.stoker("check", str(folder))
    assert checked.code == done.code, checked.errors


@pytest.mark.slow
def test_pages_are_shared_and_a_trace_of_all_is_kept(place: Place) -> None:
    words = ("run", "kvcache", "cache", *SMALL, "--layout", "block", "--duration", "2", "--io-trace-log", "io.csv")
    told = place.stoker(*words, "--json", "--prefill-rate", "1").document
    counts = told["trials"][0]["counts"]
    assert 0 < counts["matched_tokens"] < counts["wanted_tokens"]
    lines = (place / "io.csv").read_text().splitlines()
    reads = [line for line in lines if ",Read," in line]
    assert len(reads) == told["trials"][0]["tiers"]["storage"]["reads"] > 0
    assert all(",page_" in line for line in lines[1:])


def test_folders_of_the_system_and_too_large_tiers_are_refused(place: Place) -> None:
    place.stoker("run", "kvcache", "/etc", *SMALL).refused(2, "a folder of the system")
    place.stoker("run", "kvcache", "cache", *SMALL, "--cpu-mem-gb", "100000").refused(5, "does not fit")


def test_a_dry_run_tells_and_touches_nothing(place: Place) -> None:
    done = place.stoker("run", "kvcache", "cache", "--model", "llama3.1-8b", "--dry-run")
    assert done.code == 0, done.errors
    assert "131,072 bytes a token" in done.out and "break-even" in done.out
    assert place.tree() == {}


def served(folder: Path) -> bool:
    return any('"trial_seen"' in log.read_text() for log in folder.glob("stoker-results/*/ranks/rank-*.jsonl"))


@pytest.mark.timeout(120)
def test_ctrl_c_keeps_a_labelled_result_and_cleans_up(place: Place) -> None:
    running = place.start("run", "kvcache", "cache", *SMALL, "--ranks", "2", "--duration", "90")
    running.wait_until(lambda: served(place.folder))
    done, _ = running.stop(signal.SIGINT)
    assert done.code == 128 + signal.SIGINT, done.errors
    assert "PARTIAL" in done.out
    result = json.loads((run_folder(place) / "result.json").read_text())
    assert result["trials"][0]["counts"]["requests"] > 0 and not result["trials"][0]["complete"]
    assert list((place / "cache").iterdir()) == []
    assert running.leaves_no_process()


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_killed_client_is_named_and_the_next_run_removes_what_it_left(place: Place) -> None:
    running = place.start("run", "kvcache", "cache", *SMALL, "--ranks", "2", "--duration", "90")
    running.wait_until(lambda: served(place.folder))
    (log,) = place.folder.glob("stoker-results/*/ranks/rank-0001.jsonl")
    os.kill(int(log.read_text().partition('"pid":')[2].partition(",")[0]), signal.SIGKILL)
    done = running.end()
    assert done.code == 1 and "rank 1" in done.out + done.errors
    assert (place / "cache/rank_1/stoker-kv-cache.json").is_file()
    (place / "cache/rank_1/theirs.npy").write_bytes(b"theirs")
    again = place.stoker("run", "kvcache", "cache", *SMALL, "--ranks", "2", "--duration", "1", "--json")
    assert any("of a run that was killed were removed" in note for note in again.document["notes"])
    assert [path.name for path in (place / "cache").rglob("*") if path.is_file()] == ["theirs.npy"]


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of 8 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", disk], check=True)


@pytest.mark.slow
def test_a_disk_that_is_full_is_named_and_left_as_it_was(place: Place, tiny_disk: Path) -> None:
    words = ("run", "kvcache", str(tiny_disk), *SMALL, "--num-users", "40", "--duration", "60")
    done = place.stoker(*words, "--storage-capacity-gb", "1")
    assert done.code == 1, (done.out, done.errors)
    assert "no space" in (done.out + done.errors).lower()
    assert list(tiny_disk.iterdir()) == []
    whole = place.stoker(*words[:-1], "2", "--json")  # told no capacity, it keeps to what is free
    assert whole.code in (0, 3), whole.errors
    assert whole.document["trials"][0]["tiers"]["storage"]["deletes"] > 0


# -- stoker mlperf ---------------------------------------------------------------------------------------------------


def metadata(leaf: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((leaf / f"kv_cache_{leaf.name}_metadata.json").read_text())
    return found


def test_configview_and_a_dry_run_tell_the_trials(ready: Place) -> None:
    before = ready.tree()
    view = good(mlperf(ready, "open", "kvcache", "configview", "--num-users", "7"))
    assert "num_users: 7  [flag, --num-users]" in view.out
    done = good(mlperf(ready, "closed", "kvcache", "run", "--cache-dir", "cache", "--npernode", "2", "--dry-run"))
    for told in (
        "option 1  --model llama3.1-8b --num-users 200 --duration 300",
        "option 3  --model llama3.1-70b-instruct --num-users 70",
        "trials    3 of each, 1m 30s between options",
        "ranks     2: local processes",
        "closed/acme/results/sysA/kv_cache/llama3.1-8b/run/YYYYMMDD_HHMMSS",
    ):
        assert told in done.out, (told, done.out)
    sized = good(mlperf(ready, "closed", "kvcache", "datasize", "--dry-run"))
    assert sized.out.count("bytes per token: 128.00 KiB (131,072 bytes)") == 2
    assert ready.tree() == before


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """An open run of two clients; nobody writes to it."""
    folder = tmp_path_factory.mktemp("kvcache")
    initialise(folder / "results", "acme")
    place = place_in(folder)
    good(mlperf(place, *OPEN, *QUICK, "--trials", "2", "-np", "2"))
    yield place


@pytest.mark.slow
def test_an_open_run_leaves_a_leaf_whose_only_fault_is_this_machine(ran: Place) -> None:
    (leaf,) = leaves(ran)
    ranks = [f"option_1/trial_{trial}/rank_{rank}" for trial in (1, 2) for rank in (0, 1)]
    assert all((leaf / place / f"kvcache_results_{leaf.name}.json").is_file() for place in ranks)
    names = [
        f"kvcache_opt1_trial{trial}_{leaf.name}.{stream}.log" for trial in (1, 2) for stream in ("stdout", "stderr")
    ]
    names += ["kvcache_run_summary.json", "provenance.json", "gates.json", "kv_cache_cluster_info.json"]
    names += [f"kv_cache_{leaf.name}_timeseries.json"]
    assert [name for name in names if not (leaf / name).is_file()] == []
    told = metadata(leaf)
    assert (told["exit_status"], told["status"], told["num_processes"], told["model"]) == (0, "complete", 2, "tiny-1b")
    assert told["args"]["cache_dir"] == str(ran / "cache")
    assert [each["stdout"] for each in told["command_output_files"]] == names[:4:2]
    judgement = judge_tree(read_tree(leaf, edition="3.0", division="open"))
    assert {each.rule for each in judgement.findings if each.severity == "blocks"} == {"CAP-03"}
    assert list((ran / "cache").iterdir()) == []


@pytest.mark.slow
def test_the_summary_is_made_of_the_ranks_outputs(ran: Place) -> None:
    (leaf,) = leaves(ran)
    summary = json.loads((leaf / "summary.json").read_text())
    assert summary == json.loads((leaf / "kvcache_run_summary.json").read_text())
    assert (summary["npernode"], summary["host_count"], summary["total_ranks"]) == (2, 1, 2)
    option = summary["options"]["1"]
    outputs = [json.loads(path.read_text())["summary"] for path in sorted(leaf.glob("option_1/*/*/*.json"))]
    read = [output["cache_stats"]["tier_storage_read_bandwidth_gbps"] for output in outputs]
    assert option["aggregated_read_bandwidth_gbps"] == pytest.approx(sum(read) / 2)
    worst = max(output["cache_stats"]["storage_read_device_p95_ms"] for output in outputs)
    assert option["aggregated_device_read_p95_ms"] == worst >= option["pooled_device_read_p95_ms"]
    assert (option["rank_count"], option["trial_count"], option["missing_files"]) == (2, 2, [])


@pytest.mark.slow
def test_a_run_is_rolled_up_and_listed(ran: Place) -> None:
    listed = good(mlperf(ran, "runs", "list"))
    assert "kv_cache" in listed.out or "kvcache" in listed.out
    good(mlperf(ran, "reports", "reportgen"))
    found = [json.loads(path.read_text()) for path in sorted((ran / "results/open").rglob("results.json"))]
    assert found
    for rows in found:
        (row,) = rows
        assert row["Option 1 Read B/W (GB/s)"] > 0 and row["# Client Nodes"] == 1


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_ctrl_c_leaves_a_leaf_labelled_partial(ready: Place) -> None:
    running = ready.start("mlperf", *OPEN, "--duration", "90", "--trials", "2", SAME_DISK)
    logs = ready / "results/.mlps/evidence"
    running.wait_until(lambda: any('"trial_seen"' in log.read_text() for log in logs.rglob("rank-0000.jsonl")))
    done, _ = running.stop(signal.SIGINT)
    assert done.code == 8, done.errors
    (leaf,) = leaves(ready)
    assert (metadata(leaf)["status"], metadata(leaf)["exit_status"]) == ("partial", 8)
    summary = json.loads((leaf / "summary.json").read_text())
    assert summary["partial_failure"] and "option_1/trial_2/rank_0" in summary["options"]["1"]["missing_files"]
    assert "stopped by SIGINT" in summary["trial_failures"]["option_1/trial_1"]
    assert list((ready / "cache").iterdir()) == []
    assert running.leaves_no_process()
