"""How far a dataset is that many ranks make: each tells the first one, and that tells who started them."""

from collections.abc import Sequence
from typing import Final

from stoker.bench.run.hosts.control import tell_progress
from stoker.bench.run.hosts.events import ProgressEvent, generation_event
from stoker.bench.run.launch_mpi import MpiComm
from stoker.core import clock
from stoker.loader.dataset.progress import Progress

_SECONDS: Final = 0.5


class News:
    """What the ranks told. `hosts` are those of the ranks, in order; a rank has done its share once it said so."""

    def __init__(self, hosts: Sequence[str], files: int, began_ns: int) -> None:
        self._hosts, self._files, self._began_ns = list(hosts), files, began_ns
        self._done_files = [0] * len(self._hosts)
        self._bytes = [0] * len(self._hosts)
        self._ended_ns: dict[int, int] = {}

    @property
    def all_ended(self) -> bool:
        """Tell whether every rank has done its share."""
        return len(self._ended_ns) == len(self._hosts)

    def take(self, rank: int, files: int, written_bytes: int, ended: bool, now_ns: int) -> None:
        """Take what a rank told: files that are there, bytes written now, and whether it has ended."""
        self._done_files[rank], self._bytes[rank] = files, written_bytes
        if ended:
            self._ended_ns.setdefault(rank, now_ns)

    def event(self, now_ns: int) -> ProgressEvent:
        """Return how far all are."""
        elapsed = (now_ns - self._began_ns) / 1e9
        done = min(sum(self._done_files), self._files)
        left = elapsed * (self._files - done) / done if done else None
        running = {host for rank, host in enumerate(self._hosts) if rank not in self._ended_ns}
        ends = {host: 0.0 for host in self._hosts if host not in running}
        for rank, ended_ns in self._ended_ns.items():
            if self._hosts[rank] in ends:
                ends[self._hosts[rank]] = max(ends[self._hosts[rank]], (ended_ns - self._began_ns) / 1e9)
        slowest = min(range(len(self._hosts)), key=lambda rank: (rank in self._ended_ns, self._done_files[rank]))
        return generation_event(
            done,
            self._files,
            bytes_per_second=sum(self._bytes) / elapsed if elapsed > 0 else 0.0,
            elapsed_seconds=elapsed,
            left_seconds=left,
            hosts=len(set(self._hosts)),
            hosts_done=len(ends),
            first_done_seconds=min(ends.values(), default=None),
            last_done_seconds=max(ends.values(), default=None),
            slowest_host=self._hosts[slowest] if running else "",
        )


class Telling:
    """A rank's side: it tells its own progress and, on the first rank, that of all goes on."""

    def __init__(self, comm: MpiComm, files: int, host: str) -> None:
        """Made by all ranks at once."""
        self._comm = comm
        self._latest = (0, 0)
        hosts = comm.gather(host.encode())
        self._news = None
        if hosts is not None:
            self._news = News([name.decode() for name in hosts], files, clock.monotonic_ns())
        self._told_ns = 0

    def progress(self, event: Progress) -> None:
        """Tell how far this rank is."""
        self._latest = (event.files_done, event.bytes_worked)
        self._tell(ended=False)

    def ended(self, files: int, written_bytes: int) -> None:
        """Tell that this rank has done its share, and wait for all others, whose progress goes on meanwhile."""
        self._latest = (files, written_bytes)
        self._tell(ended=True)
        self._comm.barrier(meanwhile=self._listened)

    def _tell(self, *, ended: bool) -> None:
        if self._news is None:
            self._comm.tell((*self._latest, int(ended)), surely=ended)
            return
        self._news.take(self._comm.rank, *self._latest, ended, clock.monotonic_ns())
        self._listened()

    def _listened(self) -> bool:
        """Take what was told until now and pass it on; return whether every rank has ended."""
        if self._news is None:
            return True
        now_ns = clock.monotonic_ns()
        for rank, (files, written_bytes, ended) in self._comm.hear():
            self._news.take(rank, files, written_bytes, bool(ended), now_ns)
        if now_ns - self._told_ns >= _SECONDS * 1e9 or self._news.all_ended:
            self._told_ns = now_ns
            tell_progress(self._news.event(now_ns))
        return self._news.all_ended
