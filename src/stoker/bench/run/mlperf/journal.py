"""What was run in a results directory: `.mlps/history`, the command lines, and `.mlps/runs.jsonl`, what became of them.

Both are JSON Lines, appended under one lock and synced before a run begins. A writer killed at any instant leaves at
most a torn line, which readers pass over and the next writer closes. A run without an end whose process is gone is
incomplete; of a process on another host nothing is known, and that is what is told.

Ids are whole numbers, given once. Secrets are left out of the words; such a line cannot be replayed, and says so.
"""

import errno
import fcntl
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from stoker.bench.run.mlperf.results_dir import DIVISIONS, HIDDEN, ResultsDir
from stoker.core import clock
from stoker.core.errors import StokerError, UsageError
from stoker.core.files import REDACTED, is_secret_name, redact_arguments, sync_folder
from stoker.core.processes import start_ticks

RUNS_FILE: Final = "runs.jsonl"
HISTORY_FILE: Final = "history"
COMPLETE: Final = "complete"
FAILED: Final = "failed"
INCOMPLETE: Final = "incomplete"
RUNNING: Final = "running"
UNKNOWN: Final = "unknown"
LINE_BYTES_MAX: Final = 1 << 20
_LOCK_FILE: Final = "lock"
_WINDOW_BYTES: Final = 64 << 10
_ID: Final = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
# Who removes a leaf trusts that it is one: a division, an organisation, `results`, a system, and two names at least.
_LEAF: Final = re.compile(
    rf"(?!.*/\.\.?(?:/|$))(?:{'|'.join(DIVISIONS)})/[\w.-]+/results/[\w.-]+(?:/[\w.-]+){{2,9}}", re.ASCII
)
_BOOT_FILE: Final = Path("/proc/sys/kernel/random/boot_id")

T = TypeVar("T")


class Process(msgspec.Struct, frozen=True, gc=False):
    """A process that can be recognised: host, boot, PID namespace, pid, and its start in clock ticks since boot."""

    host: str = ""
    boot: str = ""
    space: str = ""
    pid: int = 0
    ticks: int = 0

    @classmethod
    def mine(cls) -> "Process":
        """Return this process."""
        return cls(os.uname().nodename, _boot(), _space(), os.getpid(), start_ticks(os.getpid()))

    def alive(self) -> bool | None:
        """Tell whether it still runs; None when that cannot be told from here."""
        if self.host != os.uname().nodename or not self.pid:
            return None
        if self.boot != _boot():
            return False  # the host was started anew since
        return start_ticks(self.pid) == self.ticks if self.space == _space() else None


class HistoryLine(msgspec.Struct, frozen=True, gc=False):
    """A command line: its words behind the program's name, without secrets, when (UTC) and in which folder.

    `exact` is false where bytes that are no text had to be written otherwise.
    """

    id: str
    at: str
    cwd: str
    words: tuple[str, ...]
    exact: bool = True


class RunLine(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A line of runs.jsonl. `event` is begin, end or removed; the rest is what that event tells.

    `leaf` is relative to the results directory; `seconds` is how long the run took.
    """

    event: str
    id: str = ""
    at: str = ""
    division: str = ""
    family: str = ""
    model: str = ""
    command: str = ""
    system: str = ""
    leaf: str = ""
    process: Process = Process()
    exit_code: int | None = None
    seconds: float | None = None
    status: str = ""


class JournalRun(msgspec.Struct, gc=False):
    """A run as the journal knows it. `status` is complete, failed, or empty while no end was written."""

    begun: RunLine
    exit_code: int | None = None
    seconds: float | None = None
    ended_at: str = ""
    status: str = ""
    removed: bool = False

    def state(self) -> str:
        """Return complete, failed, incomplete (no end, and the process is gone), running, or unknown (elsewhere)."""
        if self.status:
            return self.status
        return {True: RUNNING, False: INCOMPLETE, None: UNKNOWN}[self.begun.process.alive()]


# -- writing ---------------------------------------------------------------------------------------------------------


def begin(  # noqa: PLR0913 - what runs, and where its leaf is
    results: ResultsDir,
    words: Sequence[str],
    *,
    division: str,
    family: str,
    model: str,
    command: str,
    system: str,
    leaf: Path,
) -> str:
    """Note durably that a run begins in this process, and the words of its command line; return the run's id.

    `words` stand behind the program's name: `mlperf closed training …`. Raises StokerError when it cannot be written.
    """
    line = RunLine(
        "begin",
        at=clock.utc_text(),
        division=division,
        family=family,
        model=model,
        command=command,
        system=system,
        leaf=_relative(results, leaf),
        process=Process.mine(),
    )
    with _locked(results):
        run = _note_words(results, words)
        _append(results.hidden / RUNS_FILE, msgspec.structs.replace(line, id=run))
    return run


def remember(results: ResultsDir, words: Sequence[str]) -> str:
    """Note a command line that begins no run; return its id."""
    with _locked(results):
        return _note_words(results, words)


def end(results: ResultsDir, run: str, *, exit_code: int, seconds: float, status: str = "") -> None:
    """Note durably how a run ended; `status` is complete or failed, told by the exit code when not given."""
    told = status or (COMPLETE if exit_code == 0 else FAILED)
    if told not in (COMPLETE, FAILED):
        raise UsageError("not how a run ends", where=told, expected=f"{COMPLETE} or {FAILED}")
    line = RunLine("end", id=run, at=clock.utc_text(), exit_code=exit_code, seconds=round(seconds, 3), status=told)
    with _locked(results):
        _append(results.hidden / RUNS_FILE, line)


def note_removed(results: ResultsDir, runs: Sequence[str]) -> None:
    """Note durably that runs were taken out of the tree."""
    with _locked(results):
        for run in runs:
            _append(results.hidden / RUNS_FILE, RunLine("removed", id=run, at=clock.utc_text()))


def _note_words(results: ResultsDir, words: Sequence[str]) -> str:
    run = str(1 + max(_last_id(results.hidden / name) for name in (HISTORY_FILE, RUNS_FILE)))
    if not _ID.fullmatch(run):
        raise StokerError("no id is left for another run", where=str(results.hidden / HISTORY_FILE))
    kept, folder = without_secrets(words), str(Path.cwd())
    told = tuple(_text(word) for word in kept)
    exact = list(told) == kept and folder == _text(folder)
    _append(results.hidden / HISTORY_FILE, HistoryLine(run, clock.utc_text(), _text(folder), told, exact))
    return run


def _text(raw: str) -> str:
    """Return the text with bytes that are not UTF-8 made visible: JSON cannot hold them."""
    return raw.encode("utf-8", "backslashreplace").decode()


def _relative(results: ResultsDir, leaf: Path) -> str:
    try:
        return leaf.relative_to(results.root).as_posix()
    except ValueError as error:
        raise UsageError("a leaf outside of the results directory", where=str(leaf)) from error


@contextmanager
def _locked(results: ResultsDir) -> Iterator[None]:
    """Hold the right to append, and keep others from it; the kernel takes it from who dies."""
    try:
        results.hidden.mkdir(exist_ok=True)
        if results.hidden.is_symlink():
            raise OSError(errno.ELOOP, "the folder is a link")
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(results.hidden / _LOCK_FILE, flags, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
    except OSError as error:
        raise StokerError(
            "the journal of runs cannot be written",
            where=str(results.hidden),
            got=error.strerror or "",
            remedy="the results directory has to be writable, on a file system with locks",
        ) from error


def _append(file: Path, line: msgspec.Struct) -> None:
    """Append one line in one write and sync it; a torn line before it is closed first."""
    data = msgspec.json.encode(line) + b"\n"
    if len(data) > LINE_BYTES_MAX:
        raise UsageError("command line is too long for the journal", expected=f"at most {LINE_BYTES_MAX:,} bytes")
    fresh = not file.exists()
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            data = b"\n" + data
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    if fresh:
        sync_folder(file.parent)


def _last_id(file: Path) -> int:
    """Return the largest id in a file, 0 when there is none: ids grow, so the last one that is found from the end."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return 0
    with os.fdopen(descriptor, "rb") as opened:
        end, kept = opened.seek(0, os.SEEK_END), b""
        while end > 0:
            start = max(0, end - _WINDOW_BYTES)
            opened.seek(start)
            data = opened.read(end - start) + kept
            end = start
            first = data.find(b"\n") + 1 if start else 0  # what stands before it began in the window before
            if start and not first:
                kept = data if len(data) <= LINE_BYTES_MAX else b""
                continue
            found = max(map(_begun_id, data[first:].split(b"\n")))
            if found:
                return found
            kept = data[:first]
    return 0


class _AnyLine(msgspec.Struct):
    id: str = ""
    event: str = "begin"


def _begun_id(line: bytes) -> int:
    found = _decoded(line, _LAST_DECODER)
    return int(found.id) if found is not None and found.event == "begin" and _ID.fullmatch(found.id) else 0


# -- secrets ---------------------------------------------------------------------------------------------------------


def without_secrets(words: Sequence[str]) -> list[str]:
    """Return the words with what may be a secret left out: in URLs, behind `name=` and behind `--name`."""
    found = redact_arguments(list(words))
    for at, word in enumerate(words[:-1]):
        name = word.replace("-", "_") if word.startswith("--") and "=" not in word else ""
        if is_secret_name(name) and not words[at + 1].startswith("--"):
            found[at + 1] = REDACTED
    return found


def replayable(line: HistoryLine) -> tuple[str, ...]:
    """Return the words of a line for replay. Raises UsageError when secrets were left out of them."""
    if not line.exact:
        raise UsageError("the command line cannot be replayed: it held bytes that are no text", where=line.id)
    hidden = [word for word in line.words if REDACTED in word]
    if hidden:
        raise UsageError(
            "the command line cannot be replayed: it held a secret, which is not kept",
            where=hidden[0],
            remedy="give secrets by the environment (AWS_SECRET_ACCESS_KEY …) and type the command anew",
        )
    return line.words


# -- reading ---------------------------------------------------------------------------------------------------------


def read_history(root: Path) -> list[HistoryLine]:
    """Return the command lines in order; lines that are none are passed over."""
    return [line for line in _lines(root / HIDDEN / HISTORY_FILE, _HISTORY_DECODER) if _ID.fullmatch(line.id)]


def read_runs(root: Path) -> dict[str, JournalRun]:
    """Return the runs by their ids, in order; lines that are none, or name a leaf outside, are passed over."""
    runs: dict[str, JournalRun] = {}
    for line in _lines(root / HIDDEN / RUNS_FILE, _RUN_DECODER):
        if line.event == "begin":
            if _ID.fullmatch(line.id) and line.id not in runs and _LEAF.fullmatch(line.leaf):
                runs[line.id] = JournalRun(_interned(line))
            continue
        run = runs.get(line.id)
        if run is None:
            continue
        if line.event == "end" and line.status in (COMPLETE, FAILED):
            run.exit_code, run.seconds, run.ended_at = line.exit_code, line.seconds, line.at
            run.status = sys.intern(line.status)
        run.removed = run.removed or line.event == "removed"
    return runs


def _interned(line: RunLine) -> RunLine:
    """Return the line with what repeats from run to run held once: journals grow long."""
    for name in ("division", "family", "model", "command", "system"):
        msgspec.structs.force_setattr(line, name, sys.intern(getattr(line, name)))
    return line


_HISTORY_DECODER: Final = msgspec.json.Decoder(HistoryLine)
_RUN_DECODER: Final = msgspec.json.Decoder(RunLine)
_LAST_DECODER: Final = msgspec.json.Decoder(_AnyLine)


def _lines(file: Path, decoder: "msgspec.json.Decoder[T]") -> Iterator[T]:
    """Give the lines of a file that are of the kind; a torn or foreign line is passed over. No file, no lines."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return
    with os.fdopen(descriptor, "rb") as opened:
        while line := opened.readline(LINE_BYTES_MAX):
            found = _decoded(line, decoder)
            if found is not None:
                yield found


def _decoded(line: bytes, decoder: "msgspec.json.Decoder[T]") -> T | None:
    try:
        return decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


@cache
def _boot() -> str:
    try:
        return _BOOT_FILE.read_text().strip()
    except OSError:
        return ""


@cache
def _space() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""
