"""A demonstration from its start to its end: the cluster, its page, a mount, the steps, and nothing left of it."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import StokerError, UsageError
from stoker.fs.demo.checks import SelfCheck, Step, verdict
from stoker.fs.demo.children import Child, command
from stoker.fs.demo.cluster import ClusterOptions, LoopbackCluster
from stoker.fs.demo.page import PageServer
from stoker.fs.demo.watching import Watcher
from stoker.fs.fuse.mounting import DEVICE, unmount
from stoker.fs.fuse.table import mount_at

_MOUNT_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.1


class Shown(msgspec.Struct):
    """Where all of it is, and what was shown. `mountpoint` is empty where nothing can be mounted; `why_not` tells."""

    folder: str
    volume: str
    token_file: str
    page: str
    mountpoint: str
    why_not: str
    up_seconds: float
    steps: list[Step]
    verdict: str = ""

    @property
    def holds(self) -> bool:
        """Tell whether every step held."""
        return all(step.holds for step in self.steps)


def why_no_mount() -> str:
    """Return why nothing can be mounted here, empty where it can."""
    if not os.access(DEVICE, os.R_OK | os.W_OK):
        return f"{DEVICE} cannot be opened"
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        return "mounting by others than root needs fusermount3 (apt install fuse3)"
    return ""


@contextmanager
def own_folder(wanted: Path | None) -> Iterator[Path]:
    """Give an empty folder, and remove it. Raises UsageError for one in which something is."""
    if wanted is None:
        made = Path(tempfile.mkdtemp(prefix="stoker-demo-"))
    else:
        if wanted.exists() and (not wanted.is_dir() or any(wanted.iterdir())):
            raise UsageError("folder of the demo is not empty", where=str(wanted))
        wanted.mkdir(parents=True, exist_ok=True)
        made = wanted.resolve()
    try:
        yield made
    finally:
        _remove(made)


def _remove(folder: Path) -> None:
    """Remove a folder, unless something is still mounted below it: that would be removed instead."""
    below = mount_at(folder / "mnt")
    if below is not None:
        raise StokerError("demo is still mounted", where=below.point, remedy=f"stoker fs umount --lazy {below.point}")
    for _ in range(2):  # a process that was killed may have left a file as the folder was listed
        with suppress(FileNotFoundError):
            shutil.rmtree(folder, ignore_errors=False)


@contextmanager
def mounted(
    cluster: LoopbackCluster, point: Path, stop_wanted: Callable[[], bool], *options: str
) -> Iterator[Child]:  # fmt: skip
    """Mount a cluster's volume by a process of its own, and unmount it, whatever has become of that process."""
    point.mkdir()
    child = Child(
        "mount",
        command("fs", "mount", cluster.url, str(point), "--foreground", "--json", *options, mountpoint=point),
        cluster.folder / "mount.log",
        token=cluster.token,
    )
    try:
        child.ready(time.monotonic() + _MOUNT_SECONDS, stop_wanted)
        yield child
    finally:
        child.close()
        while mount_at(point) is not None:
            unmount(point, lazy=True, force=True)


class Demo:
    """What `stoker fs demo` runs. `tell` hears of each thing as it happens."""

    def __init__(self, stop_wanted: Callable[[], bool], tell: Callable[[str], object]) -> None:
        self._stop_wanted, self._tell = stop_wanted, tell

    def run(self, folder: Path, *, stay: Callable[[Shown], None], options: ClusterOptions | None = None) -> Shown:
        """Bring everything up, do the steps, `stay`, and tear everything down. Raises InterruptedRunError."""
        began = time.monotonic()
        with ExitStack() as held:
            cluster = held.enter_context(LoopbackCluster(folder, options or ClusterOptions(), self._stop_wanted))
            watcher = Watcher(cluster)
            held.callback(watcher.close)
            page = PageServer(cluster.name, lambda: watcher.seen)
            held.callback(page.close)
            why_not = why_no_mount()
            point = folder / "mnt"
            if not why_not:
                held.enter_context(mounted(cluster, point, self._stop_wanted))
            shown = Shown(
                str(folder), cluster.url, str(cluster.token_file), page.url, "" if why_not else str(point), why_not,
                time.monotonic() - began, [],
            )  # fmt: skip
            self._tell_start(shown, cluster)
            for step in SelfCheck(cluster, None if why_not else point, self._stop_wanted).steps():
                shown.steps.append(step)
                watcher.note(f"{step.name}: {step.told}")
                self._tell(f"{'ok  ' if step.holds else 'FAIL'} {step.name} ({step.seconds:.1f} s): {step.told}")
            shown.verdict = verdict(shown.steps)
            stay(shown)
        return shown

    def _tell_start(self, shown: Shown, cluster: LoopbackCluster) -> None:
        options = cluster.options
        self._tell(
            f"up in {shown.up_seconds:.1f} s: 3 etcd, {options.masters} masters, {options.disks} chunk servers, "
            f"{'a metalogger, ' if options.metalogger else ''}page {shown.page}"
        )
        self._tell(f"mounted at {shown.mountpoint}" if shown.mountpoint else f"not mounted: {shown.why_not}")

    def wait(self, seconds: float | None) -> None:
        """Let it run for a time, or until it is to stop."""
        until = None if seconds is None else time.monotonic() + seconds
        while not self._stop_wanted() and (until is None or time.monotonic() < until):
            time.sleep(_POLL_SECONDS)
