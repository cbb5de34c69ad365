"""The collection of one run: this host by its files, others over SSH, what MPI ranks gathered; one file at the end.

Nothing that goes wrong here fails the run: it stands, a sentence each, in the series of the host it happened to.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from stoker.bench.run.hosts.partial import remove_partials
from stoker.bench.run.hosts.sampler import LocalSampler
from stoker.bench.run.hosts.sources import local_name
from stoker.core import clock
from stoker.core.host_series import SAMPLES_MAX, Header, HostSeries, save_hosts


class Sampler(Protocol):
    """What samples one or more hosts between `start` and `stop`."""

    def start(self) -> None:
        """Begin; the first sample is taken at once."""

    def stop(self) -> list[HostSeries]:
        """End and return the hosts, those that failed too."""


def new_header(interval_seconds: float, samples_max: int = SAMPLES_MAX) -> Header:
    """Return a header that begins now."""
    return Header(interval_seconds, clock.utc_text(), clock.monotonic_ns(), samples_max=samples_max)


class Collection:
    """Samples the hosts of a run that `plan` names, from its making until `finish`."""

    def __init__(
        self,
        folder: Path,
        interval_seconds: float,
        others: Iterable[str] = (),
        *,
        here: bool = True,
        samples_max: int = SAMPLES_MAX,
    ) -> None:
        self._folder, self._samplers = folder, list[Sampler]()
        self._failed: list[HostSeries] = []
        self.header = new_header(interval_seconds, samples_max)
        if interval_seconds > 0:
            self._begin(list(others), here=here)

    def _begin(self, others: list[str], *, here: bool) -> None:
        if here:
            self._start(local_name(), lambda: _Here(LocalSampler(self.header, partial_folder=self._folder)))
        if others:
            from stoker.bench.run.hosts.remote import SshSampler

            self._start(", ".join(others), lambda: SshSampler(others, self.header, partial_folder=self._folder))

    def _start(self, name: str, make: "Maker") -> None:
        try:
            sampler = make()
            sampler.start()
            self._samplers.append(sampler)
        except Exception as error:
            self._failed.append(HostSeries(name, errors=[f"sampling could not begin: {error}"]))

    def finish(self, gathered: Iterable[HostSeries] = ()) -> list[HostSeries]:
        """Stop sampling, save what was seen of all hosts, with those that others `gathered`, and return it."""
        hosts = [*self.stop(), *gathered]
        _name_apart(hosts)
        if hosts:
            try:
                save_hosts(self._folder, self.header, hosts)
                remove_partials(self._folder)
            except OSError as error:
                hosts[0].errors.append(f"the series could not be saved: {error.strerror}")
        return hosts

    def stop(self) -> list[HostSeries]:
        """Stop sampling and return what was seen; stopping twice is harmless."""
        hosts, self._failed = self._failed, []
        for sampler in self._samplers:
            try:
                hosts += sampler.stop()
            except Exception as error:
                hosts.append(HostSeries("", errors=[f"sampling ended badly: {error}"]))
        self._samplers.clear()
        return hosts


class Maker(Protocol):
    """Makes a sampler."""

    def __call__(self) -> Sampler: ...


class _Here:
    """This host as one of many."""

    def __init__(self, sampler: LocalSampler) -> None:
        self._sampler = sampler

    def start(self) -> None:
        self._sampler.start()

    def stop(self) -> list[HostSeries]:
        return [self._sampler.stop()]


def _name_apart(hosts: Iterable[HostSeries]) -> None:
    """Give hosts of one name names of their own: a series is found by the name alone."""
    seen: dict[str, int] = {}
    for host in hosts:
        seen[host.host] = number = seen.get(host.host, 0) + 1
        if number > 1:
            host.errors.append(f"{number} hosts are called {host.host}")
            host.host = f"{host.host}#{number}"
