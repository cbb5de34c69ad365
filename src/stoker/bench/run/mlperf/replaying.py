"""Typing a command line of the history again."""

import os
import sys
from typing import Final

from stoker.bench.run.mlperf.journal import HistoryLine, read_history, replayable
from stoker.bench.run.mlperf.results_dir import ResultsDir
from stoker.core.errors import StokerError, UnknownNameError, UsageError

_PROGRAM: Final = "from stoker.cli.main import main; main()"


def line_of(results: ResultsDir, run: str) -> HistoryLine:
    """Return the line of an id. Raises UnknownNameError."""
    lines = read_history(results.root)
    for line in lines:
        if line.id == run:
            return line
    known = f"{lines[0].id} to {lines[-1].id}" if lines else ""
    raise UnknownNameError(
        "no command line of this id",
        where=run,
        expected=known,
        got="" if known else "an empty history",
        remedy="see stoker mlperf history show" if known else "runs are noted there when they begin",
    )


def told_for_replay(results: ResultsDir, run: str) -> HistoryLine:
    """Return the line of an id that can be run again.

    Raises UnknownNameError for an id that is none, UsageError for a line that held a secret or that is itself a replay.
    """
    line = line_of(results, run)
    if replayable(line)[:3] == ("mlperf", "history", "rerun"):
        raise UsageError("the command line is itself a replay", where=run, remedy="name the line that it replayed")
    return line


def replay(line: HistoryLine) -> int:
    """Run a line again, word for word, in this process's place and in the folder of then; it returns only by an error.

    Raises StokerError when the folder is gone.
    """
    try:
        os.chdir(line.cwd)
    except OSError as error:
        raise StokerError(
            "the folder where it was typed cannot be entered", where=line.cwd, got=error.strerror or ""
        ) from error
    sys.stdout.flush()
    sys.stderr.flush()
    # -P: modules that lie in that folder are not ours.
    os.execv(sys.executable, [sys.executable, "-P", "-c", _PROGRAM, *line.words])  # noqa: S606 - our own program
