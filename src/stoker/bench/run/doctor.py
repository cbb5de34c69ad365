"""Checks before anything is started: each is tried with a small real action, none is guessed, all are told together."""

import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil

from stoker.bench.run.conduct_tcp import require_ranks
from stoker.bench.run.doctor_surroundings import (
    credentials,
    mount_checks,
    open_files,
    scheduler,
    shared_memory,
    ssh_client,
)
from stoker.bench.run.hosts.discover import discover
from stoker.bench.run.hosts.judging import Check
from stoker.bench.run.hosts.packages import install_command
from stoker.bench.run.launch_mpi import choose_launcher
from stoker.bench.run.lockfile import not_as_locked
from stoker.bench.run.target import opened
from stoker.core import seed
from stoker.core.errors import CorruptError, InterruptedRunError, PreflightError, StokerError, UsageError
from stoker.core.plan import TrainingPlan
from stoker.core.units import GiB, MiB, format_bytes
from stoker.kernels.native import kernel_status
from stoker.kernels.reading import engine_facts
from stoker.pages.arena.locks import probe_robust_locks
from stoker.pages.capture.userfault import probe_userfault
from stoker.storage.api import Store, SupportsCache, SupportsLocalPath

PROBE_BYTES: Final = 64 * 1024
RANK_BYTES: Final = 64 * MiB
EXTRAS: Final = {
    "s3": ("obstore", "S3, Azure and Google stores"),
    "hdf5": ("h5py", "HDF5 files"),
    "parquet": ("pyarrow", "Parquet files"),
    "image": ("PIL", "JPEG and PNG files"),
    "mpi": ("mpi4py", "ranks under mpirun"),
    "ssh": ("asyncssh", "sampling of hosts over SSH"),
}


def examine(target: str | None = None, *, write: bool = True) -> list[Check]:
    """Return the checks of this machine and, when a target URL is given, of the target."""
    checks = [make() for make in MACHINE_CHECKS]
    checks += [*_extras(), *credentials(target)]
    if target is not None:
        checks += examine_target(target, write=write)
    return checks


def examine_target(target: str, *, write: bool = True) -> list[Check]:
    """Return the checks of a target: it opens, has room and, with `write`, takes, gives back and removes an object.

    Without `write` it is only listed.
    """
    try:
        with opened(target) as store:
            return [_io_mode(store), *_space(store), _round_trip(store) if write else _listing(store)]
    except StokerError as error:
        return [_failed("target", error)]


def require_target(target: str, *, write: bool, create: bool = False) -> None:
    """Try what a run will do: open the target and list it or, with `write`, put, read back and remove a small object.

    With `create` a missing folder is made. Raises UsageError for a target that no run can use, PreflightError, with
    the reason, for one that is not fit.
    """
    try:
        with opened(target, create=create) as store:
            _refuse_memory(store, write=write)
            if write:
                _write_and_read(store)
            else:
                next(iter(store.list()), None)
    except (UsageError, PreflightError, InterruptedRunError):
        raise
    except StokerError as error:
        facts = {name: getattr(error, name) for name in ("where", "expected", "got", "remedy")}
        raise PreflightError(error.what, **facts) from error


def require_launcher(plan: TrainingPlan) -> None:
    """Raise UsageError when the ranks cannot be started as planned: by MPI, in another number, or not all of them."""
    placed = discover() if plan.launcher in ("auto", "tcp") else None
    if placed is not None:
        require_ranks(plan, placed)
        return
    launcher, found = choose_launcher(plan.launcher)
    most = psutil.virtual_memory().available // RANK_BYTES
    if launcher == "local" and plan.ranks > most:
        raise UsageError(
            "more accelerators than this host has memory for",
            expected=f"at most {most}",
            got=f"{plan.ranks}",
            remedy="start it on more hosts with mpirun, or free memory",
        )
    size = found.size if launcher == "mpi" and found is not None else None
    if size not in (None, plan.ranks):
        raise UsageError(
            "MPI started another number of ranks than the run has",
            expected=f"{plan.ranks}",
            got=f"{size}",
            remedy=f"start it with mpirun -n {plan.ranks}",
        )


def _refuse_memory(store: Store, *, write: bool) -> None:
    """Refuse what no rank could read from: the memory of this process, and a store that keeps nothing it is given."""
    if store.url.startswith("mem://"):
        raise UsageError(
            "mem:// lies in the memory of one process, which the emulated accelerators do not share",
            where=store.url,
            expected="a folder, or a file://, direct://, s3://, az:// or gs:// URL",
        )
    if write and store.url.startswith("null://"):
        remedy = "for the ceiling of this harness use stoker run training with null://?template=FILE"
        raise UsageError("null:// keeps nothing, so no dataset can lie there", where=store.url, remedy=remedy)


def _failed(name: str, error: StokerError) -> Check:
    """Return the failed check that an error tells of; the remedy stands apart from the rest of its sentence."""
    rest = StokerError(error.what, where=error.where, expected=error.expected, got=error.got)
    return Check(name, "fail", str(rest), error.remedy)


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} at {os.cpu_count()} CPUs ({_usable_cpus()} usable)")


def _usable_cpus() -> int:
    return len(os.sched_getaffinity(0))


def _memory() -> Check:
    memory = psutil.virtual_memory()
    text = f"{format_bytes(memory.available)} available of {format_bytes(memory.total)}"
    if memory.available < 1 * GiB:
        return Check("memory", "warn", text, "free memory: a rank needs about 0.5 GiB and its batches")
    return Check("memory", "ok", text)


def _locked_versions() -> Check:
    """Hold the installed versions against the lock that ships with the package (PKG-03)."""
    different = not_as_locked()
    if different:
        return Check("locked versions", "note", ", ".join(different), "pip install -r the lock file of this release")
    return Check("locked versions", "ok", "installed packages are the locked ones")


def _read_engine() -> Check:
    """Open what local files are read with."""
    facts = engine_facts()
    told = f"{facts.kinds[0]} (of {', '.join(facts.kinds)})"
    if facts.io_uring_denied:
        return Check(
            "read engine", "note", f"{told}; io_uring: {facts.io_uring_denied}", "reads work, at a greater cost"
        )
    return Check("read engine", "ok", told)


def _kernels() -> Check:
    try:
        status = kernel_status()
    except StokerError as error:
        return _failed("kernels", error)
    if status.kind == "native":
        return Check("kernels", "ok", f"native, for {status.cpu_level}")
    return Check("kernels", "warn", f"plain twins: {status.reason}", status.remedy)


def _page_locks() -> Check:
    """Take a lock in shared memory whose owner died: without such locks no store of pages can be shared."""
    reason = probe_robust_locks()
    if reason:
        return Check("page locks", "warn", reason, "stores of pages need robust mutexes (glibc or musl on Linux)")
    return Check("page locks", "ok", "a lock outlives the death of its owner")


def _page_tracking() -> Check:
    """Track a write to a page of our own."""
    reason = probe_userfault()
    if reason:
        remedy = "capture compares all memory instead: slower, with the same result"
        return Check("page tracking", "note", f"userfaultfd: {reason}", remedy)
    return Check("page tracking", "ok", "userfaultfd tells which memory was written")


def _kernel_counters() -> Check:
    """Without the kernel's own counts no verdict about a file target can be yes."""
    try:
        text = Path("/proc/self/io").read_text()
    except OSError as error:
        return Check(
            "kernel counters", "warn", str(error), "a kernel with task I/O accounting is needed to prove a yes"
        )
    if "read_bytes" not in text:
        return Check("kernel counters", "warn", "no read_bytes in /proc/self/io", "enable CONFIG_TASK_IO_ACCOUNTING")
    return Check("kernel counters", "ok", "per-process block-layer reads are counted")


def _clock() -> Check:
    source = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
    name = source.read_text().strip() if source.is_file() else "unknown"
    slow = name in ("hpet", "acpi_pm")
    return Check(
        "clock", "warn" if slow else "ok", f"source {name}", "a TSC clock makes time stamps cheap" if slow else ""
    )


def _launcher() -> Check:
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpirun")
    if found is None:
        remedy = f"pip install 'stoker[mpi]', or {install_command('mpi')}"
        return Check("mpi launcher", "note", "none found: ranks run as local processes", remedy)
    return Check("mpi launcher", "ok", Path(found).name)


def _extras() -> Iterator[Check]:
    for extra, (module, use) in EXTRAS.items():
        if importlib.util.find_spec(module) is None:
            yield Check(f"extra {extra}", "note", f"not installed ({use})", f"pip install 'stoker[{extra}]'")
        else:
            yield Check(f"extra {extra}", "ok", use)


MACHINE_CHECKS: Final[tuple[Callable[[], Check], ...]] = (
    _python,
    _memory,
    _locked_versions,
    _kernels,
    _read_engine,
    open_files,
    shared_memory,
    _page_locks,
    _page_tracking,
    _kernel_counters,
    _clock,
    _launcher,
    ssh_client,
    scheduler,
)


def _io_mode(store: Store) -> Check:
    facts = store.capabilities
    text = f"{facts.io_mode} I/O at {store.url}" + "".join(f"; {note}" for note in facts.notes)
    if facts.io_mode == "buffered" and not isinstance(store, SupportsCache):
        return Check("target", "warn", text, "page-cache reads cannot be told apart here: a yes cannot be proven")
    return Check("target", "warn" if facts.notes else "ok", text)


def _space(store: Store) -> Iterator[Check]:
    if isinstance(store, SupportsLocalPath):
        usage, space = shutil.disk_usage(store.root), os.statvfs(store.root)
        text = f"{format_bytes(usage.free)} free of {format_bytes(usage.total)}"
        text += f", {space.f_favail:,} inodes free" if space.f_files else ""
        low = usage.free < 1 * GiB
        yield Check("target space", "warn" if low else "ok", text, "free some space before generating" if low else "")
        yield from mount_checks(Path(store.root))


def _listing(store: Store) -> Check:
    try:
        next(iter(store.list()), None)
    except InterruptedRunError:
        raise
    except StokerError as error:
        return _failed("target read", error)
    return Check("target read", "ok", "it can be listed; nothing was written")


def _round_trip(store: Store) -> Check:
    try:
        _write_and_read(store)
    except InterruptedRunError:
        raise
    except StokerError as error:
        return _failed("target write", error)
    return Check("target write", "ok", "a small object was written, read back and removed")


def _write_and_read(store: Store) -> None:
    """Put a small object, read it back and remove it. Raises CorruptError when it came back different."""
    key = f"stoker-doctor-{seed.run_id()}"
    data = seed.derive(1, key).to_bytes(8, "little") * (PROBE_BYTES // 8)
    store.put(key, data)
    try:
        same = bytes(store.get_range(key)) == data
    finally:
        store.delete(key)
    if not same:
        raise CorruptError(
            "what was read back differs from what was written", where=store.url, remedy="do not use this target"
        )
