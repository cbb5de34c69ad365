"""Rows for the tables of a report: findings, stalls, bytes, epochs, ranks, settings. Figures arrive as text."""

import statistics
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from stoker.bench.report import text
from stoker.bench.report.charts import bar
from stoker.bench.rules.facts import (
    compare_counters,
    is_object_store,
    measured,
    saves_alone,
    searches,
    serves_cache,
    share,
)
from stoker.core.ledger import Counters
from stoker.core.result import Epoch, RankResult, Result

EPOCHS_MAX: Final = 120
RANKS_MAX: Final = 48
SETTINGS_MAX: Final = 150

STAGE_WORDS: Final = {
    "list": ("finding the files", "keep a manifest, or use fewer and larger files"),
    "open": ("opening files or starting requests", "metadata is slow: use fewer, larger files or more read threads"),
    "read": ("moving bytes from the store", "the store's bandwidth or queue is the limit; try more read threads first"),
    "verify": ("checking checksums", "verify a smaller share, or give the client more CPU"),
    "decode": ("unpacking samples", "add decode threads or CPU, or choose a format that needs no unpacking"),
    "transform": ("preprocessing samples", "add decode threads or CPU, or preprocess ahead of time"),
    "batch": ("putting samples together", "hand out views instead of copies (--collate views)"),
    "transfer": ("moving batches to the accelerator", "look at the path between host memory and device"),
    "queue": ("waiting in the loader's own queues", "prefetch more batches or add read threads"),
    "compute": ("waiting for the slowest rank", "look for one slow rank in the table of ranks"),
    "write": ("writing entries into the tiers", "the store's bandwidth or flush latency is the limit"),
    "make": ("making the content of entries", "use more or larger clients"),
    "checkpoint_stage": ("waiting for a checkpoint's content", "use more or larger clients, or fewer ranks a client"),
    "checkpoint_write": ("writing a checkpoint", "write in the background, or spread it over more writers"),
    "search": ("a request to the database", "see what the database waits for: its storage, its CPU or its memory"),
    "query": ("a request over its queries", "search fewer candidates, or send fewer queries a request"),
    "checkpoint_commit": ("making a checkpoint durable", "look at the store's flush latency"),
}
LEDGER_WORDS: Final = (
    ("wanted_bytes", "wanted", "payload the plan asked for"),
    ("requested_bytes", "requested", "asked of the store, rounding included"),
    ("from_store_bytes", "from the store", "requested and not in this host's page cache"),
    ("from_cache_bytes", "from the cache", "requested and already in this host's page cache"),
    ("copied_bytes", "copied", "moved in memory between the store's buffer and the consumer"),
    ("delivered_bytes", "delivered", "payload handed to the consumer"),
)
WRITTEN_WORDS: Final = ("written_bytes", "written", "handed to the store, and taken by it")
COUNTER_WORDS: Final = (
    ("process_read_bytes", "kernel, block layer", "fetched for these processes (/proc/self/io read_bytes)"),
    ("process_syscall_bytes", "kernel, read calls", "returned by read calls, cached or not (/proc/self/io rchar)"),
    ("http_body_bytes", "object-store client", "bodies of responses"),
    ("http_gap_bytes", "object-store client, gaps", "of the bodies, between wanted ranges that shared a request"),
    ("device_read_bytes", "block device", "read by the device for the whole host"),
    ("network_receive_bytes", "network interfaces", "received by the whole host"),
    ("process_write_bytes", "kernel, writes", "what these processes dirtied or wrote (/proc/self/io write_bytes)"),
    ("device_write_bytes", "block device, writes", "written by the device for the whole host"),
    ("network_transmit_bytes", "network interfaces, sent", "sent by the whole host"),
    ("resident_before_bytes", "page cache, before", "of the dataset, resident when the epoch began"),
    ("resident_probe_bytes", "page cache, asked", "bytes of the dataset whose residency was asked about"),
)


@dataclass(frozen=True, slots=True)
class BarRow:
    """A labelled amount with its bar."""

    name: str
    words: str
    value: str
    ratio: str
    bar: Markup
    extra: str = ""


def stall_rows(result: Result) -> list[BarRow]:
    """Return the stall by stage, largest first, with the work each stage did on all ranks."""
    stall = {name: seconds for name, seconds in result.metrics.stall_seconds.items() if seconds > 0}
    whole = sum(stall.values())
    busy = busy_seconds(result)
    ordered = sorted(stall, key=lambda name: -stall[name])
    return [
        BarRow(
            text.plain(name, 40),
            STAGE_WORDS.get(name, ("", ""))[0],
            text.duration(stall[name]),
            text.percent(share(stall[name], whole)),
            bar(share(stall[name], whole), 2),
            text.duration(busy.get(name)),
        )
        for name in ordered[:20]
    ]


def busy_seconds(result: Result) -> dict[str, float]:
    """Return the seconds that each stage worked, summed over ranks."""
    sums: dict[str, float] = {}
    for rank in result.ranks:
        for name, seconds in rank.busy_seconds.items():
            sums[name] = sums.get(name, 0.0) + seconds
    return sums


def stall_sentence(result: Result) -> str:
    """Return what the accelerators waited for and what may help, in words."""
    metrics = result.metrics
    whole = sum(metrics.stall_seconds.values())
    if searches(result):
        return "A database moves its bytes by itself: the client waits for its answers, and tells no stages."
    if serves_cache(result):
        return "Where the time of all requests together went: reading, writing, and the content for it."
    if saves_alone(result):
        return "Where the time of saves and loads went, all ranks together."
    if whole <= 0:
        return "The accelerators did not wait for data." if measured(result) else "No step was measured."
    stage = metrics.limiting_stage
    what, advice = STAGE_WORDS.get(stage, ("", ""))
    wall = sum(rank.wall_seconds for rank in result.ranks)
    of_wall = f", {text.percent(whole / wall)} of their time" if wall > 0 else ""
    told = f"Together the accelerators waited {text.duration(whole)}{of_wall}; "
    told += f"{text.percent(metrics.limiting_share_ratio, 0)} of it for {text.plain(stage, 40)}"
    told += f" ({what})." if what else "."
    return told + (f" What may help: {advice}." if advice else "")


def ledger_rows(result: Result) -> list[BarRow]:
    """Return the ledger with bars to one scale."""
    ledger = result.evidence.ledger
    words_of = (*LEDGER_WORDS, *((WRITTEN_WORDS,) if ledger.written_bytes else ()))
    amounts = {name: getattr(ledger, name) for name, _, _ in words_of}
    most = max(*amounts.values(), 1)
    style = {"from_store_bytes": 3, "from_cache_bytes": 2}
    return [
        BarRow(
            label,
            words,
            text.size(amounts[name]),
            text.percent(share(amounts[name], ledger.requested_bytes), 2) if ledger.requested_bytes else text.DASH,
            bar(share(amounts[name], most), style.get(name, 1)),
        )
        for name, label, words in words_of
    ]


def counter_rows(result: Result) -> list[dict[str, Any]]:
    """Return what others counted; the witness that the verdict relies on is marked."""
    counters = result.evidence.counters
    witness = "http_body_bytes" if is_object_store(result) else "process_read_bytes"
    rows = []
    for name, label, words in COUNTER_WORDS:
        value = getattr(counters, name)
        shown = "not to be had" if value is None else text.size(value)
        rows.append({"name": label, "words": words, "value": shown, "witness": name == witness})
    return rows + _request_rows(counters)


def _request_rows(counters: Counters) -> list[dict[str, Any]]:
    """Return the requests of the object-store client, by kind, for the kinds there were any of."""
    names = [name for name in Counters.__struct_fields__ if name.endswith("_requests") and getattr(counters, name)]
    return [
        {
            "name": f"requests, {name.removeprefix('http_').removesuffix('_requests')}",
            "words": "sent by the object-store client",
            "value": f"{getattr(counters, name):,}",
            "witness": False,
        }
        for name in names
    ]


def agreement(result: Result) -> dict[str, Any]:
    """Return the ledger's claim beside the witness's count, and whether they agree."""
    comparison = compare_counters(result)
    apart = comparison.difference_ratio
    return {
        "claimed": text.size(comparison.claimed_bytes),
        "counted": "nothing" if comparison.counted_bytes is None else text.size(comparison.counted_bytes),
        "known": apart is not None,
        "apart": text.percent(abs(apart), 2) if apart is not None else text.DASH,
        "agrees": not comparison.unconfirmed and not comparison.exceeded,
        "witness": "the object-store client" if is_object_store(result) else "the kernel",
    }


def epoch_rows(result: Result) -> list[dict[str, str]]:
    """Return the first epochs, as many as a page holds."""
    return [_epoch_row(epoch) for epoch in result.epochs[:EPOCHS_MAX]]


def _epoch_row(epoch: Epoch) -> dict[str, str]:
    coverage = {True: "exact", False: "not exact", None: text.DASH}[epoch.coverage_exact]
    dropped = f" ({text.count(epoch.dropped_samples)} dropped)" if epoch.dropped_samples else ""
    return {
        "epoch": str(epoch.epoch) + ("" if epoch.complete else " (cut short)"),
        "phase": "training" if epoch.phase == "train" else text.plain(epoch.phase, 30),
        "steps": text.count(epoch.steps),
        "samples": text.count(epoch.samples) + dropped,
        "wall": text.duration(epoch.wall_seconds),
        "au": text.percent(epoch.au_ratio, 2),
        "au_compatible": text.percent(epoch.au_compatible_ratio, 2),
        "samples_per_second": text.decimal(epoch.samples_per_second),
        "rate": text.rate(epoch.delivered_bytes_per_second),
        "cached": text.percent(epoch.cached_before_ratio),
        "coverage": coverage,
    }


def rank_rows(result: Result) -> list[dict[str, str]]:
    """Return the ranks in order; of very many, those that failed or waited longest."""
    ranks = sorted(result.ranks, key=lambda rank: (not rank.error, -_stall(rank)))[:RANKS_MAX]
    return [_rank_row(rank) for rank in sorted(ranks, key=lambda rank: rank.rank)]


def _rank_row(rank: RankResult) -> dict[str, str]:
    longest = max(rank.stall_seconds, key=lambda name: rank.stall_seconds[name], default="")
    return {
        "rank": str(rank.rank),
        "host": text.plain(rank.host, 60) or text.DASH,
        "au": text.percent(_au(rank), 2),
        "wall": text.duration(rank.wall_seconds),
        "stall": text.duration(_stall(rank)),
        "stage": text.plain(longest, 30) if _stall(rank) > 0 else text.DASH,
        "delivered": text.size(rank.ledger.delivered_bytes),
        "cpu": text.duration(rank.cpu_seconds),
        "memory": text.size(rank.peak_memory_bytes) if rank.peak_memory_bytes else text.DASH,
        "error": text.plain(rank.error, 300),
    }


def rank_spread(result: Result) -> list[tuple[str, str, str, str]]:
    """Return (quantity, least, median, greatest) over the ranks."""
    if not result.ranks:
        return []
    utilised = [_au(rank) for rank in result.ranks]
    trained = [("AU", [au or 0.0 for au in utilised], lambda value: text.percent(value, 2))]
    columns = (
        *(trained if any(au is not None for au in utilised) else ()),
        ("stall", [_stall(rank) for rank in result.ranks], text.duration),
        ("delivered", [float(rank.ledger.delivered_bytes) for rank in result.ranks], text.size),
        ("CPU time", [rank.cpu_seconds for rank in result.ranks], text.duration),
        ("peak memory", [float(rank.peak_memory_bytes) for rank in result.ranks], text.size),
    )
    return [(name, write(min(v)), write(statistics.median(v)), write(max(v))) for name, v, write in columns]


def _stall(rank: RankResult) -> float:
    return sum(rank.stall_seconds.values())


def _au(rank: RankResult) -> float | None:
    ratios = [epoch.au_ratio for epoch in rank.epochs if epoch.phase == "train" and epoch.steps > 0]
    return statistics.fmean(ratios) if ratios else None


def setting_rows(result: Result) -> list[dict[str, str]]:
    """Return every setting with its value and where that came from, those that were given first."""
    settings = result.job.settings
    ordered = sorted(settings, key=lambda name: (settings[name].origin == "default", name))
    return [
        {
            "name": text.plain(name, 60),
            "value": text.safe_value(name, settings[name].value),
            "origin": text.plain(settings[name].origin, 20),
        }
        for name in ordered[:SETTINGS_MAX]
    ]
