"""Making a split: the files of one rank, and the commit that completes it.

The order of the puts is the safety: marker, then per file its companions and the file, then journal parts, then,
when every file is made, the manifest. A kill at any moment leaves a split that the same call completes.
"""

import threading
from contextlib import suppress

import msgspec
import numpy as np

from stoker.core.clock import monotonic_ns
from stoker.core.errors import CorruptError, NoSpaceError, PreflightError, StokerError, UsageError
from stoker.core.plan import DatasetSpec
from stoker.core.units import format_bytes
from stoker.loader.dataset.crew import Crew
from stoker.loader.dataset.journal import Journal, Made, delete_parts
from stoker.loader.dataset.manifest_file import save_manifest
from stoker.loader.dataset.marker import Marker, begin, check_same, inspect, read_marker
from stoker.loader.dataset.naming import FileKeys, file_key
from stoker.loader.dataset.progress import Meter, OnProgress
from stoker.loader.dataset.recipe import Recipe
from stoker.loader.dataset.remove import remove
from stoker.loader.dataset.survey import Survey, check_space, free_bytes
from stoker.loader.dataset.verify import VerifyReport, verify
from stoker.loader.dataset.writing import GROUP_FILES, FileMaker
from stoker.loader.manifest import Manifest
from stoker.storage.api import Store


class GenerateOptions(msgspec.Struct, frozen=True):
    """How to generate; none of it changes a byte of the dataset but `files_before`.

    rank, world     this call makes files rank, rank + world, …; with a world above 1, `commit` completes the split
    threads         files under way at once
    files_before    the training files, for a validation split whose shapes continue theirs
    verify_after    read everything back and compare
    force           remove a split of ours that is in the way, first
    check_space     predict what is needed on a local store and refuse when it does not fit
    trust_journal   when resuming, do not list what is there: faster for many millions of files, but a file that was
                    deleted or cut since is not noticed
    """

    rank: int = 0
    world: int = 1
    threads: int = 4
    files_before: int = 0
    verify_after: bool = False
    force: bool = False
    check_space: bool = True
    trust_journal: bool = False


class GenerateReport(msgspec.Struct, frozen=True):
    """What one call did. `files_total` and `bytes_total` are of the rank's share; made, adopted and kept add up to it.

    adopted     files that an interrupted call had finished without recording: compared byte by byte and taken over
    complete    the manifest is put
    """

    files_total: int
    files_made: int
    files_adopted: int
    files_kept: int
    bytes_total: int
    bytes_made: int
    seconds: float
    retries: int
    complete: bool
    verification: VerifyReport | None = None
    notes: tuple[str, ...] = ()

    @property
    def bytes_per_second(self) -> float:
        """Return the rate at which new files were made."""
        return self.bytes_made / self.seconds if self.seconds > 0 else 0.0


DEFAULTS = GenerateOptions()


def generate(
    store: Store,
    spec: DatasetSpec,
    options: GenerateOptions = DEFAULTS,
    *,
    progress: OnProgress | None = None,
) -> GenerateReport:
    """Make the rank's missing files of the split, and complete it when there is but one rank.

    May be repeated: what is finished is kept. An exception, a signal's included, leaves a split that the same call
    completes. `progress` is called on this thread, twice a second at most.

    Raises UsageError (bad spec; the place holds another spec's split, or files that are not ours), PreflightError
    (not enough space), NoSpaceError with the bytes needed and free, CorruptError when `verify_after` finds damage,
    and what else the store raises.
    """
    start_ns = monotonic_ns()
    recipe, survey, marker = prepare(store, spec, options)
    kept = int(survey.done.sum())
    work = _Work(store, recipe, survey, Journal(store, marker, options.rank))
    work.run(options.threads, progress)
    verification = _verified(store, recipe, survey, options, progress) if options.verify_after else None
    if options.world == 1 and not (survey.committed and kept == spec.files):
        commit(store, spec, files_before=options.files_before)
    return GenerateReport(
        files_total=len(survey.share),
        files_made=work.made,
        files_adopted=work.adopted,
        files_kept=kept,
        bytes_total=int(survey.sizes_bytes.sum()),
        bytes_made=work.made_bytes,
        seconds=(monotonic_ns() - start_ns) / 1e9,
        retries=work.retries,
        complete=options.world == 1,
        verification=verification,
        notes=(*survey.notes, *store.capabilities.notes),
    )


def prepare(store: Store, spec: DatasetSpec, options: GenerateOptions) -> tuple[Recipe, Survey, Marker]:
    """Check everything, see what is there, and make the split ours. Raises as `generate` does.

    But for `force`, nothing is touched before all is found in order.
    """
    _check_options(store, options)
    recipe = Recipe(spec, files_before=options.files_before)
    if options.force:
        make_way(store, spec.split)
    share = range(options.rank, spec.files, options.world)
    marker = inspect(store, recipe)
    if marker is None:
        if options.check_space:
            check_space(store, recipe, share)
        return recipe, Survey(share), begin(store, recipe)
    survey = Survey(share)
    survey.read_journal(store, recipe, marker)
    if not options.trust_journal:
        survey.look(store, recipe)
    if options.check_space and not survey.done.all():
        check_space(store, recipe, share, survey.there_bytes)
    return recipe, survey, marker


def make_way(store: Store, split: str) -> None:
    """Remove a split of ours; nothing happens where there is none. Ranks: call this once, before all of them start."""
    if read_marker(store, split) is not None:
        remove(store, split)


def _check_options(store: Store, options: GenerateOptions) -> None:
    if not (0 <= options.rank < options.world and options.threads >= 1):
        raise UsageError(
            "generation cannot be shared so",
            expected="a rank below the world, and at least 1 thread",
            got=f"rank {options.rank} of {options.world}, {options.threads} threads",
        )
    if options.force and options.world > 1:
        raise UsageError(
            "one rank cannot remove what the others write", remedy="call make_way once, before the ranks start"
        )
    if store.capabilities.io_mode == "null":
        raise UsageError("this store keeps nothing, a dataset cannot lie there", where=store.url)


class _Work:
    """One rank's making of files, and what came of it."""

    def __init__(self, store: Store, recipe: Recipe, survey: Survey, journal: Journal) -> None:
        self._store = store
        self._recipe = recipe
        self._survey = survey
        self._journal = journal
        self.made = self.adopted = self.made_bytes = self.retries = 0

    def run(self, threads: int, progress: OnProgress | None) -> None:
        """Make what is missing; whatever happens, what was finished is in the journal where the store allows."""
        survey, recipe = self._survey, self._recipe
        done = survey.done
        meter = Meter("make", len(survey.share), recipe.payload_bytes(survey.share), progress)
        meter.add(int(survey.sizes_bytes[done].sum()), files=int(done.sum()), worked=False)
        stop = threading.Event()
        maker = FileMaker(self._store, recipe, stop)

        def work(indices: list[int]) -> list[Made | Exception]:
            if survey.present(indices[0]):
                return [maker.adopt(index) for index in indices]
            return maker.make_group(indices)

        def on_made(outcomes: list[Made | Exception]) -> None:
            for made in outcomes:
                if isinstance(made, Made):
                    self._take(made)
                    meter.add(made.size_bytes, worked=not made.adopted)
            for error in outcomes:
                if isinstance(error, Exception) and not stop.is_set():  # else another error is on its way already
                    raise error

        def on_tick() -> None:
            self._journal.tick()
            meter.tick()

        missing = int((~done).sum())
        threads = max(1, min(threads, missing))
        files_max = max(1, min(GROUP_FILES, missing // (8 * threads)))
        groups = maker.groups(survey.missing(), alone=survey.present, files_max=files_max)
        try:
            Crew(work, threads=threads, stop=stop).run(groups, on_result=on_made, on_tick=on_tick)
        except BaseException as error:
            with suppress(StokerError):
                self._journal.flush()
            if isinstance(error, NoSpaceError):
                raise self._no_space(error) from error
            raise
        self._journal.flush()
        meter.tick(now=True)

    def _take(self, made: Made) -> None:
        self._journal.add(made)
        position = self._survey.share.index(made.index)
        self._survey.sizes_bytes[position] = made.size_bytes
        self._survey.checksums[position] = made.checksum
        self.retries += made.retries
        if made.adopted:
            self.adopted += 1
        else:
            self.made += 1
            self.made_bytes += made.size_bytes

    def _no_space(self, error: NoSpaceError) -> NoSpaceError:
        """Return the store's error with what is still needed, what is free, and that nothing is lost."""
        survey = self._survey
        done_bytes = int(survey.sizes_bytes[survey.done].sum())
        needed = max(0, self._recipe.predict(survey.share).file_bytes - done_bytes) * survey.share.step
        free = free_bytes(self._store)
        return NoSpaceError(
            error.what,
            where=error.where,
            expected=f"{needed} bytes ({format_bytes(needed)}) for the files still to be made",
            got=error.got if free is None else f"{free} bytes ({format_bytes(free)}) free",
            remedy=f"{error.remedy or 'free space'}; then run the same again: finished files are kept",
        )


def _verified(
    store: Store, recipe: Recipe, survey: Survey, options: GenerateOptions, progress: OnProgress | None
) -> VerifyReport:
    """Read the share back. Raises CorruptError for the first damage."""
    manifest = _manifest(recipe, survey)
    report = verify(store, manifest, threads=options.threads, progress=progress)
    if not report.good:
        damage = report.damages[0]
        raise CorruptError(
            "generated files read back damaged",
            where=f"{store.url} {damage.key}",
            expected=damage.expected,
            got=damage.got,
            remedy=f"{len(report.damages)} files are; check the device, delete them and run the same again",
        )
    return report


def _manifest(recipe: Recipe, survey: Survey) -> Manifest:
    spec = recipe.spec
    samples = np.broadcast_to(np.int64(spec.samples_per_file), (len(survey.share),))
    manifest = Manifest(
        spec.format,
        FileKeys(spec, survey.share),
        survey.sizes_bytes,
        samples,
        survey.checksums,
        spec=spec,
        options=spec.options,
    )
    manifest.files_before, manifest.side_suffixes = recipe.files_before, recipe.side_suffixes
    return manifest


def commit(store: Store, spec: DatasetSpec, *, files_before: int = 0) -> Manifest:
    """Complete the split: put the manifest from all ranks' journal parts, then remove the parts. Return it.

    One rank calls it when all are through. Raises PreflightError when files are missing, UsageError when the split
    was begun with another spec or not at all.
    """
    recipe = Recipe(spec, files_before=files_before)
    marker = read_marker(store, spec.split)
    if marker is None:
        raise UsageError("split was never begun", where=f"{store.url} {spec.split}", remedy="generate it first")
    check_same(store, recipe, marker)
    survey = Survey(range(spec.files))
    survey.read_journal(store, recipe, marker)
    missing = int((~survey.done).sum())
    if missing:
        raise PreflightError(
            "split is not complete",
            where=f"{store.url} {file_key(spec, next(survey.missing()))}",
            expected=f"{spec.files} files",
            got=f"{spec.files - missing}",
            remedy="run the generation again with the same settings: it makes what is missing",
        )
    manifest = _manifest(recipe, survey)
    save_manifest(store, spec.split, manifest)
    delete_parts(store, spec.split)
    return manifest
