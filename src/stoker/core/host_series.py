"""What was seen of the hosts during a run: one file of zstd-compressed JSON Lines, readable without our code.

    zstd -dc hosts.jsonl.zst | head -1      the header: schema, interval, when it began
    zstd -dc hosts.jsonl.zst | tail -n +2   a host a line: name, clock offset, two snapshots, columns

A column is a list of whole numbers, one a sample, coded as differences: the first entry is the first value, each
further one is added to the value before it; null is a sample without a value, and entries missing at the end are
zero. So `[5, 1, null, 2]` over five samples reads 5, 6, nothing, 8, 8. Column names:

    at_us              when: microseconds of the collector's monotonic clock since `origin_ns` of the header
    wall_ms            the host's own clock, milliseconds since 1970, not corrected by the offset
    cpu/FIELD          /proc/stat, ticks of 1/100 s          load/1min_hundredths   /proc/loadavg times 100
    mem/NAME           /proc/meminfo, kB                     vm/NAME                /proc/vmstat
    disk/NAME/FIELD    /proc/diskstats, its 17 counters      net/NAME/FIELD         /proc/net/dev, its 16 counters

`disks` and `interfaces` name every device with an empty text when it counts towards a host's sum, and otherwise the
reason why it does not: its bytes are those of another device of the list.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import zstandard

from stoker.core.errors import CorruptError
from stoker.core.files import write_atomic

HOSTS_SCHEMA: Final = "stoker-hosts/1"
HOSTS_FILE: Final = "hosts.jsonl.zst"
PARTIAL_FILES: Final = "hosts-*.partial.jsonl"
LINE_BYTES_MAX: Final = 1 << 28
SAMPLES_MAX: Final = 3600
COLUMNS_MAX: Final = 100_000
_LEVEL: Final = 9
_PIECE_BYTES: Final = 1 << 20

Values = list[int | None]


class Header(msgspec.Struct, frozen=True):
    """The first line. `origin_ns` is the collector's monotonic clock at `started_utc`; a host keeps `samples_max`."""

    interval_seconds: float
    started_utc: str
    origin_ns: int = 0
    schema: str = HOSTS_SCHEMA
    samples_max: int = SAMPLES_MAX


class ClockOffset(msgspec.Struct, frozen=True):
    """How far a host's wall clock is ahead of the collector's, and by how much that may be wrong.

    Of several probes the one with the shortest way there and back counts; half of that is the error.
    """

    seconds: float = 0.0
    error_seconds: float = 0.0
    probes: int = 0


class HostSeries(msgspec.Struct):
    """One host: `source` is local, mpi or ssh; `columns` are coded as the module tells; `errors` are sentences."""

    host: str
    source: str = "local"
    offset: ClockOffset | None = None
    samples: int = 0
    columns: dict[str, Values] = {}
    disks: dict[str, str] = {}
    interfaces: dict[str, str] = {}
    start: dict[str, Any] = {}
    end: dict[str, Any] = {}
    errors: list[str] = []

    def values(self, name: str) -> Values:
        """Return a column decoded, one entry a sample; all None for a column that is not there."""
        return decode_column(self.columns[name], self.samples) if name in self.columns else [None] * self.samples


def encode_column(values: Sequence[int | None]) -> Values:
    """Return the values as differences, without the zeros at the end."""
    before, coded = 0, []
    for value in values:
        coded.append(None if value is None else value - before)
        before = before if value is None else value
    while len(coded) > 1 and coded[-1] == 0:
        coded.pop()
    return coded


def decode_column(coded: Sequence[int | None], samples: int) -> Values:
    """Return the values of a coded column. Raises ValueError when it holds more than `samples` entries."""
    if len(coded) > samples:
        raise ValueError(f"a column of {len(coded)} entries for {samples} samples")
    value, values = 0, []
    for difference in coded:
        value += difference or 0
        values.append(None if difference is None else value)
    return values + [value] * (samples - len(coded))


def save_hosts(folder: Path, header: Header, hosts: Iterable[HostSeries]) -> Path:
    """Write the file into the run folder, whole or not at all, and return its path."""
    lines = b"".join(msgspec.json.encode(item) + b"\n" for item in (header, *hosts))
    path = folder / HOSTS_FILE
    write_atomic(path, zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(lines))
    return path


def load_hosts(path: Path) -> tuple[Header, Iterator[HostSeries]] | None:
    """Return the header and, a host at a time, what was seen; None when there is no file.

    Raises CorruptError for a file of another kind, a line of more than 256 MiB, and a host with too many samples.
    """
    file = path / HOSTS_FILE if path.is_dir() else path
    if not file.is_file():
        return None
    lines = _lines(file)
    try:
        header = msgspec.json.decode(next(lines), type=Header)
    except (StopIteration, msgspec.DecodeError) as error:
        raise CorruptError("not a series of hosts", where=str(file), expected=HOSTS_SCHEMA, got=str(error)) from error
    if header.schema != HOSTS_SCHEMA:
        raise CorruptError("series of hosts has another schema", where=str(file), expected=HOSTS_SCHEMA)
    return header, _hosts(lines, file)


def _hosts(lines: Iterator[bytes], file: Path) -> Iterator[HostSeries]:
    for line in lines:
        try:
            host = msgspec.json.decode(line, type=HostSeries)
        except msgspec.DecodeError as error:
            raise CorruptError("series of hosts has a bad line", where=str(file), got=str(error)) from error
        longest = max((len(column) for column in host.columns.values()), default=0)
        if not longest <= host.samples <= SAMPLES_MAX or len(host.columns) > COLUMNS_MAX:
            told = f"{host.samples} samples, {len(host.columns)} columns, the longest of {longest}"
            raise CorruptError("series of hosts is out of bounds", where=str(file), got=told)
        yield host


def _lines(file: Path) -> Iterator[bytes]:
    pending = b""
    try:
        with file.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as reader:
            while piece := reader.read(_PIECE_BYTES):
                *whole, pending = (pending + piece).split(b"\n")
                yield from whole
                if len(pending) > LINE_BYTES_MAX:
                    raise CorruptError("series of hosts has too long a line", where=str(file))
    except zstandard.ZstdError as error:
        raise CorruptError("not a series of hosts", where=str(file), expected="zstd", got=str(error)) from error
    if pending:
        raise CorruptError("series of hosts is cut short", where=str(file))
