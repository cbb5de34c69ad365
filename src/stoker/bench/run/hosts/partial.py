"""The series of hosts from the partial files that a killed run left."""

from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from stoker.bench.run.hosts.sampler import Gathered, PartialSample, PartialStart
from stoker.core.host_series import (
    HOSTS_FILE,
    LINE_BYTES_MAX,
    PARTIAL_FILES,
    Header,
    HostSeries,
    load_hosts,
    save_hosts,
)

CUT_SHORT: Final = "the run was killed: this series ends with the last sample that was written"
_PARTIAL_BYTES_MAX: Final = 1 << 30


def recover_hosts(folder: Path) -> list[HostSeries]:
    """Write the series of hosts that partial files in `folder` hold, unless it is there; return the hosts.

    A torn last line is dropped, a file that is not ours left out. Hosts are set to the time of the first by what their
    own clocks showed when they began.
    """
    if (folder / HOSTS_FILE).exists():
        found = load_hosts(folder)
        return list(found[1]) if found is not None else []
    read = [pair for path in sorted(folder.glob(PARTIAL_FILES)) if (pair := read_partial(path)) is not None]
    for header, series in read[1:]:
        _shift(series, _microseconds(header) - _microseconds(read[0][0]))
    hosts = [series for _, series in read]
    if hosts:
        save_hosts(folder, read[0][0], hosts)
    return hosts


def _microseconds(header: Header) -> int:
    return round(datetime.fromisoformat(header.started_utc).timestamp() * 1e6)


def _shift(series: HostSeries, by_us: int) -> None:
    if series.columns.get("at_us"):
        first = series.columns["at_us"][0]
        series.columns["at_us"][0] = (first or 0) + by_us


def read_partial(path: Path) -> tuple[Header, HostSeries] | None:
    """Return the host that a partial file tells of, None for one without a readable beginning or over 1 GiB."""
    if path.stat().st_size > _PARTIAL_BYTES_MAX:
        return None
    gathered: Gathered | None = None
    header = Header(0.0, "")
    sample: dict[str, int] = {}
    with path.open("rb") as file:
        for line in iter(lambda: file.readline(LINE_BYTES_MAX), b""):
            try:
                told = msgspec.json.decode(line, type=PartialStart | PartialSample)
            except msgspec.DecodeError:
                break
            if isinstance(told, PartialStart):
                header, gathered = told.header, Gathered(told.series, told.header)
            elif gathered is not None:
                sample |= told.changed
                for name in told.gone:
                    sample.pop(name, None)
                gathered.add(sample)
    if gathered is None:
        return None
    gathered.error(CUT_SHORT)
    return header, gathered.finish()


def remove_partials(folder: Path) -> None:
    """Remove the partial files: the whole file has what they held."""
    for path in folder.glob(PARTIAL_FILES):
        path.unlink(missing_ok=True)
