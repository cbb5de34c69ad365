"""A dataset made by the ranks of a launcher: each rank its share, and the first one completes the split.

Rank r of P makes the files r, r + P, …; what is there already is kept, so that the same call completes what was cut
short. All hosts must see the target.
"""

import os
import sys
from pathlib import Path
from typing import Final

import msgspec

from stoker.bench.report.dlio_files import write_hydra_files
from stoker.bench.run.credentials import apply_credentials
from stoker.bench.run.dlio import to_plan
from stoker.bench.run.hosts.control import attend, leave
from stoker.bench.run.hosts.sources import local_name
from stoker.bench.run.launch_mpi import MpiComm, abort_all, world
from stoker.bench.run.mlperf.generation_news import Telling
from stoker.bench.run.mlperf.prepare import Prepared
from stoker.bench.run.mlperf.words import CONFIG_FOLDER
from stoker.bench.run.process import die_with_parent
from stoker.core.errors import EXIT_GOOD, NotFoundError, StokerError
from stoker.core.plan import DatasetSpec
from stoker.core.units import format_bytes, format_seconds
from stoker.loader.dataset.generate import GenerateOptions, GenerateReport, commit, generate
from stoker.loader.dataset.manifest_file import load_manifest
from stoker.storage.api import Store
from stoker.storage.opening import open_store

_PROGRAM: Final = "from stoker.bench.run.mlperf.generating import main; main()"


class Share(msgspec.Struct, frozen=True):
    """What every rank is told: where, and which splits, each with the number of files of the splits before it."""

    url: str
    splits: tuple[tuple[DatasetSpec, int], ...]


def generation_program(prepared: Prepared, leaf: Path) -> list[str]:
    """Return the program that every rank runs; the configuration goes to the leaf as the engine writes it."""
    assert prepared.config is not None
    run = to_plan(prepared.config, prepared.invocation.ranks)
    apply_credentials(run.credentials)
    write_hydra_files(leaf / CONFIG_FOLDER, run.documents)
    share = msgspec.json.encode(Share(run.data_url, run.datasets)).decode()
    return program_words(share)


def program_words(share: str) -> list[str]:
    """Return the words of a rank's program; `share` is what it is told."""
    return [sys.executable, "-P", "-c", _PROGRAM, share]


def main() -> None:
    """Make this rank's share. The process ends with 0, or MPI ends all ranks with the reason on stderr."""
    die_with_parent(os.getppid())
    comm = world()
    if comm.rank == 0:
        attend(lambda reason: abort_all(f"who started the ranks is gone: {reason}"))
    try:
        share = msgspec.json.decode(sys.argv[-1], type=Share)
        for spec, before in share.splits:
            _make(comm, share.url, spec, before)
    except StokerError as error:
        comm.abort(str(error))
    except BaseException as error:  # the others must not wait for this rank
        comm.abort(f"{type(error).__name__}: {error}")
    leave(EXIT_GOOD)


def _make(comm: MpiComm, url: str, spec: DatasetSpec, before: int) -> None:
    store = open_store(url, create=True)
    try:
        options = GenerateOptions(rank=comm.rank, world=comm.size, files_before=before, check_space=comm.rank == 0)
        telling = Telling(comm, spec.files, local_name())
        report = generate(store, spec, options, progress=telling.progress) if comm.rank < spec.files else None
        share = len(range(comm.rank, spec.files, comm.size))
        telling.ended(share, report.bytes_made if report is not None else 0)
        told = comm.gather(msgspec.json.encode(report))
        if told is not None:
            reports = [
                each for each in (msgspec.json.decode(data, type=GenerateReport | None) for data in told) if each
            ]
            _complete(store, spec, before, reports, comm.size)
        comm.barrier()
    finally:
        store.close()


def _complete(store: Store, spec: DatasetSpec, before: int, reports: list[GenerateReport], ranks: int) -> None:
    """Commit the split, unless it was whole before, and tell what was made."""
    made, adopted = sum(each.files_made for each in reports), sum(each.files_adopted for each in reports)
    if ranks > 1 and (made or adopted or not _committed(store, spec)):
        commit(store, spec, files_before=before)
    seconds = max(each.seconds for each in reports)
    told = format_bytes(sum(each.bytes_total for each in reports))
    kept = spec.files - made
    sys.stdout.write(
        f"{spec.split}: {made} files made by {ranks} ranks, {kept} were there: {told} in {format_seconds(seconds)}\n"
    )
    sys.stdout.flush()


def _committed(store: Store, spec: DatasetSpec) -> bool:
    try:
        load_manifest(store, spec.split)
    except NotFoundError:
        return False
    return True
