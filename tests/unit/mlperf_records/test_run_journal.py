"""The journal of runs: ids, what is kept of a command line, writers that are killed or many, lines of strangers."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from stoker.bench.run.mlperf import journal
from stoker.bench.run.mlperf.journal import Process, RunLine, begin, end, note_removed, read_history, read_runs
from stoker.bench.run.mlperf.results_dir import ResultsDir, initialise
from stoker.core.errors import StokerError, UsageError

WORDS = ["mlperf", "closed", "training", "unet3d", "run", "file", "--num-accelerators", "8"]


@pytest.fixture
def results(tmp_path: Path) -> ResultsDir:
    return initialise(tmp_path / "results", "acme")


def begun(results: ResultsDir, words: list[str] = WORDS, stamp: str = "20260302_101500") -> str:
    leaf = results.leaf("closed", "sysA", "training", "unet3d", "run", stamp)
    facts = {"division": "closed", "family": "training", "model": "unet3d", "command": "run", "system": "sysA"}
    return begin(results, words, leaf=leaf, **facts)


def raw(results: ResultsDir, name: str = "runs.jsonl") -> Path:
    return results.hidden / name


def test_a_run_is_begun_and_ended(results: ResultsDir) -> None:
    first, second = begun(results), begun(results, stamp="20260302_111500")
    assert (first, second) == ("1", "2")
    end(results, first, exit_code=0, seconds=446.2)
    end(results, second, exit_code=6, seconds=1.0, status="failed")
    runs = read_runs(results.root)
    assert [run.state() for run in runs.values()] == ["complete", "failed"]
    assert runs["1"].begun.leaf == "closed/acme/results/sysA/training/unet3d/run/20260302_101500"
    assert (runs["1"].exit_code, runs["1"].seconds) == (0, 446.2)


def test_the_words_are_kept_as_they_were_typed(results: ResultsDir) -> None:
    words = [*WORDS, "--mpi-params=-x A=b", "two words", "it's", "a\nb", 'q"', "é"]
    begun(results, words)
    (line,) = read_history(results.root)
    assert journal.replayable(line) == tuple(words)
    assert line.cwd == os.getcwd()


@pytest.mark.parametrize(
    "secret",
    [
        ["++workload.storage.storage_options.secret_access_key=hunter2"],
        ["--params", "storage.storage_options.session_token=hunter2"],
        ["--data-dir", "s3://user:hunter2@host/bucket"],
        ["--secret-key", "hunter2"],
        ["--mpi-params=-x AWS_SECRET_ACCESS_KEY=hunter2"],
    ],
)
def test_a_secret_is_not_kept_and_its_line_is_not_replayed(results: ResultsDir, secret: list[str]) -> None:
    begun(results, [*WORDS, *secret])
    assert b"hunter2" not in raw(results, "history").read_bytes() + raw(results).read_bytes()
    with pytest.raises(UsageError, match=r"held a secret, which is not kept.*environment"):
        journal.replayable(read_history(results.root)[0])


def test_bytes_that_are_no_text_are_kept_readable_and_not_replayed(results: ResultsDir) -> None:
    begun(results, [*WORDS, os.fsdecode(b"/data/\xff")])
    (line,) = read_history(results.root)
    assert line.words[-1] == "/data/\\udcff"
    with pytest.raises(UsageError, match="no text"):
        journal.replayable(line)


def test_a_command_without_a_run_takes_an_id_of_its_own(results: ResultsDir) -> None:
    assert journal.remember(results, ["mlperf", "reports", "reportgen"]) == "1"
    assert begun(results) == "2"
    assert list(read_runs(results.root)) == ["2"]
    assert [line.id for line in read_history(results.root)] == ["1", "2"]


def test_ids_are_not_given_again_when_a_file_is_lost(results: ResultsDir) -> None:
    for _ in range(3):
        begun(results)
    raw(results, "history").unlink()
    assert begun(results) == "4"
    raw(results).unlink()
    assert begun(results) == "5"


def test_the_newest_id_is_found_behind_many_ends_and_long_lines(results: ResultsDir) -> None:
    begun(results, [*WORDS, "x" * 200_000])
    for _ in range(1500):
        with raw(results).open("ab") as file:
            file.write(msgspec.json.encode(RunLine("end", id="1", status="failed", at="t" * 90)) + b"\n")
    raw(results, "history").unlink()
    assert begun(results) == "2"


def test_an_end_is_complete_or_failed(results: ResultsDir) -> None:
    with pytest.raises(UsageError, match="not how a run ends"):
        end(results, begun(results), exit_code=0, seconds=1, status="splendid")


def test_a_leaf_outside_is_refused(results: ResultsDir) -> None:
    with pytest.raises(UsageError, match="outside"):
        begin(results, WORDS, division="", family="", model="", command="", system="", leaf=Path("/etc"))


def test_a_journal_that_cannot_be_written_is_told(results: ResultsDir) -> None:
    raw(results).symlink_to("/dev/null")
    with pytest.raises(StokerError, match="journal of runs cannot be written"):
        begun(results)


# -- who is alive ----------------------------------------------------------------------------------------------------


def test_a_run_of_this_process_is_running(results: ResultsDir) -> None:
    begun(results)
    assert read_runs(results.root)["1"].state() == "running"


def state_of(process: Process) -> str:
    return journal.JournalRun(RunLine("begin", id="1", process=process)).state()


def test_only_what_is_surely_gone_is_incomplete() -> None:
    mine = Process.mine()
    assert state_of(mine) == "running"
    replace = msgspec.structs.replace
    assert state_of(replace(mine, ticks=mine.ticks + 1)) == "incomplete"  # the pid is another process's now
    assert state_of(replace(mine, boot="another")) == "incomplete"
    assert state_of(replace(mine, host="another")) == "unknown"
    assert state_of(replace(mine, space="pid:[1]")) == "unknown"
    assert state_of(Process()) == "unknown"


CHILD = """
import sys
from pathlib import Path
from stoker.bench.run.mlperf.journal import begin, end
from stoker.bench.run.mlperf.results_dir import open_results
results = open_results(sys.argv[1], {})
for number in range(int(sys.argv[2])):
    leaf = results.leaf("closed", "sysA", "training", "unet3d", "run", f"{sys.argv[3]}-{number}")
    run = begin(results, ["mlperf", sys.argv[3]], division="closed", family="training", model="unet3d", command="run",
                system="sysA", leaf=leaf)
    print(run, flush=True)
    if sys.argv[4] == "end":
        end(results, run, exit_code=0, seconds=0.1)
"""


def child(results: ResultsDir, count: int, name: str, then: str = "end") -> subprocess.Popen[str]:
    words = [sys.executable, "-c", CHILD, str(results.root), str(count), name, then]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def test_a_killed_writer_leaves_a_readable_journal_and_incomplete_runs(results: ResultsDir) -> None:
    with child(results, 1_000_000, "victim", "no") as writer:
        assert writer.stdout is not None
        for _ in range(20):
            told = writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        told = writer.stdout.read() or told
    runs = read_runs(results.root)
    # What was told had been written; one more may have been in the making.
    assert len(runs) - int(told.split()[-1]) in (0, 1)
    assert {run.state() for run in runs.values()} == {"incomplete"}
    assert int(begun(results)) > int(told.split()[-1])
    assert sum(run.state() == "running" for run in read_runs(results.root).values()) == 1


def test_many_writers_share_the_journal_and_no_id_is_given_twice(results: ResultsDir) -> None:
    writers = [child(results, 15, f"w{n}") for n in range(4)]
    told = [line for writer in writers for line in writer.communicate()[0].split()]
    assert sorted(map(int, told)) == list(range(1, 61))
    runs = read_runs(results.root)
    assert [run.status for run in runs.values()] == ["complete"] * 60
    assert list(runs) == [str(n) for n in range(1, 61)]  # in the order of their beginnings


# -- torn and strange ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [1, 5, 40, 120])
def test_a_torn_last_line_is_passed_over_and_closed_by_the_next(results: ResultsDir, cut: int) -> None:
    begun(results)
    begun(results, stamp="20260302_111500")
    for name in ("runs.jsonl", "history"):
        os.truncate(raw(results, name), raw(results, name).stat().st_size - cut)
    torn = read_runs(results.root)
    assert "1" in torn
    assert int(begun(results, stamp="20260302_121500")) in (2, 3)
    runs = read_runs(results.root)
    assert list(runs)[-1] not in ("1",) and runs["1"].begun == torn["1"].begun
    for line in raw(results).read_bytes().split(b"\n")[-2:-1]:
        json.loads(line)


def test_lines_of_strangers_are_passed_over(results: ResultsDir) -> None:
    begun(results)
    strange = [
        b"\xff\xfe",
        b"[" * 3000,
        b"{}",
        b'{"event":"begin","id":"../../x","leaf":"a"}',
        b'{"event":"begin","id":"77","leaf":"../../etc"}',
        b'{"event":"begin","id":"78","leaf":"/etc"}',
        b'{"event":"begin","id":"79","leaf":".mlps/trash"}',
        b'{"event":"begin","id":"1","leaf":"closed/acme/results/other/training/unet3d/run/x"}',
        b'{"event":"end","id":"99","status":"complete"}',
        b'{"event":"end","id":"1","status":"whatever"}',
        b'{"event":"begin","id":80,"leaf":"a"}',
        b"x" * (3 << 20),
    ]
    with raw(results).open("ab") as file:
        file.write(b"\n".join(strange) + b"\n")
    runs = read_runs(results.root)
    assert list(runs) == ["1"]
    assert runs["1"].state() == "running"
    assert runs["1"].begun.leaf.startswith("closed/acme/")


def test_a_journal_that_is_a_link_or_a_pipe_is_not_read(results: ResultsDir) -> None:
    raw(results).symlink_to("/etc/passwd")
    with pytest.raises(OSError, match="symbolic links"):
        read_runs(results.root)
    raw(results).unlink()
    os.mkfifo(raw(results))
    assert read_runs(results.root) == {}


def test_removal_is_noted(results: ResultsDir) -> None:
    begun(results), begun(results)
    note_removed(results, ["2"])
    assert [run.removed for run in read_runs(results.root).values()] == [False, True]


@pytest.mark.slow
def test_a_million_lines_are_read_in_seconds_and_the_next_id_at_once(results: ResultsDir) -> None:
    head = msgspec.json.decode(msgspec.json.encode(RunLine("begin", process=Process.mine())))
    facts = {"division": "closed", "family": "training", "model": "unet3d", "command": "run", "system": "sysA"}
    line = json.dumps({**head, **facts, "id": "%d", "leaf": "closed/acme/results/sysA/training/unet3d/run/%d"})
    done = json.dumps({"event": "end", "id": "%d", "exit_code": 0, "seconds": 1.5, "status": "complete"})
    with raw(results).open("w") as file:
        file.writelines(f"{line % (n, n)}\n{done % n}\n" for n in range(1, 500_001))
    started = time.process_time()
    assert begun(results) == "500001"
    assert time.process_time() - started < 0.5
    started = time.process_time()
    runs = read_runs(results.root)
    assert time.process_time() - started < 15  # measured: 2.9 s
    assert len(runs) == 500_001 and runs["500000"].state() == "complete"
