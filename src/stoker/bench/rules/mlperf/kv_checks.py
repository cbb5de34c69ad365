"""KV cache: the fixed workloads, ranks and their outputs, aggregation over ranks and trials."""

import re
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

import msgspec

from stoker.bench.rules.mlperf.findings import Check, Context, Fault, Said, excused, missing
from stoker.bench.rules.mlperf.layout import Series
from stoker.bench.rules.mlperf.leaves import Leaf
from stoker.bench.rules.mlperf.reading import Folder, dig, number, whole, words
from stoker.bench.rules.mlperf.tables import CLOSED, OPEN, models, override_breach
from stoker.bench.rules.mlperf.training_checks import AGREEMENT_RATIO

RESULT_PREFIX: Final = "kvcache_results_"
# The engine's options that are the workload itself, by their names in the table.
_WORKLOAD: Final = {
    "model": "model",
    "num-users": "users",
    "duration": "duration_seconds",
    "gpu-mem-gb": "gpu_memory_gb",
    "cpu-mem-gb": "cpu_memory_gb",
    "max-concurrent-allocs": "concurrent_allocs",
    "generation-mode": "generation",
}
_IMMUTABLE: Final = frozenset(
    (
        *("performance-profile", "enable-rag", "rag-num-docs", "disable-multi-turn", "disable-prefix-caching"),
        *("use-burst-trace", "burst-trace-path", "dataset-path", "enable-latency-tracing", "io-trace-log"),
        *("prefill-only", "decode-only", "tensor-parallel", "request-rate", "max-requests", "storage-capacity-gb"),
        *("precondition", "trace-speedup", "replay-cycles", "max-conversations"),
    )
)
_PLACE: Final = re.compile(r"option_(\d{1,3})/trial_(\d{1,5})")


class RankOutput(msgspec.Struct):
    """A rank's output, without the raw latencies beside its summary."""

    summary: dict[str, Any] = {}


def _metadata_path(leaf: Leaf) -> str:
    return leaf.folder.below(leaf.metadata_name)


def _summary_path(leaf: Leaf) -> str:
    return leaf.folder.below("summary.json")


def _given(leaf: Leaf, names: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Give the arguments that were given: there, and neither empty nor false."""
    for name in names:
        value = leaf.argument(name)
        if value not in (None, False, "", []):
            yield name, value


def _options(leaf: Leaf) -> dict[str, Any]:
    found = dig(leaf.summary, ["options"])
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _commands(leaf: Leaf) -> list[tuple[str, str, dict[str, str]]]:
    """Return option, key and engine's options of every command line that ran a trial.

    They are the evidence: the arguments in the metadata hold the defaults of a command line that closed never uses.
    """
    listed = dig(leaf.metadata, ["command_output_files"])
    found = []
    for at, entry in enumerate(listed if isinstance(listed, list) else []):
        text = words(entry, "command") or ""
        place = _PLACE.search(text)
        if place is not None:
            found.append((place[1], f"command_output_files[{at}].command", _engine_options(text)))
    return found


def _engine_options(text: str) -> dict[str, str]:
    """Return the `--key value` pairs of the engine, which follow the program's name; a switch has an empty value."""
    parts = text.split()
    start = next((at for at, part in enumerate(parts) if part.endswith(".py")), 0)
    found: dict[str, str] = {}
    for at, part in enumerate(parts[start:], start):
        if part.startswith("--"):
            key, equals, value = part[2:].partition("=")
            after = parts[at + 1] if at + 1 < len(parts) else ""
            found[key] = value if equals else ("" if after.startswith("--") else after)
    return found


def fixed_workloads(leaf: Leaf, _: Context) -> Iterable[Said]:
    """All three options, each with the values of its own."""
    commands = _commands(leaf)
    if leaf.summary is None or not commands:
        yield missing("the options that were run, or the engine's command lines", leaf.path)
        return
    wanted = models().kv_cache.options
    if set(_options(leaf)) != set(wanted):
        told = f"options {', '.join(sorted(_options(leaf))) or 'none'}"
        yield Fault(told, ", ".join(wanted), _summary_path(leaf), "options")
    for option, key, given in commands:
        for name, field in _WORKLOAD.items():
            legal = getattr(wanted.get(option), field, None)
            if legal is not None and not _same(given.get(name), legal):
                told = f"option {option} ran with --{name} {given.get(name, 'not given')}"
                yield Fault(told, f"{legal}", _metadata_path(leaf), key)


def _same(told: str | None, legal: int | str) -> bool:
    return told == legal if isinstance(legal, str) else number({"value": told}, "value") == legal


def sequence_locks(leaf: Leaf, _: Context) -> Iterable[Said]:
    """Seed, trials, delay and no configuration file."""
    table = models().kv_cache
    trials = whole(leaf.summary, "trials_per_option")
    if leaf.metadata is None or trials is None:
        yield missing("seed, trials or delay", leaf.path)
        return
    if trials != table.trials:
        yield Fault(f"{trials} trials", f"{table.trials}", _summary_path(leaf), "trials_per_option")
    for option, found in sorted(_options(leaf).items()):
        if whole(found, "trial_count") != table.trials:
            key = f"options.{option}.trial_count"
            yield Fault(f"{dig(found, ['trial_count'])} trials", f"{table.trials}", _summary_path(leaf), key)
    locked = {"seed": table.seed, "inter_option_delay": table.delay_seconds, "trials": table.trials, "config": None}
    for name, value in _given(leaf, locked):
        told = number({"value": value}, "value")
        if locked[name] is None or told != locked[name]:
            yield Fault(f"{name}={value}", f"{locked[name] or 'none'}", _metadata_path(leaf), f"args.{name}")
    for option, key, given in _commands(leaf):
        if not _same(given.get("seed-base", str(table.seed)), table.seed):
            seed = f"option {option} ran with --seed-base {given['seed-base']}"
            yield Fault(seed, f"{table.seed}", _metadata_path(leaf), key)


def no_autoscaling(leaf: Leaf, _: Context) -> Iterable[Said]:
    """The autoscaler is off."""
    commands = _commands(leaf)
    if not commands:
        yield missing("the engine's command lines", leaf.path)
    for option, key, given in commands:
        if "enable-autoscaling" in given:
            yield Fault(f"option {option} ran with --enable-autoscaling", "off", _metadata_path(leaf), key)


def client_definition(leaf: Leaf, _: Context) -> Iterable[Said]:
    """Ranks are processes of a node times hosts, in every option."""
    each, hosts, total = (whole(leaf.summary, key) for key in ("npernode", "host_count", "total_ranks"))
    if each is None or hosts is None or total is None:
        yield missing("npernode, host_count or total_ranks", leaf.path)
        return
    if each * hosts != total:
        yield Fault(f"{total} ranks", f"{each} x {hosts}", _summary_path(leaf), "total_ranks")
    for option, found in sorted(_options(leaf).items()):
        if whole(found, "rank_count") != total:
            key = f"options.{option}.rank_count"
            yield Fault(f"{dig(found, ['rank_count'])} ranks", f"{total}", _summary_path(leaf), key)


def _numbered(folder: Folder, prefix: str) -> dict[int, Folder]:
    pattern = re.compile(rf"{prefix}_(\d{{1,7}})")
    found = ((pattern.fullmatch(each.name), each) for each in folder.visible())
    return {int(named[1]): each for named, each in found if named}


def isolation(leaf: Leaf, _: Context) -> Iterable[Said]:
    """A folder and a result a rank, in every trial of every option."""
    total, trials = whole(leaf.summary, "total_ranks"), whole(leaf.summary, "trials_per_option")
    if total is None or trials is None:
        yield missing("total_ranks or trials_per_option", leaf.path)
        return
    options = _numbered(leaf.folder, "option")
    for option in sorted(_options(leaf)):
        folder = options.get(int(option)) if option.isascii() and option.isdigit() else None
        found = _numbered(folder, "trial") if folder is not None else {}
        if len(found) != trials:
            path = leaf.folder.below(f"option_{option}")
            yield Fault(f"{len(found)} trials", f"{trials} trial folders", path)
        for trial in found.values():
            ranks = _numbered(trial, "rank")
            whole_ones = [number for number, rank in ranks.items() if len(_results(rank)) == 1]
            if len(ranks) != total or len(whole_ones) != total:
                told = f"{len(whole_ones)} ranks with one result each, of {len(ranks)} folders"
                yield Fault(told, f"{total} ranks", trial.path)


def _results(rank: Folder) -> list[str]:
    return [
        rank.below(name) for name in sorted(rank.files) if name.startswith(RESULT_PREFIX) and name.endswith(".json")
    ]


def shared_results(leaf: Leaf, _: Context) -> Iterable[Said]:
    """Nothing is missing from the summary."""
    if leaf.summary is None:
        yield missing("what is missing", leaf.path)
        return
    places = [("", leaf.summary), *((f"options.{name}.", found) for name, found in sorted(_options(leaf).items()))]
    for prefix, found in places:
        for key in ("partial_failure", "missing_files", "trial_failures"):
            value = dig(found, [key])
            if value:
                yield Fault(f"{key} {value}", "none", _summary_path(leaf), f"{prefix}{key}")


def _summaries(leaf: Leaf, option: str) -> list[list[dict[str, Any]]]:
    """Return the ranks' summaries of each trial of an option."""
    folder = leaf.folder.find(f"option_{option}")
    trials = _numbered(folder, "trial") if folder is not None else {}
    found = []
    for number_ in sorted(trials):
        paths = [path for rank in _numbered(trials[number_], "rank").values() for path in _results(rank)]
        outputs = [leaf.files.json(path, RankOutput) for path in paths]
        found.append([output.summary for output in outputs if output is not None])
    return found


def _summed(trials: Sequence[Sequence[dict[str, Any]]], key: str) -> float | None:
    """Return the sum over ranks, averaged over trials; None when a rank does not tell."""
    sums = []
    for ranks in trials:
        values = [_told(rank, key) for rank in ranks]
        if not values or None in values:
            return None
        sums.append(sum(value for value in values if value is not None))
    return statistics.fmean(sums) if sums else None


def _told(rank: dict[str, Any], key: str) -> float | None:
    """Return what a rank tells; one that never used its storage tier counts as 0."""
    told = number(rank, key)
    return 0.0 if told is None and number(rank, "cache_stats.storage_entries") == 0 else told


def _largest(trials: Sequence[Sequence[dict[str, Any]]], key: str) -> float | None:
    values = [value for ranks in trials for rank in ranks if (value := number(rank, key)) is not None]
    return max(values, default=None)


def _agrees(leaf: Leaf, pairs: Iterable[tuple[str, str, Any]]) -> Iterable[Said]:
    """Hold figures of every option against what the ranks say: (summary's key, ranks' key, how they are joined)."""
    every = list(pairs)
    if not _options(leaf):
        yield missing("the options' figures", leaf.path)
    for option, found in sorted(_options(leaf).items()):
        trials = _summaries(leaf, option)
        for told_key, rank_key, join in every:
            told, wanted = number(found, told_key), join(trials, rank_key)
            key = f"options.{option}.{told_key}"
            if told is None or wanted is None:
                yield missing(f"{key} or the ranks' {rank_key}", leaf.path)
            elif abs(told - wanted) > AGREEMENT_RATIO * abs(wanted) + 1e-9:
                yield Fault(f"{told:,.4g}", f"{wanted:,.4g}, from the ranks", _summary_path(leaf), key)


def bandwidth(leaf: Leaf, _: Context) -> Iterable[Said]:
    """Bandwidth is summed over ranks, averaged over trials."""
    ways = ("read", "write")
    pairs = [
        (f"aggregated_{way}_bandwidth_gbps", f"cache_stats.tier_storage_{way}_bandwidth_gbps", _summed) for way in ways
    ]
    yield from _agrees(leaf, pairs)


def throughput(leaf: Leaf, _: Context) -> Iterable[Said]:
    """Storage tokens a second likewise."""
    key = "storage_throughput_tokens_per_sec"
    yield from _agrees(leaf, [(f"aggregated_{key}", key, _summed)])


def device_latency(leaf: Leaf, _: Context) -> Iterable[Said]:
    """P95 is the worst of all ranks and trials."""
    if any("aggregated_p95_latency_ms" in found for found in _options(leaf).values() if isinstance(found, dict)):
        yield excused("this version of the tool told one latency of requests, not of the device", leaf.path)
        return
    ways = ("read", "write")
    pairs = [(f"aggregated_device_{way}_p95_ms", f"cache_stats.storage_{way}_device_p95_ms", _largest) for way in ways]
    yield from _agrees(leaf, pairs)


def latency_valid(leaf: Leaf, _: Context) -> Iterable[Said]:
    """Some rank of each option used storage."""
    if not _options(leaf):
        yield missing("which ranks used storage", leaf.path)
    for option, found in sorted(_options(leaf).items()):
        lone, ranks = dig(found, ["cpu_tier_ranks"]), whole(found, "rank_count")
        if not isinstance(lone, list) or ranks is None:
            yield missing(f"options.{option}.cpu_tier_ranks", leaf.path)
        elif ranks < 1 or len({str(rank) for rank in lone}) >= ranks:
            key = f"options.{option}.cpu_tier_ranks"
            yield Fault(f"{len(lone)} of {ranks} ranks never used storage", "fewer", _summary_path(leaf), key)


def posix_folder(leaf: Leaf, _: Context) -> Iterable[Said]:
    """The cache directory is an absolute path."""
    told = words(leaf.metadata, "args.cache_dir")
    if leaf.metadata is None:
        yield missing("the cache directory", leaf.path)
    elif not told or not told.startswith("/"):
        yield Fault(f"cache directory {told}", "an absolute path", _metadata_path(leaf), "args.cache_dir")


def closed_immutable(leaf: Leaf, _: Context) -> Iterable[Said]:
    """No feature was switched and nothing was overridden."""
    commands = _commands(leaf)
    if not commands:
        yield missing("the engine's command lines", leaf.path)
        return
    for option, key, given in commands:
        for name in sorted(_IMMUTABLE & given.keys()):
            told = f"option {option} ran with --{name} {given[name]}".rstrip()
            yield Fault(told, "not given", _metadata_path(leaf), key)
    yield from _overridden(leaf, CLOSED)


def open_allowances(leaf: Leaf, _: Context) -> Iterable[Said]:
    """Only what open allows was overridden."""
    if leaf.metadata is None:
        yield missing("what was given", leaf.path)
        return
    yield from _overridden(leaf, OPEN)
    told = words(leaf.metadata, "args.model")
    if told is not None and told not in models().kv_cache.models:
        wanted = ", ".join(models().kv_cache.models)
        yield Fault(f"model {told}", wanted, _metadata_path(leaf), "args.model")


def _overridden(leaf: Leaf, division: str) -> Iterable[Said]:
    for key, (value, path, place) in sorted(leaf.overrides.items()):
        breach = override_breach("kv_cache", division, leaf.model, key, value)
        if breach:
            yield Fault(f"{key}={value}: {breach}", f"only what {division} allows", path, place)


def open_note(series: Series, _: Context) -> Iterable[Said]:
    """An open run that names an option gives the option's values itself."""
    for leaf in series.runs:
        if leaf.argument("option") in (None, ""):
            continue
        for name in ("model", "num_users", "duration", "gpu_mem_gb", "cpu_mem_gb"):
            if leaf.argument(name) is None:
                wanted = "passed with the option: the command line's default replaces the option's value"
                yield Fault(f"{name} is not given", wanted, _metadata_path(leaf), f"args.{name}")


CHECKS = {
    "6.3.1.1": Check("run", fixed_workloads),
    "6.3.2.1": Check("run", sequence_locks),
    "6.3.2.2": Check("run", no_autoscaling),
    "6.3.3.1": Check("run", client_definition),
    "6.3.3.3": Check("run", isolation),
    "6.3.3.4": Check("run", shared_results),
    "6.3.4.1": Check("run", bandwidth),
    "6.3.4.2": Check("run", throughput),
    "6.3.4.3": Check("run", device_latency),
    "6.3.4.4": Check("run", latency_valid),
    "6.4.1": Check("run", posix_folder),
    "6.6.1": Check("run", closed_immutable),
    "6.6.2": Check("run", open_allowances),
    "6.6.3": Check("series", open_note),
}
