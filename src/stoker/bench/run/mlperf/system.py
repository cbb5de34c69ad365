"""The description of the system under test: drafted after its first run, and held against every later one (E404).

All hosts are held against it before a run, since hours are lost otherwise: other hosts are asked over SSH, and their
ranks' environment is compared once it came with the run.
"""

from collections.abc import Callable
from pathlib import Path

from stoker.bench.report.submission import HostHardware, describe_system, drift, hosts_of_run
from stoker.bench.report.submission.hardware import host_hardware
from stoker.bench.run.hosts.inventory import inventory
from stoker.bench.run.mlperf.exits import ConfigurationError
from stoker.bench.run.mlperf.prepare import Prepared
from stoker.core.errors import CorruptError, NotFoundError


def description_path(prepared: Prepared) -> Path:
    """Return where the system's description lies."""
    home = prepared.home
    return home.root / prepared.invocation.place.division / home.org / "systems" / f"{prepared.system}.yaml"


def this_host() -> HostHardware:
    """Return this host's hardware as it is now."""
    return host_hardware(inventory()[0])


def require_described(prepared: Prepared, on_warning: Callable[[str], None]) -> None:
    """Before a run: raise ConfigurationError when its hosts are not the described ones (E404), or when the description
    cannot be read (E104). Hosts that do not answer are left to the checks of hosts, and nothing is compared."""
    if not description_path(prepared).is_file():
        return
    if prepared.invocation.here_only:
        _hold(prepared, [this_host()], on_warning)
        return
    series = inventory([host.name for host in prepared.invocation.hosts])
    silent = [each.host for each in series if not each.start]
    if silent:
        on_warning(f"hosts are not held against the system's description: {', '.join(silent)} told nothing")
        return
    _hold(prepared, [host_hardware(each) for each in series], on_warning, environment=False)


def describe_after(prepared: Prepared, run_folder: Path, on_warning: Callable[[str], None]) -> None:
    """After a run: draft the description where there is none, else hold the hosts of the run against it.

    Raises ConfigurationError as `require_described` does. A run without facts of its hosts describes nothing.
    """
    try:
        hosts = hosts_of_run(run_folder)
    except NotFoundError as error:
        on_warning(f"the system was not described: {error.what}")
        return
    path = description_path(prepared)
    if describe_system(path, hosts, api=prepared.invocation.place.access):
        on_warning(f"the system's description was drafted: fill in its blanks in {path}")
    elif not prepared.invocation.here_only:
        _hold(prepared, hosts, on_warning)


def _hold(
    prepared: Prepared, hosts: list[HostHardware], on_warning: Callable[[str], None], *, environment: bool = True
) -> None:
    path = description_path(prepared)
    try:
        found = drift(path, hosts, environment=environment)
    except CorruptError as error:
        raise ConfigurationError(
            "E104: the system's description cannot be read", where=str(path), got=str(error), remedy="mend it by hand"
        ) from error
    for told in found.soft:
        on_warning(f"the system's description: {told}")
    drifted = found.error(path)
    if drifted is not None:
        facts = {name: getattr(drifted, name) for name in ("where", "expected", "got", "remedy")}
        raise ConfigurationError(drifted.what, **facts)
