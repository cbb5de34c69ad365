"""Hosts are tried before ranks are started there: what failed is one error, what is doubtful comes back as warnings."""

from collections.abc import Callable, Sequence

from stoker.bench.run.hosts.judging import failed
from stoker.bench.run.hosts.names import Host
from stoker.bench.run.hosts.preflight import Check, examine_hosts
from stoker.bench.run.hosts.start import Launch
from stoker.core.errors import PreflightError


def require_hosts(
    hosts: Sequence[Host],
    target: str,
    needed_bytes: int = 0,
    on_warning: Callable[[str], None] = lambda _: None,
    *,
    launch: Launch | None = None,
) -> tuple[list[Check], list[str]]:
    """Try everything on the hosts and, with `launch`, the launcher; return the checks and the warnings, each told as
    it is found.

    Raises PreflightError with all that failed.
    """
    checks = examine_hosts(hosts, target, needed_bytes=needed_bytes, launch=launch)
    warnings = [
        f"{check.name}: {check.observed}" + (f"; {check.remedy}" if check.remedy else "")
        for check in checks
        if check.status == "warn"
    ]
    for warning in warnings:
        on_warning(warning)
    bad = failed(checks)
    if bad:
        told = "; ".join(f"{check.name}: {check.observed}" for check in bad)
        remedies = "; ".join(dict.fromkeys(check.remedy for check in bad if check.remedy))
        raise PreflightError(
            f"{len(bad)} of {len(checks)} checks failed, so no rank was started", got=told, remedy=remedies
        )
    return checks, warnings
