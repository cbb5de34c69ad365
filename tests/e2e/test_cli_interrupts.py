"""A command that is stopped ends in time with its code, keeps and labels what it measured, and leaves nothing else."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_place import COSMOFLOW, QUICK, Place, Running

from stoker.core.result import load_result

STOP_SECONDS = 15  # promised are 5 on a machine that is not busy with other tests
SIGNALS = [signal.SIGINT, signal.SIGTERM]
SHARED_MEMORY = Path("/dev/shm")
OTHERS_SEGMENTS = ("mpich", "ompi", "vader", "mpi_", "stoker-pages-", ".stoker-pages-", "PostgreSQL.")
"""What tests that run beside these make there; feed and gen make none of it."""
FILES = 4000
FEED = ("feed", "target", *COSMOFLOW, "--budget", "10m")
GEN = ("gen", "new", "--format", "npz", "--files", str(FILES), "--record-length", "64KiB")


def segments() -> set[str]:
    """Return the names of segments: files, for folders there are other tests' own."""
    with os.scandir(SHARED_MEMORY) as entries:
        return {
            entry.name
            for entry in entries
            if not entry.name.startswith(OTHERS_SEGMENTS) and entry.is_file(follow_symlinks=False)
        }


@pytest.fixture(autouse=True)
def nothing_in_shared_memory() -> Iterator[None]:
    """Nothing new may stay in /dev/shm; what other tests keep there for a moment is waited for."""
    before = segments()
    yield
    deadline = time.monotonic() + 10
    while segments() - before and time.monotonic() < deadline:
        time.sleep(0.1)
    assert segments() - before == set()


@pytest.fixture
def target(place: Place) -> Path:
    """An empty folder to feed from."""
    (place / "target").mkdir()
    return place / "target"


def generating(target: Path) -> bool:
    """Tell whether a feed has begun to write its dataset."""
    return any(target.glob("stoker-feed-*/train/*"))


def stepping(place: Place) -> bool:
    """Tell whether a run has begun its first epoch."""
    return any(b"phase_seen" in path.read_bytes() for path in place.folder.glob("stoker-results/*/events.jsonl"))


def assert_stopped(running: Running, number: int, place: Place, reason: str) -> None:
    """Stop the command and look at what it leaves: the code, a labelled partial result, its page, and no process."""
    done, seconds = running.stop(number)
    assert done.code == 128 + number, done.errors
    assert "Traceback" not in done.errors + done.out
    assert done.out.startswith("PARTIAL")
    assert reason in done.out
    assert seconds < STOP_SECONDS
    assert running.leaves_no_process()
    (folder,) = place.runs()
    result = load_result(folder)
    assert (result.status, result.reason) == ("partial", reason)
    assert (folder / "report.html").is_file()
    told = place.stoker("report", str(folder), "--json")
    assert (told.code, told.document["answer"]) == (6, "partial")


@pytest.mark.parametrize("number", SIGNALS)
def test_feed_stopped_while_it_plans(number: int, target: Path, place: Place) -> None:
    running = place.start(*FEED)
    running.wait_until_it_handles(signal.SIGHUP)  # the last one to get its handler
    done, seconds = running.stop(number)
    assert done.code == 128 + number
    assert done.sentence == f"stopped by {signal.Signals(number).name}"
    assert seconds < STOP_SECONDS
    assert place.tree() == {str(target): "folder"}


@pytest.mark.parametrize("number", SIGNALS)
def test_feed_stopped_while_it_generates(number: int, target: Path, place: Place) -> None:
    running = place.start(*FEED)
    running.wait_until(lambda: generating(target))
    assert_stopped(running, number, place, f"stopped by {signal.Signals(number).name} while the dataset was generated")
    assert place.tree("target") == {}


@pytest.mark.parametrize("number", SIGNALS)
def test_feed_stopped_while_it_runs(number: int, target: Path, place: Place) -> None:
    running = place.start(*FEED, "--size-max", "20MiB")
    running.wait_until(lambda: stepping(place))
    assert len(running.children()) == 1
    assert_stopped(running, number, place, f"stopped by {signal.Signals(number).name}")
    assert place.tree("target") == {}


def test_feed_stopped_by_an_impatient_user_tidies_up_all_the_same(target: Path, place: Place) -> None:
    running = place.start(*FEED)
    running.wait_until(lambda: generating(target))
    running.process.send_signal(signal.SIGINT)
    assert_stopped(running, signal.SIGINT, place, "stopped by SIGINT while the dataset was generated")
    assert place.tree("target") == {}


@pytest.mark.parametrize("number", SIGNALS)
def test_run_stopped(number: int, made: Path, place: Place) -> None:
    before = place.tree(str(made))
    words = (
        "run",
        "training",
        str(made),
        "--model",
        "cosmoflow",
        "--accelerator",
        "a100:3",
        *QUICK,
        "--epochs",
        "100000",
    )
    running = place.start(*words)
    running.wait_until(lambda: stepping(place))
    assert len(running.children()) == 3
    assert_stopped(running, number, place, f"stopped by {signal.Signals(number).name}")
    assert place.tree(str(made)) == before


@pytest.mark.parametrize(("number", "processes"), [(signal.SIGINT, "1"), (signal.SIGTERM, "1"), (signal.SIGTERM, "2")])
def test_gen_stopped_and_run_again(number: int, processes: str, place: Place) -> None:
    running = place.start(*GEN, "--processes", processes)
    running.wait_until(lambda: any((place / "new").glob("train/*.npz")))
    done, seconds = running.stop(number)
    assert (done.code, done.out) == (128 + number, "")
    assert done.sentence.startswith(f"stopped by {signal.Signals(number).name}; run the same again")
    assert seconds < STOP_SECONDS
    assert running.leaves_no_process()
    assert not (place / "new" / ".stoker" / "train.manifest").exists()
    assert_resumes(place)


def test_gen_killed_and_run_again(place: Place) -> None:
    running = place.start(*GEN, "--processes", "2")
    running.wait_until(lambda: len(list((place / "new").glob("train/*.npz"))) > 5)
    running.kill()
    assert running.leaves_no_process()
    assert_resumes(place)


def assert_resumes(place: Place) -> None:
    """Run the generation again: what was finished is not touched, and the rest is made."""
    finished = {path: path.stat() for path in (place / "new" / "train").glob("*.npz")}
    assert 0 < len(finished) < FILES
    report = place.stoker(*GEN, "--json").document["report"]
    assert report["files_kept"] + report["files_adopted"] == len(finished)
    assert report["files_made"] == FILES - len(finished)
    for path, status in finished.items():
        assert (path.stat().st_ino, path.stat().st_mtime_ns) == (status.st_ino, status.st_mtime_ns)
    assert not list((place / "new").rglob("*stoker-tmp*"))


@pytest.mark.parametrize("command", ["run", "feed"])
def test_a_run_whose_processes_are_all_killed_is_recovered(
    command: str, made: Path, target: Path, place: Place
) -> None:
    words = {
        "run": ("run", "training", str(made), *COSMOFLOW, *QUICK, "--epochs", "100000"),
        "feed": (*FEED, "--size-max", "20MiB"),
    }[command]
    running = place.start(*words)
    running.wait_until(lambda: stepping(place))
    time.sleep(1.5)
    running.kill()
    assert running.leaves_no_process()
    (folder,) = place.runs()
    assert not (folder / "result.json").exists()
    done = place.stoker("report", str(folder), "--json")
    assert (done.code, done.errors) == (6, "")
    assert (done.document["status"], done.document["answer"]) == ("partial", "partial")
    assert done.document["metrics"]["steps"] > 0
    assert (folder / "report.html").is_file()
    if command == "feed":  # what it made is still there: the next one tells how to be rid of it
        (left,) = (path.name for path in target.iterdir())
        plan = place.stoker("feed", "target", *COSMOFLOW, "--dry-run").out
        assert f"stoker gen target/{left} --remove" in plan
        assert place.stoker("gen", f"target/{left}", "--remove").code == 0


def test_a_signal_that_the_shell_has_ignored_stays_ignored(made: Path, place: Place) -> None:
    words = " ".join(("run", "training", str(made), *COSMOFLOW, *QUICK, "--epochs", "0", "--duration", "2s", "--json"))
    script = f"trap '' HUP; stoker {words} & sleep 1; kill -HUP $!; wait $!"
    done = place.shell(script)
    assert done.document["status"] == "complete"
