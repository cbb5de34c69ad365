"""The trials of `stoker mlperf … kvcache run`: each an engine of its own, one after the other, and what they left.

Closed runs three fixed options in their order; open and whatif one workload as the options say, told as option 1. Each
trial has its folder for our own files, its two logs in the leaf, and a file of each rank.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.report.kvcache_files import SummaryOf, write_rank_files, write_summary
from stoker.bench.rules.mlperf.tables import CLOSED, models
from stoker.bench.run.hosts.events import OnProgress
from stoker.bench.run.hosts.start import Ended
from stoker.bench.run.mlperf.engine import COMPLETED, Engine, start_engine
from stoker.bench.run.mlperf.prepare import Prepared
from stoker.bench.run.mlperf.resolving import Invocation
from stoker.bench.run.mlperf.tee import OnOutput
from stoker.bench.run.recover import load_or_recover
from stoker.bench.run.signals import SignalWatch
from stoker.core import clock
from stoker.core.errors import StokerError
from stoker.core.host_series import Header, HostSeries, decode_column, encode_column, load_hosts, save_hosts
from stoker.core.result import Result, save_result

_NAP_SECONDS: Final = 0.2
_SIGNALLED: Final = 128
_SWITCHES: Final = (
    "disable_multi_turn",
    "disable_prefix_caching",
    "enable_rag",
    "enable_autoscaling",
    "use_burst_trace",
    "enable_latency_tracing",
)
_VALUES: Final = ("performance_profile", "burst_trace_path", "dataset_path")


class CacheOption(msgspec.Struct, frozen=True):
    """A workload: its number, and the words of our engine for it."""

    number: int
    words: tuple[str, ...]


class Trials(msgspec.Struct, frozen=True):
    """What is to be run: the workloads, how often each, and the seconds between two of them."""

    options: tuple[CacheOption, ...]
    trials: int
    pause_seconds: float


def trials_of(invocation: Invocation) -> Trials:
    """Return what a command runs."""
    table = models().kv_cache
    if invocation.place.division == CLOSED:
        options = tuple(CacheOption(int(number), _fixed_words(number)) for number in table.options)
        return Trials(options, table.trials, table.delay_seconds)
    words = (*_asked_words(invocation), "--seed", str(invocation.value("seed")))
    return Trials((CacheOption(1, words),), invocation.value("trials"), invocation.value("inter_option_delay"))


def _fixed_words(number: str) -> tuple[str, ...]:
    option = models().kv_cache.options[number]
    told = {
        "--model": option.model,
        "--num-users": option.users,
        "--duration": option.duration_seconds,
        "--gpu-mem-gb": option.gpu_memory_gb,
        "--cpu-mem-gb": option.cpu_memory_gb,
        "--max-concurrent-allocs": option.concurrent_allocs,
        "--generation-mode": option.generation,
        "--seed": models().kv_cache.seed,
    }
    return tuple(str(word) for pair in told.items() for word in pair)


def _asked_words(invocation: Invocation) -> list[str]:
    names = (
        *("model", "num_users", "duration", "gpu_mem_gb", "cpu_mem_gb"),
        *("max_concurrent_allocs", "generation_mode"),
    )
    words = [word for name in names for word in _pair(name, invocation.value(name))]
    words += [_flag(name) for name in _SWITCHES if invocation.value(name)]
    for name in _VALUES:
        if invocation.value(name) is not None and (invocation.given(name) or name == "performance_profile"):
            words += _pair(name, invocation.value(name))
    for name, needs in (("rag_num_docs", "enable_rag"), ("autoscaler_mode", "enable_autoscaling")):
        words += _pair(name, invocation.value(name)) if invocation.value(needs) else []
    return words


def _pair(name: str, value: Any) -> list[str]:
    return [_flag(name), f"{value:g}" if isinstance(value, float) else str(value)]


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


class CacheRun:
    """All trials of one command."""

    def __init__(
        self,
        prepared: Prepared,
        engine: Engine,
        places: tuple[Path, Path],
        stamp: str,
        told: tuple[OnProgress, OnOutput, Callable[[str], None]],
    ) -> None:
        """`places` are the leaf and the folder of our own files; `told` gets progress, output to come and warnings."""
        self._prepared, self._engine, self._stamp = prepared, engine, stamp
        self._leaf, self._evidence = places
        self._on_progress, self._on_output, self._warn = told
        self._what = trials_of(prepared.invocation)
        layout = prepared.invocation.cache_layout
        self._of = SummaryOf(
            stamp=stamp,
            options=tuple(option.number for option in self._what.options),
            trials=self._what.trials,
            ranks=layout.ranks,
            hosts=layout.hosts,
        )
        self.commands: list[dict[str, str]] = []
        self._failures: dict[str, str] = {}
        self._results: list[Result] = []

    def run(self, variables: Mapping[str, str]) -> Ended:
        """Run all trials to their end, or until one fails; return how that one, or the last, ended."""
        ended = Ended(0, told=True)
        for at, option in enumerate(self._what.options):
            if at and self._paused():
                return Ended(_SIGNALLED + 2, told=False, reason="stopped in the pause between two options")
            for trial in range(1, self._what.trials + 1):
                ended = self._one(option, trial, variables)
                if not ended.told or ended.exit_code not in COMPLETED:
                    return ended
        return ended

    def _paused(self) -> bool:
        """Wait between two options; return whether a signal came."""
        with SignalWatch() as watch:
            end_ns = clock.monotonic_ns() + round(self._what.pause_seconds * 1e9)
            while (left_ns := end_ns - clock.monotonic_ns()) > 0 and not watch.received:
                clock.sleep(min(left_ns / 1e9, _NAP_SECONDS))
            return bool(watch.received)

    def _one(self, option: CacheOption, trial: int, variables: Mapping[str, str]) -> Ended:
        place = f"option_{option.number}/trial_{trial}"
        folder = self._evidence / place
        folder.parent.mkdir(parents=True, exist_ok=True)
        arguments = self._arguments(option, place)
        name = f"kvcache_opt{option.number}_trial{trial}_{self._stamp}"
        ended = start_engine(
            self._engine,
            arguments,
            self._leaf,
            name,
            on_progress=self._on_progress,
            on_output=self._on_output,
            variables=variables,
        )
        command = self._engine.command(arguments, os.environ)
        logs = {stream: f"{name}.{stream}.log" for stream in ("stdout", "stderr")}
        self.commands.append({"command": command, **logs})
        self._take(folder, place, ended)
        self.summarise()
        return ended

    def _arguments(self, option: CacheOption, place: str) -> list[str]:
        invocation = self._prepared.invocation
        words = [
            "run",
            "kvcache",
            self._prepared.target.folder,
            *option.words,
            f"--run-folder={self._evidence / place}",
        ]
        log = invocation.value("io_trace_log")
        if log:
            stem, dot, ending = str(Path(log).absolute()).partition(".csv")
            words.append(f"--io-trace-log={stem}.{place.replace('/', '.')}{dot}{ending}")
        if self._engine.launch is None:
            words.append(f"--ranks={self._of.ranks}")
        interval, most = invocation.value("timeseries_interval"), invocation.value("max_timeseries_samples")
        if interval is not None:
            words.append(f"--host-interval={0 if invocation.value('skip_timeseries') else interval:g}")
        return [*words, *([f"--host-samples={most}"] if most is not None else [])]

    def _take(self, folder: Path, place: str, ended: Ended) -> None:
        """Keep what a trial measured, however it ended."""
        reason = "" if ended.told and ended.exit_code in COMPLETED else ended.reason or f"exit code {ended.exit_code}"
        with suppress(StokerError, OSError):  # killed before it had begun: there is nothing to tell
            result = load_or_recover(folder)
            self._results.append(result)
            write_rank_files(result, self._leaf / place, self._stamp)
            reason = result.reason if result.status != "complete" else reason
        if reason:
            self._failures[place] = reason

    def summarise(self) -> None:
        """Write the summary of all that has been run so far."""
        document = write_summary(self._leaf, self._of, self._failures)
        for number, found in document["options"].items():
            lone = found["cpu_tier_ranks"]
            if lone and len(lone) == found["rank_count"] and found["trial_count"]:
                self._warn(f"option {number} never used storage: its figures mean nothing")

    @property
    def reason(self) -> str:
        """Return why a trial failed, empty where none did."""
        return next(iter(self._failures.values()), "")

    def settle(self) -> None:
        """Leave, for the whole command, the series of all hosts and the result that decides: the first that is not
        complete, else the last."""
        if not self._results:
            return
        decisive = next((each for each in self._results if each.status != "complete"), self._results[-1])
        save_result(self._evidence, decisive)
        folders = sorted(self._evidence.glob("option_*/trial_*"), key=_numbers)
        with suppress(StokerError, OSError):  # without them the leaf tells of this host alone
            joined = join_hosts(folders)
            if joined is not None:
                save_hosts(self._evidence, *joined)


def _numbers(folder: Path) -> tuple[int, ...]:
    return tuple(int(part.rpartition("_")[2]) for part in folder.parts[-2:])


def join_hosts(folders: list[Path]) -> tuple[Header, list[HostSeries]] | None:
    """Return the series of hosts of several runs as one: the clock goes on from the first, and so do the columns."""
    loaded = [(found[0], list(found[1])) for folder in folders if (found := load_hosts(folder)) is not None]
    if not loaded:
        return None
    first, joined = loaded[0][0], dict[str, HostSeries]()
    for header, hosts in loaded:
        later_us = (clock.ns_of_utc(header.started_utc) - clock.ns_of_utc(first.started_utc)) // 1000
        for host in hosts:
            known = joined.get(host.host)
            joined[host.host] = host if known is None else _joined(known, host, later_us)
    return first, list(joined.values())


def _joined(before: HostSeries, after: HostSeries, later_us: int) -> HostSeries:
    columns = {}
    for name in dict.fromkeys((*before.columns, *after.columns)):
        values = _decoded(after, name)
        if name == "at_us":
            values = [None if value is None else value + later_us for value in values]
        columns[name] = encode_column([*_decoded(before, name), *values])
    return msgspec.structs.replace(
        before,
        samples=before.samples + after.samples,
        columns=columns,
        end=after.end or before.end,
        errors=[*before.errors, *after.errors],
    )


def _decoded(host: HostSeries, name: str) -> list[int | None]:
    if name not in host.columns:
        return [None] * host.samples
    return decode_column(host.columns[name], host.samples)
