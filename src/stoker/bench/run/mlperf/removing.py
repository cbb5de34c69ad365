"""Taking runs and code images out of a results directory: into a batch of `.mlps/trash`, which `purge` empties.

Folders are walked by descriptors that follow no link, so nothing outside of the directory is ever moved or removed,
whoever else may write into it. A batch begins with the list of what goes into it, so that one that was cut short can
be read, too.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from typing import Final

import msgspec

from stoker.bench.rules.mlperf.layout import TIME, read_tree
from stoker.bench.rules.mlperf.provenance_checks import POINTER, image_named, unused_images
from stoker.bench.run.mlperf.exits import ConfigurationError
from stoker.bench.run.mlperf.journal import RUNNING, UNKNOWN, note_removed
from stoker.bench.run.mlperf.results_dir import HIDDEN, ResultsDir, stamp_now
from stoker.bench.run.mlperf.runs import RunEntry, list_runs
from stoker.core.clock import wall_seconds
from stoker.core.errors import NotFoundError, StokerError, UsageError
from stoker.core.files import check_key

TRASH: Final = "trash"
BATCH_FILE: Final = "batch.json"
POOL: Final = "code-images"
_UNITS: Final = {"h": "hours", "d": "days", "w": "weeks"}
_FOLDER_FLAGS: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BLIND: Final = ("FILE-02", "FILE-03")
_BATCHES_MAX: Final = 10_000


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """What was moved into the trash at once: where it lies, and where it lay (both relative to the directory)."""

    path: str
    at: str
    moved: tuple[str, ...]


class TrashSize(msgspec.Struct, frozen=True):
    """What the trash holds: batches, files and bytes."""

    batches: int
    files: int
    bytes: int


# -- which runs ------------------------------------------------------------------------------------------------------


def older_than(text: str) -> str:
    """Return the local time (ISO 8601) that `12h`, `7d`, `2w` or a date tells. Raises UsageError for other text."""
    amount, unit = text[:-1], text[-1:]
    try:
        if unit in _UNITS and amount.isascii() and amount.isdecimal():
            now = datetime.fromtimestamp(wall_seconds())
            moment = now - timedelta(**{_UNITS[unit]: int(amount)})
        else:
            moment = datetime.fromisoformat(text).replace(tzinfo=None)
    except (ValueError, OverflowError) as error:
        raise UsageError("not an age", where=text, expected="12h, 7d, 2w, or a date such as 2026-03-02") from error
    return moment.replace(microsecond=0).isoformat()


def selected(
    entries: Sequence[RunEntry], *, status: str = "", before: str = "", keep_last: int | None = None
) -> list[RunEntry]:
    """Return the runs that all told conditions name; never one that runs, or may run on another host.

    `before` is a local time in ISO 8601. `keep_last` spares the newest of each series: of one division, system,
    workload, model and command.
    """
    spared: set[str] = set()
    if keep_last is not None:
        newest: dict[tuple[str, ...], list[RunEntry]] = {}
        for each in entries:
            newest.setdefault(each.series, []).append(each)
        spared = {each.name for series in newest.values() for each in series[max(0, len(series) - keep_last) :]}
    return [
        each
        for each in entries
        if each.status not in (RUNNING, UNKNOWN)
        and (not status or each.status == status)
        and (not before or (bool(each.started) and each.started < before))
        and each.name not in spared
    ]


# -- into the trash --------------------------------------------------------------------------------------------------


def remove_runs(results: ResultsDir, runs: Sequence[RunEntry]) -> Batch:
    """Move the leaves of runs, and the evidence behind them, into a new batch of the trash; note it in the journal.

    Raises UsageError for a run that is going on, and StokerError when something cannot be moved: what was moved until
    then lies in the batch.
    """
    going = [each.name for each in runs if each.status == RUNNING]
    if going:
        raise UsageError("a run that is going on is not removed", where=going[0], remedy="stop it first")
    paths = [each.leaf for each in runs if each.leaf_exists]
    done: list[str] = []
    with _folder(results, []) as root:
        try:
            batch = _moved(results, root, [*paths, *_evidence(root, runs)], done)
        finally:
            gone = [each.id for each in runs if each.id and (not each.leaf_exists or each.leaf in done)]
            note_removed(results, gone)
        for path in paths:
            _prune(root, path)
    return batch


def unused_code(results: ResultsDir) -> list[str]:
    """Return the code images that no leaf names, neither in the tree nor in the trash.

    Raises ConfigurationError while a run is going on: its leaf names its image only when it ends.
    """
    going = [each for each in list_runs(results.root) if each.status in (RUNNING, UNKNOWN)]
    if going:
        told = going[0]
        where = f" on {told.host}" if told.status == UNKNOWN else ""
        raise ConfigurationError(
            "code images are not collected while a run may be going on",
            where=told.name,
            got=f"{told.status}{where}",
            remedy="wait for its end; one that is over without it: stoker mlperf runs rm ID",
        )
    tree = read_tree(results.root)
    trash = tree.top.find(HIDDEN, TRASH)
    kept = set()
    for folder in trash.walk() if trash is not None else []:
        if POINTER in folder.files:
            kept.add(image_named(tree.files.text(folder.below(POINTER)) or ""))
    unused = unused_images(tree)
    if blind := [each for each in tree.files.problems if each.rule in _BLIND]:
        raise ConfigurationError(
            "code images are not collected: not all of the tree can be read",
            where=blind[0].path,
            got=blind[0].observed,
            remedy="mend it first",
        )
    return [path for name, path in unused.items() if path == f"{POOL}/{name}" and name not in kept]


def remove_code(results: ResultsDir, paths: Sequence[str]) -> Batch:
    """Move code images into a new batch of the trash."""
    with _folder(results, []) as root:
        return _moved(results, root, paths, [])


def _evidence(root: int, runs: Sequence[RunEntry]) -> list[str]:
    """Return the run folders behind the leaves that are there."""
    found = []
    for each in runs:
        stamp = each.leaf.rpartition("/")[2]
        name = f"{stamp}-{each.family}-{each.model}-{each.id}"
        if each.id and TIME.fullmatch(stamp) and "/" not in name:
            path = f"{HIDDEN}/evidence/{name}"
            try:
                with _below(root, path.split("/")):
                    found.append(path)
            except NotFoundError:
                continue
    return found


def _moved(results: ResultsDir, root: int, paths: Sequence[str], done: list[str]) -> Batch:
    """Move folders into a new batch; `done` grows by each that lies there."""
    for path in paths:
        check_key(path)
    with _below(root, [HIDDEN, TRASH], make=True) as trash:
        name = _new_batch(trash)
        batch = Batch(path=f"{HIDDEN}/{TRASH}/{name}", at=stamp_now(), moved=tuple(paths))
        with _below(trash, [name]) as place:
            _write(place, BATCH_FILE, msgspec.json.format(msgspec.json.encode(batch), indent=1))
            for path in paths:
                _move(results, root, place, path)
                done.append(path)
            os.fsync(place)
        os.fsync(trash)
    return batch


def _new_batch(trash: int) -> str:
    stamp = stamp_now()
    for number in range(_BATCHES_MAX):
        name = f"{stamp}-{number}" if number else stamp
        try:
            os.mkdir(name, dir_fd=trash)
        except FileExistsError:
            continue
        return name
    raise StokerError("no free name for a batch of the trash", where=stamp, remedy="stoker mlperf runs purge")


def _move(results: ResultsDir, root: int, place: int, path: str) -> None:
    """Move a folder to the same path below `place`. Raises StokerError when it, or one above it, is a link."""
    *above, name = path.split("/")
    try:
        with _below(root, above) as source, _below(place, above, make=True) as target:
            if not stat.S_ISDIR(os.stat(name, dir_fd=source, follow_symlinks=False).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "a link or a file, not a folder", name)
            os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            os.fsync(source)
            os.fsync(target)
    except OSError as error:
        raise StokerError(
            "cannot be moved into the trash",
            where=str(results.root / path),
            expected="folders all the way, no links",
            got=error.strerror or "",
            remedy="nothing was removed; what was moved before lies in the newest batch of .mlps/trash",
        ) from error


def _prune(root: int, path: str) -> None:
    """Remove the folders above a leaf that are empty now, up to `results`; what is not empty stays."""
    parts = path.split("/")[:-1]
    lowest = 3 if "results" in parts[:3] else 1
    while len(parts) > lowest:
        try:
            with _below(root, parts[:-1]) as above:
                os.rmdir(parts[-1], dir_fd=above)
        except OSError:
            return
        parts.pop()


# -- emptying it -----------------------------------------------------------------------------------------------------


def trash_size(results: ResultsDir) -> TrashSize:
    """Return what the trash holds; no link is followed."""
    files = size = 0
    names: list[str] = []
    try:
        with _folder(results, [HIDDEN, TRASH]) as trash:
            names = os.listdir(trash)  # noqa: PTH208 - by its descriptor
            for name in names:
                for _, _, below, folder in os.fwalk(name, dir_fd=trash, follow_symlinks=False):
                    sizes = [os.stat(each, dir_fd=folder, follow_symlinks=False).st_size for each in below]
                    files, size = files + len(sizes), size + sum(sizes)
    except NotFoundError:
        pass
    return TrashSize(len(names), files, size)


def purge(results: ResultsDir) -> TrashSize:
    """Remove what the trash holds, for good; return what that was."""
    found = trash_size(results)
    if not found.batches:
        return found
    with _folder(results, [HIDDEN, TRASH]) as trash:
        for name in os.listdir(trash):  # noqa: PTH208 - by its descriptor
            if stat.S_ISDIR(os.stat(name, dir_fd=trash, follow_symlinks=False).st_mode):
                shutil.rmtree(name, dir_fd=trash)
            else:
                os.unlink(name, dir_fd=trash)
        os.fsync(trash)
    return found


# -- folders by descriptors ------------------------------------------------------------------------------------------


@contextmanager
def _folder(results: ResultsDir, parts: Sequence[str]) -> Iterator[int]:
    """Give a folder of the results directory. Raises NotFoundError, and ConfigurationError for a link on the way."""
    descriptor = os.open(results.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with _below(descriptor, parts) as found:
            yield found
    finally:
        os.close(descriptor)


@contextmanager
def _below(folder: int, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
    """Give the folder below another, following no link; `make` makes those that are missing."""
    here = os.dup(folder)
    try:
        for part in parts:
            if make:
                with suppress(FileExistsError):
                    os.mkdir(part, dir_fd=here)
            try:
                below = os.open(part, _FOLDER_FLAGS, dir_fd=here)
            except FileNotFoundError as error:
                raise NotFoundError("no such folder in the results directory", where="/".join(parts)) from error
            except NotADirectoryError as error:
                raise ConfigurationError(
                    "a link or a file lies where the results directory has a folder",
                    where="/".join(parts),
                    got=part,
                    remedy="nothing was removed; put a folder there",
                ) from error
            os.close(here)
            here = below
        yield here
    finally:
        os.close(here)


def _write(folder: int, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(name, flags, 0o644, dir_fd=folder), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
