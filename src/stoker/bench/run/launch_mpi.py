"""Ranks under mpirun, mpiexec or srun: which launcher started us, and the ranks' meeting over MPI.

mpi4py is imported only once a launcher was found. Everything moves as bytes, for its lower-case methods pickle.
"""

import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, Final, NoReturn

import msgspec
import numpy as np
import numpy.typing as npt

from stoker.core import clock
from stoker.core.errors import EXIT_FAILED, MissingExtraError, UsageError

_SIZE_VARIABLES: Final = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PALS_NRANKS")
_RANK_VARIABLES: Final = ("OMPI_COMM_WORLD_RANK", "PMI_RANK", "PMIX_RANK", "PALS_RANKID")
# A batch script has SLURM_NTASKS as well; only inside a step, under srun, is there one of us for each task.
_SLURM_STEP: Final = "SLURM_STEP_ID"
_SLURM_SIZE: Final = "SLURM_STEP_NUM_TASKS"
_SLURM_RANK: Final = "SLURM_PROCID"
_NUMBERS: Final = 3
_TAG: Final = 7
_NEWS_TAG: Final = 8
_YIELD_NS: Final = 50_000
_NAP_SECONDS: Final = 50e-6
_NAP_SECONDS_MAX: Final = 1e-3
# Launchers drop what they have not yet forwarded of an aborting process; without this one line in four was lost.
_ABORT_SECONDS: Final = 3.0
_FORWARD_SECONDS: Final = 0.25


class MpiLaunch(msgspec.Struct, frozen=True):
    """How an MPI launcher started this process: the variable that shows it, this rank, and of how many (if told)."""

    found_by: str
    rank: int
    size: int | None


def detect(environment: Mapping[str, str] | None = None) -> MpiLaunch | None:
    """Return how an MPI launcher started this process, None when none did. MPI itself is not started."""
    environment = os.environ if environment is None else environment
    in_step = _SLURM_STEP in environment
    sizes = [*_SIZE_VARIABLES, *((_SLURM_SIZE,) if in_step else ())]
    ranks = [*_RANK_VARIABLES, *((_SLURM_RANK,) if in_step else ())]
    size = next((name for name in sizes if environment.get(name, "").isdecimal()), "")
    rank = next((name for name in ranks if environment.get(name, "").isdecimal()), "")
    if not size and not (rank and rank in _RANK_VARIABLES):
        return None
    found = size or rank
    return MpiLaunch(
        found_by=f"{found}={environment[found]}",
        rank=int(environment[rank]) if rank else 0,
        size=int(environment[size]) if size else None,
    )


def choose_launcher(asked: str, environment: Mapping[str, str] | None = None) -> tuple[str, MpiLaunch | None]:
    """Return `local` or `mpi` for `auto`, `local` or `mpi`, and how an MPI launcher started us, if one did.

    Raises UsageError for MPI without a launcher, and for local ranks under one: each of its processes would start all.
    """
    found = detect(environment)
    several = found is not None and found.size != 1
    if asked == "auto":
        return ("mpi" if several else "local"), found
    if asked == "mpi" and found is None:
        raise UsageError(
            "no MPI launcher started this process",
            expected="one of " + ", ".join((*_SIZE_VARIABLES, "PMIX_RANK", _SLURM_SIZE)),
            remedy="start it with mpirun -n RANKS, or use the local launcher",
        )
    if asked == "local" and several:
        raise UsageError(
            "local ranks under an MPI launcher",
            got=found.found_by if found else "",
            remedy="start it without mpirun, or use the mpi launcher",
        )
    if asked == "tcp":
        remedy = "set STOKER_CONDUCTOR and what belongs to it, or use another launcher"
        raise UsageError("nothing in the environment tells where the ranks meet", remedy=remedy)
    if asked not in ("local", "mpi"):
        raise UsageError("unknown launcher", where=asked, expected="auto, local, mpi or tcp")
    return asked, found


def is_first_rank() -> bool:
    """Tell whether this process is rank 0 of an MPI launch, or was started without MPI."""
    found = detect()
    return found is None or found.rank == 0


def is_one_of_several() -> bool:
    """Tell whether an MPI launcher started this process beside others."""
    return choose_launcher("auto")[0] == "mpi"


class MpiComm:
    """The ranks of MPI's world. Made by all ranks at once (by `world`, once a process); use it from one thread."""

    def __init__(self) -> None:
        """Raises MissingExtraError without mpi4py or an MPI library."""
        if "OMPI_COMM_WORLD_SIZE" in os.environ:  # mpi4py takes MPICH where both are installed, and cannot start then
            os.environ.setdefault("MPI4PY_MPIABI", "openmpi")
        try:
            from mpi4py import MPI
        except (ImportError, RuntimeError) as error:
            raise MissingExtraError(
                "MPI needs mpi4py and an MPI library", got=str(error), remedy="pip install 'stoker[mpi]'"
            ) from error
        self._mpi: Any = MPI
        self._world: Any = MPI.COMM_WORLD
        host: Any = self._world.Split_type(MPI.COMM_TYPE_SHARED)
        self.rank, self.size = int(self._world.Get_rank()), int(self._world.Get_size())
        self.host_rank, self.host_size = int(host.Get_rank()), int(host.Get_size())
        host.Free()
        self._told: tuple[Any, npt.NDArray[np.int64]] | None = None

    @property
    def library(self) -> str:
        """Return the MPI library's name and version."""
        return " ".join(str(self._mpi.Get_library_version()).partition("\n")[0].strip("\0").split())

    def tell(self, numbers: Sequence[int], *, surely: bool = False) -> None:
        """Send three whole numbers to rank 0, which hears them when it listens.

        They are left out while those before are still on their way, unless they must arrive.
        """
        if self._told is not None and not self._told[0].Test():
            if not surely:
                return
            self._told[0].Wait()
        news = _padded(numbers)
        self._told = (self._world.Isend(news, dest=0, tag=_NEWS_TAG), news)  # MPI reads it until it has gone

    def hear(self) -> Iterator[tuple[int, list[int]]]:
        """Yield what was told until now, as rank and numbers."""
        status, news = self._mpi.Status(), np.zeros(_NUMBERS, np.int64)
        while self._world.Iprobe(source=self._mpi.ANY_SOURCE, tag=_NEWS_TAG, status=status):
            self._world.Recv(news, source=status.Get_source(), tag=_NEWS_TAG)
            yield int(status.Get_source()), [int(number) for number in news]

    def barrier(self, stop: bool = False, *, meanwhile: Callable[[], bool] = lambda: True) -> bool:
        """Wait for all ranks; return whether any asked to stop: one collective does both.

        `meanwhile` is called now and then, and must have returned True, too, before the wait is over.

        MPI libraries wait by spinning, which starves the readers where ranks have no core to spare; so after a moment
        this rank naps between looks.
        """
        mine, all_ranks = np.array([stop], np.int8), np.zeros(1, np.int8)
        request = self._world.Iallreduce(mine, all_ranks, op=self._mpi.MAX)
        yield_until_ns = clock.monotonic_ns() + _YIELD_NS
        nap_seconds = _NAP_SECONDS
        arrived = False
        while True:
            arrived, ready = arrived or request.Test(), meanwhile()
            if arrived and ready:
                return bool(all_ranks[0])
            if clock.monotonic_ns() > yield_until_ns:
                clock.sleep(nap_seconds)
                nap_seconds = min(nap_seconds * 1.1, _NAP_SECONDS_MAX)

    def broadcast(self, data: bytes) -> bytes:
        """Return what rank 0 passed, on every rank."""
        size = np.array([len(data)], np.int64)
        self._world.Bcast(size, root=0)
        buffer = bytearray(data) if self.rank == 0 else bytearray(int(size[0]))
        self._world.Bcast([buffer, self._mpi.BYTE], root=0)
        return bytes(buffer)

    def gather(self, data: bytes) -> list[bytes] | None:
        """Return what every rank passed, in order, on rank 0, and None elsewhere."""
        sizes = np.zeros(self.size, np.int64)
        self._world.Allgather(np.array([len(data)], np.int64), sizes)
        if self.rank != 0:
            self._world.Gatherv([data, self._mpi.BYTE], None, root=0)
            return None
        everything = bytearray(int(sizes.sum()))
        starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))
        self._world.Gatherv([data, self._mpi.BYTE], [everything, sizes, starts, self._mpi.BYTE], root=0)
        view = memoryview(everything)
        return [bytes(view[start : start + size]) for start, size in zip(starts, sizes, strict=True)]

    def leaders(self) -> list[int]:
        """Return the first rank of each host, ascending, on every rank."""
        first = np.zeros(self.size, np.int8)
        self._world.Allgather(np.array([self.host_rank == 0], np.int8), first)
        return [int(rank) for rank in np.flatnonzero(first)]

    def ask(self, rank: int, mine: Sequence[int]) -> list[int]:
        """Send three whole numbers to `rank`, which calls `answer` meanwhile, and return its answer."""
        theirs = np.zeros(_NUMBERS, np.int64)
        self._world.Send(_padded(mine), dest=rank, tag=_TAG)
        self._world.Recv(theirs, source=rank, tag=_TAG)
        return [int(number) for number in theirs]

    def answer(self, make: Callable[[Sequence[int]], Sequence[int]]) -> None:
        """Take a question of rank 0's and answer it."""
        question = np.zeros(_NUMBERS, np.int64)
        self._world.Recv(question, source=0, tag=_TAG)
        self._world.Send(_padded(make([int(number) for number in question])), dest=0, tag=_TAG)

    def abort_surely(self, reason: str) -> NoReturn:
        """Do the same from any thread, and end this process even where MPI cannot: the network may be gone."""
        timer = threading.Timer(_ABORT_SECONDS, os._exit, (EXIT_FAILED,))
        timer.daemon = True
        timer.start()
        self.abort(reason)

    def abort(self, reason: str) -> NoReturn:
        """End all ranks of the run, telling why on stderr: an exception on one would leave the others waiting."""
        sys.stderr.write(f"stoker: rank {self.rank}: {reason}\n")
        sys.stderr.flush()
        clock.sleep(_FORWARD_SECONDS)
        self._world.Abort(EXIT_FAILED)
        raise SystemExit(EXIT_FAILED)


def _padded(numbers: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.array([*numbers, *[0] * (_NUMBERS - len(numbers))], np.int64)


def abort_all(reason: str) -> NoReturn:
    """End this run from any thread, whether its ranks have met or not."""
    if world.cache_info().currsize:
        world().abort_surely(reason)
    sys.stderr.write(f"stoker: {reason}\n")
    sys.stderr.flush()
    os._exit(EXIT_FAILED)


@cache
def world() -> MpiComm:
    """Return this process's only communicator: all ranks must come here. Raises MissingExtraError."""
    return MpiComm()
