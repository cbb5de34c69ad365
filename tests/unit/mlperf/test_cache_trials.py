"""The words of each trial, and the whole closed series in small: its shape is that of the rules."""

import os
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stoker.bench.rules.mlperf import judge_tree, read_tree
from stoker.bench.rules.mlperf.tables import models
from stoker.bench.run.mlperf import caching
from stoker.bench.run.mlperf.cache_layout import CacheLayout, cache_layout
from stoker.bench.run.mlperf.caching import join_hosts, trials_of
from stoker.bench.run.mlperf.conducting import Watch, conduct_run
from stoker.bench.run.mlperf.prepare import prepare
from stoker.bench.run.mlperf.resolving import Invocation, Place, resolve_invocation
from stoker.bench.run.mlperf.results_dir import initialise
from stoker.core.errors import UsageError
from stoker.core.host_series import Header, HostSeries, encode_column, save_hosts


def invocation(division: str, folder: Path, **flags: Any) -> Invocation:
    told = {"cache_dir": str(folder / "cache"), "results_dir": str(folder / "results"), "systemname": "sysA", **flags}
    return resolve_invocation(Place(division, "kvcache", "", "run"), told, {})


def test_closed_runs_three_fixed_options(tmp_path: Path) -> None:
    what = trials_of(invocation("closed", tmp_path))
    assert (what.trials, what.pause_seconds, [option.number for option in what.options]) == (3, 90, [1, 2, 3])
    words = [" ".join(option.words) for option in what.options]
    assert words[1] == (
        "--model llama3.1-8b --num-users 100 --duration 300 --gpu-mem-gb 0 --cpu-mem-gb 4 --max-concurrent-allocs 16 "
        "--generation-mode none --seed 42"
    )
    assert "--model llama3.1-70b-instruct --num-users 70" in words[2] and "--max-concurrent-allocs 4 " in words[2]


def test_open_runs_what_was_asked_and_passes_on_what_has_an_effect(tmp_path: Path) -> None:
    flags = {"enable_rag": True, "num_users": "9", "cpu_mem_gb": "0.5", "seed": "7", "trials": "2"}
    what = trials_of(invocation("open", tmp_path, **flags))
    (option,) = what.options
    assert what.trials == 2
    assert option.words[:10] == (
        *("--model", "tiny-1b", "--num-users", "9", "--duration", "60"),
        *("--gpu-mem-gb", "16", "--cpu-mem-gb", "0.5"),
    )
    assert option.words[-7:] == (
        *("--enable-rag", "--performance-profile", "latency", "--rag-num-docs", "10"),
        *("--seed", "7"),
    )


@pytest.mark.parametrize(
    ("told", "wanted"),
    [
        ((3, None, None), CacheLayout(3, 3, 1)),
        ((3, None, 2), CacheLayout(6, 3, 2)),
        ((3, 6, None), CacheLayout(6, 3, 2)),
        ((3, 6, 2), CacheLayout(6, 3, 2)),
        ((3, 7, None), "a multiple of 3 hosts"),
        ((3, 6, 3), "disagree"),
    ],
)
def test_clients_spread_evenly_over_hosts(told: tuple[int, int | None, int | None], wanted: CacheLayout | str) -> None:
    if isinstance(wanted, str):
        with pytest.raises(UsageError, match=wanted):
            cache_layout(*told)
    else:
        assert cache_layout(*told) == wanted


def test_series_of_hosts_go_on_from_trial_to_trial(tmp_path: Path) -> None:
    folders = []
    for number, (second, hosts) in enumerate(((0, ("a", "b")), (30, ("a",)))):
        folder = tmp_path / f"trial_{number}"
        folder.mkdir()
        columns = {"at_us": encode_column([0, 10_000_000]), "cpu/user": encode_column([5 + number, 9 + number])}
        series = [
            HostSeries(host, samples=2, columns=columns, start={"n": number}, end={"n": number}) for host in hosts
        ]
        save_hosts(folder, Header(10.0, f"2026-03-02T09:00:{second:02}.000000Z"), series)
        folders.append(folder)
    found = join_hosts(folders)
    assert found is not None
    first, second_host = found[1]
    assert first.values("at_us") == [0, 10_000_000, 30_000_000, 40_000_000]
    assert first.values("cpu/user") == [5, 9, 6, 10]
    assert (first.samples, first.start, first.end, second_host.samples) == (4, {"n": 0}, {"n": 1}, 2)
    assert join_hosts([tmp_path]) is None


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_closed_series_in_small_breaks_only_what_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = models()
    small = {
        number: msgspec.structs.replace(option, model="tiny-1b", users=1, duration_seconds=1, cpu_memory_gb=0)
        for number, option in real.kv_cache.options.items()
    }
    table = msgspec.structs.replace(real.kv_cache, options=small, delay_seconds=0)
    monkeypatch.setattr(caching, "models", lambda: msgspec.structs.replace(real, kv_cache=table))
    monkeypatch.setattr(os, "environ", {**os.environ, "HOME": str(tmp_path)})
    initialise(tmp_path / "results", "acme")
    stages: list[str] = []
    prepared = prepare(invocation("closed", tmp_path, skip_fs_separation_gate=True))
    outcome = conduct_run(prepared, ["mlperf"], Watch(on_stage=lambda _, name: stages.append(name)))
    assert (outcome.exit_code, outcome.reason, stages) == (0, "", ["validate", "collect", "run", "finish"])
    assert outcome.leaf.parent.parent.name == "llama3.1-8b"
    assert len(list(outcome.leaf.glob("option_*/trial_*/rank_0/*.json"))) == 9
    judgement = judge_tree(read_tree(outcome.leaf, edition="3.0", division="closed"))
    assert {each.rule for each in judgement.findings if each.severity == "blocks"} == {"6.3.1.1", "CAP-03"}
