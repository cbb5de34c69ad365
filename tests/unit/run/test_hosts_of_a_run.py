"""A run of local ranks records its host, whatever way it ends."""

import signal
from pathlib import Path

from conducted import JOB, Conductor, plan

from stoker.bench.run.conduct import conduct
from stoker.bench.run.hosts.sources import local_name
from stoker.bench.run.recover import load_or_recover
from stoker.core.host_series import HOSTS_FILE, load_hosts
from stoker.core.result import load_result


def test_a_run_keeps_the_series_of_its_host(dataset: str, tmp_path: Path) -> None:
    result = conduct(JOB, plan(epochs=2, host_interval_seconds=0.1), dataset, tmp_path)
    (host,) = result.hosts
    assert (host.host, host.source, host.ranks, host.errors) == (local_name(), "local", 2, ())
    assert host.samples >= 2 and host.logical_cpus > 0 and host.memory_bytes > 0
    assert load_result(tmp_path).hosts == [host]
    found = load_hosts(tmp_path)
    assert found is not None
    (series,) = found[1]
    assert series.samples == host.samples and series.end["uptime_seconds"] >= series.start["uptime_seconds"]
    assert not list(tmp_path.glob("*.partial.jsonl"))


def test_a_run_asked_for_no_series_has_none(dataset: str, tmp_path: Path) -> None:
    result = conduct(JOB, plan(epochs=1, host_interval_seconds=0.0), dataset, tmp_path)
    assert result.hosts == []
    assert not (tmp_path / HOSTS_FILE).exists()


def test_a_killed_run_keeps_the_samples_that_were_taken(dataset: str, tmp_path: Path) -> None:
    conductor = Conductor(plan(epochs=1_000_000, host_interval_seconds=0.05), dataset, tmp_path)
    conductor.wait_for_steps()
    conductor.signal(signal.SIGKILL)
    conductor.end()
    result = load_or_recover(tmp_path)
    (host,) = result.hosts
    assert host.samples >= 1 and host.ranks == 2
    assert "the run was killed" in host.errors[0]
