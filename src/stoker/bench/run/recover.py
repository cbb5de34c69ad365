"""A result from a run that never wrote one: whatever moment it was killed at, its logs tell how far it came."""

from pathlib import Path

import msgspec

from stoker.bench.report.hosts import summarise
from stoker.bench.run.assemble import RunEnd, RunStart, assemble
from stoker.bench.run.hosts.partial import recover_hosts
from stoker.bench.run.record import RANK_LOST, STARTED, ranks_by_host, read_ranks, save_series
from stoker.bench.run.vectors.closing import add_recall
from stoker.core.errors import CorruptError, NotFoundError
from stoker.core.events import read_events
from stoker.core.result import EVENTS_FILE, RESULT_FILE, Result, load_result, save_result

KILLED = "the run ended without a result; this one was recovered from its logs"


def load_or_recover(path: Path, *, save: bool = True) -> Result:
    """Return the result in `path`, a run folder or a result file; a folder without one is recovered and gets one.

    Raises NotFoundError when there is neither a result nor a log, CorruptError for files that are not ours.
    """
    if path.is_dir() and not (path / RESULT_FILE).exists():
        result = recover(path, save=save)
        if save:
            save_result(path, result)
        return result
    if not path.exists():
        raise NotFoundError("no such result", where=str(path), expected="a run folder or its result.json")
    return load_result(path)


def recover(folder: Path, *, save: bool = True) -> Result:
    """Return the result that the logs of a run allow, labelled partial, or failed with the reason a rank left.

    With `save` its steps are saved beside the logs; the result is not. Raises as `load_or_recover` does.
    """
    start, ended_utc, wall_seconds, lost = _read_start(folder)
    parts = read_ranks(folder, start.plan.ranks)
    error = next((f"rank {report.start.rank}: {report.error}" for report, _ in parts if report.error), lost)
    for report, _ in parts:
        wall_seconds = max(wall_seconds, report.snapshot.wall_seconds)
    end = RunEnd(
        status="failed" if error else "partial",
        reason=error or KILLED,
        ended_utc=ended_utc,
        wall_seconds=wall_seconds,
        notes=() if not error else (KILLED,),
    )
    result = assemble(start, end, parts)
    if save:
        add_recall(folder, result, [report for report, _ in parts])
        save_series(folder, parts)
        result.hosts = summarise(recover_hosts(folder), ranks_by_host(parts))
    return result


def _read_start(folder: Path) -> tuple[RunStart, str, float, str]:
    """Return what was known at the start, the date and second of the last event, and which rank was lost, if any."""
    path = folder / EVENTS_FILE
    if not path.exists():
        raise NotFoundError("no run here", where=str(folder), expected=f"{RESULT_FILE} or {EVENTS_FILE}")
    start: RunStart | None = None
    first_ns = last_ns = 0
    last_utc = lost = ""
    try:
        for event in read_events(path):
            last_ns, last_utc = event["at_ns"], event["utc"]
            if event["event"] == STARTED:
                start, first_ns = msgspec.convert(event["run"], RunStart), last_ns
            elif event["event"] == RANK_LOST:
                lost = lost or str(event["reason"])
    except (msgspec.ValidationError, KeyError, TypeError) as error:
        raise CorruptError("not the log of a run", where=str(path), got=str(error)) from error
    if start is None:
        raise CorruptError("the run was killed before it began", where=str(path), expected="a whole first event")
    return start, last_utc, (last_ns - first_ns) / 1e9, lost
