"""Sampling hosts over a real SSH server each: what is seen, what a broken host costs, and that nothing stays there."""

import importlib.util
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import Lab

from stoker.bench.run.hosts.collect import Collection, new_header
from stoker.bench.run.hosts.remote import SshSampler
from stoker.core.host_series import HostSeries, load_hosts

pytestmark = [
    pytest.mark.server,
    pytest.mark.skipif(
        importlib.util.find_spec("asyncssh") is None, reason="asyncssh is not installed; run: pip install 'stoker[ssh]'"
    ),
]


@pytest.fixture(autouse=True)
def nothing_is_left_there(lab: Lab) -> Iterator[None]:
    yield
    assert until(lambda: not any(lab.pids(name) for name in lab.names), 10), [lab.pids(name) for name in lab.names]


def until(condition, seconds: float = 20) -> bool:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not condition():
        time.sleep(0.05)
    return bool(condition())


def samples(sampler: SshSampler) -> list[int]:
    return [host._gathered.series.samples if host._gathered else 0 for host in sampler._hosts]


def test_hosts_are_seen_side_by_side(ssh_here: Lab, tmp_path: Path) -> None:
    collection = Collection(tmp_path, 0.2, ssh_here.names, here=True)
    remote = next(each for each in collection._samplers if isinstance(each, SshSampler))
    assert until(lambda: min(samples(remote)) >= 3)
    hosts = {host.host: host for host in collection.finish()}
    assert set(ssh_here.names) < hosts.keys() and len(hosts) == 4
    for name in ssh_here.names:
        host = hosts[name]
        assert (host.source, host.errors) == ("ssh", [])
        assert host.samples >= 4 and host.start["address"] == name
        assert host.start["cpuinfo"]["logical_cpus"] > 0 and host.end["meminfo"]["MemTotal"] > 0
        assert host.start["architecture"] and host.start["os_release"]
        assert host.interfaces == {"lo": "never leaves the host", "eth0": ""}
        received = host.values("net/eth0/rx_bytes")
        assert received == sorted(received) and received[-1] > received[0]
        assert host.offset is not None and host.offset.probes == 8
        assert abs(host.offset.seconds) <= host.offset.error_seconds  # they share this machine's clock
    found = load_hosts(tmp_path)
    assert found is not None and {host.host for host in found[1]} == hosts.keys()


def test_a_host_that_is_cut_off_costs_only_its_own_samples_and_comes_back(ssh_here: Lab) -> None:
    sampler = SshSampler(ssh_here.names, new_header(0.4))
    sampler.start()
    try:
        assert until(lambda: min(samples(sampler)) >= 2)
        ssh_here.cut(ssh_here.names[1])
        before = samples(sampler)
        assert until(lambda: bool(sampler._hosts[1]._errors))
        assert until(lambda: samples(sampler)[0] >= before[0] + 4)
        assert samples(sampler)[1] <= before[1] + 1
        ssh_here.mend(ssh_here.names[1])
        back = samples(sampler)[1]
        assert until(lambda: samples(sampler)[1] >= back + 2)
    finally:
        ssh_here.mend(ssh_here.names[1])
        hosts = sampler.stop()
    assert [bool(host.errors) for host in hosts] == [False, True, False]
    assert f"{ssh_here.names[1]}: " in hosts[1].errors[0]


@pytest.mark.slow
def test_a_host_that_nobody_answers_for_is_listed_with_the_reason(ssh_here: Lab, tmp_path: Path) -> None:
    unused = ssh_here.own.rpartition(".")[0] + ".99"
    sampler = SshSampler([ssh_here.names[0], unused], new_header(0.2), partial_folder=tmp_path)
    sampler.start()
    assert until(lambda: samples(sampler)[0] >= 2)
    hosts = sampler.stop()
    assert hosts[0].errors == []
    assert (hosts[1].host, hosts[1].samples) == (unused, 0)
    assert hosts[1].errors and unused in hosts[1].errors[0]


def test_a_key_that_changed_is_refused_and_one_that_is_new_is_kept(
    ssh_here: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tmp_path / "known_hosts"
    monkeypatch.setenv("STOKER_SSH_KNOWN_HOSTS", str(known))
    config = tmp_path / "config"
    text = Path(ssh_here.environment()["STOKER_SSH_CONFIG"]).read_text()
    config.write_text(text.replace(f"{ssh_here.folder}/known_hosts", str(known)))
    monkeypatch.setenv("STOKER_SSH_CONFIG", str(config))
    assert collect(ssh_here.names[0]).errors == []
    assert known.read_text().count("ssh-ed25519") == 1
    assert collect(ssh_here.names[0]).errors == []  # known by now
    other = (ssh_here.folder / "other_key.pub").read_text().split()[:2]
    known.write_text(f"{ssh_here.address[ssh_here.names[0]]},{ssh_here.names[0]} {' '.join(other)}\n")
    errors = collect(ssh_here.names[0]).errors
    assert errors and "ssh-keygen -R" in errors[0]
    assert len(known.read_text().splitlines()) == 1


def test_a_key_that_is_not_let_in_says_what_to_do(
    ssh_here: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "config"
    text = Path(ssh_here.environment()["STOKER_SSH_CONFIG"]).read_text()
    shutil.copy(ssh_here.folder / "other_key", tmp_path / "key")
    config.write_text(text.replace(f"{ssh_here.folder}/user_key", str(tmp_path / "key")))
    monkeypatch.setenv("STOKER_SSH_CONFIG", str(config))
    errors = collect(ssh_here.names[0]).errors
    assert errors and f"ssh-copy-id {ssh_here.names[0]}" in errors[0]


def collect(name: str) -> HostSeries:
    """Sample one host once."""
    sampler = SshSampler([name], new_header(0.2))
    sampler.start()
    until(lambda: samples(sampler)[0] >= 1 or bool(sampler._hosts[0]._errors))
    (host,) = sampler.stop()
    return host
