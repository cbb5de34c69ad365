"""What one host tells of itself before a run: found by trying, told as one JSON object.

`python -m stoker.bench.run.hosts.facts` reads a request, a line, from stdin and answers on stdout; every further line
asks for its clock. It runs on the host itself, started by a shell over SSH. It writes one small file below the target
only where it is asked to.
"""

import os
import platform
import resource
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from stoker import __version__
from stoker.bench.run.hosts.packages import manager_of
from stoker.bench.run.hosts.parse import parse_os_release
from stoker.bench.run.hosts.sources import OS_RELEASE, local_hardware, local_name
from stoker.bench.run.lockfile import not_as_locked
from stoker.bench.run.target import opened
from stoker.bench.workloads.mounts import mount_of
from stoker.core import clock
from stoker.core.errors import StokerError
from stoker.core.host_series import HostSeries
from stoker.storage.url import parse_url

REQUEST_BYTES_MAX: Final = 1 << 20
MARK: Final = b"stoker-facts "
SENTINEL: Final = ".stoker-shared-{token}"
_QUESTION_BYTES_MAX: Final = 100
_LOCAL_SCHEMES: Final = ("file", "direct")
_SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108 - the place itself is what is looked at
CREDENTIALS: Final = {
    "s3": ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    "az": ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY"),
    "gs": ("GOOGLE_APPLICATION_CREDENTIALS",),
}


class Request(msgspec.Struct, frozen=True):
    """What is asked. `sentinel` names a file below the target: `put` writes `token` into it, `remove` removes it.

    `hardware` asks what the host is made of, too.
    """

    target: str = ""
    sentinel: str = ""
    token: str = ""
    put: bool = False
    remove: bool = False
    hardware: bool = False


class TargetFacts(msgspec.Struct, frozen=True):
    """The target as a host sees it. `found` is what the sentinel holds, None where there is none or nobody looked."""

    error: str = ""
    mount_point: str = ""
    mount_type: str = ""
    mount_source: str = ""
    mount_options: tuple[str, ...] = ()
    free_bytes: int | None = None
    free_files: int | None = None
    device: int | None = None
    inode: int | None = None
    found: str | None = None
    credentials_missing: tuple[str, ...] = ()


class HostFacts(msgspec.Struct, frozen=True):
    """One host. `error` tells why nothing else is known."""

    host: str = ""
    error: str = ""
    remedy: str = ""
    stoker_version: str = ""
    python: str = ""
    not_locked: tuple[str, ...] = ()
    system: str = ""
    package_manager: str = ""
    open_files: int = 0
    processes: int = 0
    locked_memory_bytes: int = 0
    shared_memory_free_bytes: int | None = None
    cpus: int = 0
    memory_bytes: int = 0
    target: TargetFacts | None = None
    hardware: HostSeries | None = None


def host_facts(request: Request) -> HostFacts:
    """Return what this host tells."""
    release = next((parse_os_release(Path(name).read_text()) for name in OS_RELEASE if Path(name).is_file()), {})
    shared = shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else None
    return HostFacts(
        host=local_name(),
        stoker_version=__version__,
        python=platform.python_version(),
        not_locked=tuple(not_as_locked()),
        system=release.get("PRETTY_NAME", ""),
        package_manager=manager_of(release) or "",
        open_files=_soft(resource.RLIMIT_NOFILE),
        processes=_soft(resource.RLIMIT_NPROC),
        locked_memory_bytes=_soft(resource.RLIMIT_MEMLOCK),
        shared_memory_free_bytes=shared,
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        target=target_facts(request) if request.target else None,
        hardware=local_hardware() if request.hardware else None,
    )


def _soft(limit: int) -> int:
    """Return a soft limit, -1 for none."""
    return resource.getrlimit(limit)[0]


def target_facts(request: Request) -> TargetFacts:
    """Return the target as this host sees it, the sentinel put, looked for or removed on the way."""
    try:
        scheme = parse_url(request.target).scheme
        if scheme not in _LOCAL_SCHEMES:
            return _remote_target(request, scheme)
        return _local_target(request, Path(parse_url(request.target).path))
    except (StokerError, OSError) as error:
        return TargetFacts(error=str(error))


def _remote_target(request: Request, scheme: str) -> TargetFacts:
    with opened(request.target) as store:
        next(iter(store.list()), None)
        found = _sentinel_object(request, store) if request.sentinel else None
    missing = tuple(name for name in CREDENTIALS.get(scheme, ()) if not os.environ.get(name))
    return TargetFacts(found=found, credentials_missing=missing)


def _sentinel_object(request: Request, store: object) -> str | None:
    from stoker.core.errors import NotFoundError
    from stoker.storage.api import Store

    assert isinstance(store, Store)
    if request.put:
        store.put(request.sentinel, request.token.encode())
    try:
        return bytes(store.get_range(request.sentinel)).decode("utf-8", "replace")
    except NotFoundError:
        return None
    finally:
        if request.remove:
            store.delete(request.sentinel)


def _local_target(request: Request, folder: Path) -> TargetFacts:
    if not folder.is_dir():
        return TargetFacts(error=f"no such folder: {folder}")
    mount = mount_of(folder)
    path = folder / request.sentinel if request.sentinel else None
    error, found, status, space = "", None, os.stat(folder), os.statvfs(folder)
    if path is not None:
        try:
            found, status = _look(request, path)
        except OSError as problem:
            error = f"{problem.strerror}: {path}"
    return TargetFacts(
        error=error,
        mount_point=mount.point if mount else "",
        mount_type=mount.kind if mount else "",
        mount_source=mount.source if mount else "",
        mount_options=mount.options if mount else (),
        free_bytes=space.f_bavail * space.f_frsize,
        free_files=space.f_favail if space.f_files else None,
        device=status.st_dev,
        inode=status.st_ino,
        found=found,
    )


def _look(request: Request, path: Path) -> tuple[str | None, os.stat_result]:
    """Put, look for or remove the sentinel; return what it holds, and its status or that of its folder."""
    if request.put:
        with path.open("x") as file:
            file.write(request.token)
            file.flush()
            os.fsync(file.fileno())
    try:
        with os.scandir(path.parent) as entries:  # a network file system looks anew when its folder is opened
            next(entries, None)
        return path.read_text()[:200], path.stat()
    except FileNotFoundError:
        return None, path.parent.stat()
    finally:
        if request.remove:
            with suppress(FileNotFoundError):
                path.unlink()


def main() -> None:
    """Answer the request on stdin, then tell the clock for each further line."""
    request = msgspec.json.decode(sys.stdin.buffer.readline(REQUEST_BYTES_MAX), type=Request)
    sys.stdout.buffer.write(MARK + msgspec.json.encode(host_facts(request)) + b"\n")
    sys.stdout.buffer.flush()
    while sys.stdin.buffer.readline(_QUESTION_BYTES_MAX):
        sys.stdout.buffer.write(b"%d\n" % clock.wall_ns())
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
