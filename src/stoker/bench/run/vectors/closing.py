"""After the timed run: each rank's first answers as files, and the recall of the very answers that were timed."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from stoker.bench.run.vectors.preparing import FACTS_FILE, TRUTH_FILE, Readied
from stoker.bench.workloads.reports import RankReport
from stoker.core.errors import StokerError
from stoker.core.files import write_atomic
from stoker.core.result import RANKS_FOLDER, Result
from stoker.core.vectors import SEARCHING
from stoker.vectors.recall import recall_of
from stoker.vectors.truth import load_truth

HITS_NAME: Final = "recall_hits_p{rank}.jsonl"
_FACTS_BYTES_MAX: Final = 1 << 24


def add_recall(folder: Path, result: Result, reports: Sequence[RankReport]) -> None:
    """Enter into a result what was known before the run, and the recall; a result of another workload stays as it is.

    A query counts once, by the answer of the lowest rank that asked it: all ranks ask the same index.
    """
    what, figures = result.plan.vectors, result.vectors
    if what is None or figures is None:
        return
    readied = read_facts(folder)
    if readied is not None:
        figures.engine_version, figures.index_found = readied.engine_version, readied.index_found
        figures.truth = readied.truth
        figures.vectors = figures.vectors or readied.count
    if what.work != SEARCHING:
        return
    answers: dict[int, list[int]] = {}
    for report in reports:
        for answer in report.answers:
            answers.setdefault(answer.query, answer.ids)
        _save_hits(folder, report)
    with suppress(StokerError):  # without exact answers there is no recall: the judge tells of it
        figures.recall = recall_of(answers, load_truth(folder / TRUTH_FILE), what.recall_k)


def read_facts(folder: Path) -> Readied | None:
    """Return what was known before a run, None where nothing was kept."""
    try:
        data = (folder / FACTS_FILE).read_bytes()
        return msgspec.json.decode(data[:_FACTS_BYTES_MAX], type=Readied)
    except (OSError, msgspec.DecodeError):
        return None


def _save_hits(folder: Path, report: RankReport) -> None:
    lines = [msgspec.json.encode({"q": each.query, "ids": each.ids}) + b"\n" for each in report.answers]
    write_atomic(folder / RANKS_FOLDER / HITS_NAME.format(rank=report.start.rank), b"".join(lines))
