"""Runs in a row: their order, the gaps between them, the warm-up, the best six of a longer series."""

from collections.abc import Iterable, Sequence
from itertools import pairwise

from stoker.bench.rules.mlperf.findings import Check, Context, Fault, Said, excused, missing
from stoker.bench.rules.mlperf.layout import LEAF, PACKAGE, Series
from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.reading import whole
from stoker.bench.rules.mlperf.tables import OPEN, WHATIF, editions, models

HANDOVER_SECONDS_MAX = 30.0


def in_order(runs: Sequence[Leaf]) -> list[Leaf]:
    """Return the runs by the time they started; a run that tells none goes by its folder's name, at the end."""
    late = float("inf")
    return sorted(runs, key=lambda leaf: (late if leaf.start_seconds is None else leaf.start_seconds, leaf.path))


def warm_up(runs: Sequence[Leaf], edition: str) -> Leaf | None:
    """Return the warm-up: the earliest of exactly as many runs as the edition asks for, None of any other number."""
    rule = editions()[edition]
    return in_order(runs)[0] if rule.warm_up_runs and len(runs) == rule.training_runs else None


def measured(runs: Sequence[Leaf], edition: str) -> list[Leaf]:
    """Return the runs that count: all but the warm-up; of a longer series those of its best six neighbours."""
    wanted = editions()[edition].training_runs
    chosen = best_window(runs, wanted) if len(runs) > wanted else in_order(runs)
    return chosen[editions()[edition].warm_up_runs :] if len(chosen) == wanted else chosen


def gap_fault(before: Leaf, after: Leaf) -> str:
    """Return what is wrong with the gap between two neighbours, nothing when it is shorter than the shorter of both.

    Whoever could fit a run in between could have hidden one there.
    """
    times = (before.start_seconds, before.end_seconds, after.start_seconds, after.end_seconds)
    first, ended, started, last = (time if time is not None else 0.0 for time in times)
    gap = started - ended
    if gap < 0:
        return f"started {-gap:.1f} s before the run before it ended"
    shorter = min(ended - first, last - started)
    return f"a gap of {gap:.1f} s, where a run takes {shorter:.1f} s" if gap >= shorter else ""


def is_timed(leaf: Leaf) -> bool:
    """Tell whether start and end of a run are known."""
    return leaf.start_seconds is not None and leaf.end_seconds is not None


def best_window(runs: Sequence[Leaf], wanted: int) -> list[Leaf]:
    """Return the `wanted` neighbours without a break whose measured runs are the fastest; none when there are none."""
    row = in_order([leaf for leaf in runs if is_timed(leaf)])
    windows = [row[at : at + wanted] for at in range(len(row) - wanted + 1)]
    whole_ones = [each for each in windows if not any(gap_fault(a, b) for a, b in pairwise(each))]
    return max(whole_ones, key=_speed, default=[])


def _speed(window: Sequence[Leaf]) -> float:
    return sum(leaf.samples_per_second or 0.0 for leaf in window[1:])


def run_timestamps(series: Series, context: Context) -> Iterable[Said]:
    """Exactly six runs in a package; the tool's own results folder may hold more."""
    if context.tree.kind == LEAF:
        yield lone_leaf(series)
        return
    wanted = editions()[context.tree.edition].training_runs
    runs = series.runs
    expected = f"exactly {wanted} runs"
    if len(runs) < wanted or (len(runs) > wanted and context.tree.kind == PACKAGE):
        best = best_window(runs, wanted) if len(runs) > wanted else []
        keep = f"; keep {best[0].time} to {best[-1].time}" if best else ""
        yield Fault(f"{len(runs)} runs{keep}", expected, series.path)
    starts = [leaf.start_seconds for leaf in runs if leaf.start_seconds is not None]
    if len(set(starts)) < len(starts):
        yield Fault("two runs start at the same instant: the warm-up cannot be told", expected, series.path)


def run_gaps(series: Series, context: Context) -> Iterable[Said]:
    """Neighbouring runs follow each other without room for another; a longer series is judged by its best six."""
    wanted = editions()[context.tree.edition].training_runs
    untimed = [leaf for leaf in series.runs if not is_timed(leaf)]
    if untimed:
        yield missing("start or end of a run", untimed[0].path)
        return  # its neighbours' gap would hold a whole run
    row = in_order(series.runs)
    if len(row) > wanted:
        return  # 2.1.18a
    for before, after in pairwise(row):
        wrong = gap_fault(before, after)
        if wrong and before.start_seconds != after.start_seconds:
            yield Fault(wrong, "a gap of at least 0 s and shorter than a run", after.path, "summary.json start")


def run_subsets(series: Series, context: Context) -> Iterable[Said]:
    """Of more runs than are needed, six neighbours must keep the rule of gaps."""
    wanted = editions()[context.tree.edition].training_runs
    runs = series.runs
    if len(runs) <= wanted:
        return
    if not all(is_timed(leaf) for leaf in runs):
        yield missing("start or end of a run", series.path)
    elif not best_window(runs, wanted):
        yield Fault(f"no {wanted} of {len(runs)} runs follow each other without a break", "", series.path)


def planned_counts(leaf: Leaf) -> tuple[int | None, int | None]:
    """Return how many checkpoints a leaf wrote and read: as it was resolved, else as it was asked for."""
    told = []
    for key, argument in (("num_checkpoints_write", "write"), ("num_checkpoints_read", "read")):
        resolved = whole(leaf.config, f"checkpoint.{key}")
        told.append(resolved if resolved is not None else whole(leaf.metadata, f"args.num_checkpoints_{argument}"))
    return told[0], told[1]


def is_split(series: Series) -> bool:
    """Tell whether writes and reads were two invocations."""
    return len(series.runs) == 2


def lone_leaf(series: Series) -> Said:
    """Return the unknown for a count of runs where the tree is one leaf."""
    return excused("the tree is a single leaf: the others of its result are not here", series.path)


def checkpoint_timestamps(series: Series, context: Context) -> Iterable[Said]:
    """One leaf of 10 writes and 10 reads, or a writing one and then a reading one; in open any counts that add up."""
    if context.tree.kind == LEAF:
        yield lone_leaf(series)
        return
    runs = in_order(series.runs)
    expected = "one leaf with 10 writes and 10 reads, or one with 10 writes and then one with 10 reads"
    if len(runs) not in (1, 2):
        yield Fault(f"{len(runs)} leaves", expected, series.path)
        return
    counts = [planned_counts(leaf) for leaf in runs]
    if any(None in each for each in counts):
        yield missing("the number of writes and reads", series.path)
        return
    if counts not in ([(10, 10)], [(10, 0), (0, 10)]) and not _open_shape(series, counts):
        told = ", then ".join(f"{writes} writes and {reads} reads" for writes, reads in counts)
        yield Fault(told, expected, runs[0].config_path or series.path, "checkpoint.num_checkpoints_write and _read")


def _open_shape(series: Series, counts: Sequence[tuple[int | None, int | None]]) -> bool:
    writes = [each[0] or 0 for each in counts]
    reads = [each[1] or 0 for each in counts]
    single = len(counts) == 1 and writes[0] > 0 and reads[0] > 0
    split = len(counts) == 2 and writes[0] > 0 and reads[1] > 0 and writes[1] == reads[0] == 0
    return series.division in (OPEN, WHATIF) and (single or split)


def handover_seconds(series: Series) -> float | None:
    """Return the seconds from the end of the writes to the start of the reading process, None when not told."""
    if not is_split(series):
        return None
    writing, reading = in_order(series.runs)
    started = reading.invoked_seconds if reading.invoked_seconds is not None else reading.start_seconds
    return started - writing.end_seconds if started is not None and writing.end_seconds is not None else None


def checkpoint_gap(series: Series, _: Context) -> Iterable[Said]:
    """The reading leaf follows the writing one before another leaf could have been run."""
    if not is_split(series):
        return
    writing, reading = in_order(series.runs)
    if not (is_timed(writing) and is_timed(reading)):
        yield missing("start or end of a leaf", series.path)
    elif wrong := gap_fault(writing, reading):
        yield Fault(wrong, "a gap of at least 0 s and shorter than a leaf", reading.path, "summary.json start")


def checkpoint_handover(series: Series, _: Context) -> Iterable[Said]:
    """From the end of the writes to the start of the reading process pass at most 30 s, and not less than none."""
    if not is_split(series):
        return
    gap = handover_seconds(series)
    reading = in_order(series.runs)[1]
    expected = f"0 to {HANDOVER_SECONDS_MAX:g} s"
    if gap is None:
        yield missing("the end of the writes or the start of the reads", series.path)
    elif gap < 0:
        yield Fault(f"{gap:.1f} s: the clocks disagree", expected, reading.path, "invocation_start_time")
    elif gap > HANDOVER_SECONDS_MAX:
        yield Fault(f"{gap:.1f} s", expected, reading.path, "invocation_start_time")


def vector_runs(series: Series, context: Context) -> Iterable[Said]:
    """Exactly five runs of an index."""
    if context.tree.kind == LEAF:
        yield lone_leaf(series)
        return
    wanted = models().vector_database.runs
    if len(series.runs) != wanted:
        yield Fault(f"{len(series.runs)} runs", f"exactly {wanted} runs", series.path)


def one_generation(series: Series, _: Context) -> Iterable[Said]:
    """The dataset was generated once."""
    found = series.phase("datagen")
    if len(found) != 1 and series.folder.find("datagen") is not None:
        yield Fault(f"{len(found)} timestamp folders", "exactly one", series.folder.below("datagen"))


CHECKS = {
    "2.1.13": Check("series", one_generation),
    "2.1.17": Check("series", run_timestamps),
    "2.1.18": Check("series", run_gaps),
    "2.1.18a": Check("series", run_subsets),
    "2.1.23": Check("series", checkpoint_timestamps),
    "2.1.24": Check("series", checkpoint_gap),
    "4.7.1": Check("series", checkpoint_handover),
    "5.3.1": Check("series", vector_runs),
}
