"""A chunk server as one runs it: its disks' processes, its admin port, and the file that tells where they are."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import msgspec

from stoker.core.errors import StokerError, UsageError
from stoker.core.files import write_atomic
from stoker.fs.chunk.admin import AdminServer
from stoker.fs.chunk.disk_process import DiskTask, Ready
from stoker.fs.chunk.supervisor import Supervisor
from stoker.fs.wire.keys import may_listen, parse_address


class Announced(msgspec.Struct, frozen=True):
    """Where a chunk server answers: each disk, and the admin port if there is one."""

    disks: list[Ready]
    admin: str = ""


class Daemon(NamedTuple):
    """What a chunk server is to be: the tasks of its disks, and where it tells of itself.

    `announce` is called once all disks are served, with what stands in `address_file` then; `warn` takes sentences.
    """

    tasks: Sequence[DiskTask]
    announce: Callable[[Announced], None]
    warn: Callable[[str], None]
    admin: str = ""
    address_file: Path | None = None

    def run(self, stop_wanted: Callable[[], bool]) -> None:
        """Serve until it is wished to stop. Raises StokerError when a disk cannot be served, or did not end well."""
        supervisor = Supervisor(self.tasks, self.warn)
        try:
            self._serve(supervisor, stop_wanted)
        except BaseException:
            supervisor.stop()
            raise
        unwell = supervisor.stop()
        if unwell:
            raise StokerError(
                "disks were not closed in order", where=", ".join(unwell), remedy="they are read over at the next start"
            )

    def _serve(self, supervisor: Supervisor, stop_wanted: Callable[[], bool]) -> None:
        with ExitStack() as held:
            admin = ""
            if self.admin:
                server = AdminServer(*parse_address(self.admin), supervisor.views)
                held.callback(server.close)
                admin = server.address
            ready = supervisor.start(stop_wanted)
            if stop_wanted():
                return
            announced = Announced(ready, admin)
            if self.address_file is not None:
                write_atomic(self.address_file, msgspec.json.encode(announced) + b"\n")
            self.announce(announced)
            supervisor.watch(stop_wanted)


def tasks_for(folders: Sequence[Path], like: DiskTask) -> list[DiskTask]:
    """Return a task for each folder, at ports that follow each other unless the port is 0.

    Raises UsageError for what can be told to be wrong before a process is started.
    """
    resolved = [folder.resolve() for folder in folders]
    twice = [str(folder) for folder in resolved if resolved.count(folder) > 1]
    if twice:
        raise UsageError("folder is named twice", where=twice[0])
    if like.port and like.port + len(folders) - 1 > 65535:
        raise UsageError("there are not so many ports", expected=f"{len(folders)} from {like.port} on")
    for master in like.masters:
        parse_address(master)
    may_listen(like.host, like.token, like.tls.for_server() if like.tls is not None else None)
    if like.masters and not like.advertise and like.host in {"", "0.0.0.0", "::"}:  # noqa: S104 - to refuse it
        raise UsageError("masters must be told where the disks are", remedy="give --advertise HOST")
    return [
        msgspec.structs.replace(like, folder=str(folder), port=like.port and like.port + number)
        for number, folder in enumerate(resolved)
    ]
