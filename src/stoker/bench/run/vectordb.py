"""A run on a collection from its target to its result: serve, load, make ready, query."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec

from stoker.bench.run.conduct import conduct
from stoker.bench.run.folders import make_run_folder, new_run_folder, results_kept_in
from stoker.bench.run.launch_mpi import choose_launcher
from stoker.bench.run.plan import Settings
from stoker.bench.run.telling import OnProgress
from stoker.bench.run.vectors.places import Placed, packed_address
from stoker.bench.run.vectors.planning import loading
from stoker.bench.run.vectors.preparing import is_loaded, looked_at, ready
from stoker.bench.run.vectors.sweeping import efforts_for
from stoker.core.plan import Job, TrainingPlan
from stoker.core.result import Result
from stoker.core.vectors import VectorPlan
from stoker.vectors.engine import Address, VectorEngine, engine_kind

NO_TARGET = "null://"
"""What the ranks open of a store: nothing, for the database does the reading."""


class Watching(msgspec.Struct):
    """Who is told: how far a run is, and a sentence now and then."""

    on_progress: OnProgress | None = None
    say: Callable[[str], None] = lambda _: None


class Ran(msgspec.Struct):
    """A result and its folder."""

    result: Result
    folder: Path


def run_vectordb(job: Job, settings: Settings, plan: TrainingPlan, placed: Placed, watching: Watching) -> list[Ran]:
    """Do what the settings say, and return the results in their order: of the loading, if any, and of each search.

    A loading that was not complete is the last. Raises what the engine raises, and what `conduct` does.
    """
    kind = engine_kind(placed.engine)
    with kind.serve(placed.address) as address:
        run = _Run(job, settings, _at(plan, address), watching)
        ran = run.load_if_wanted(address, single_writer=kind.single_writer)
        if settings["load"].value == "only" or (ran and ran[-1].result.status != "complete"):
            return ran
        return [*ran, *run.search(address)]


def _at(plan: TrainingPlan, address: Address) -> TrainingPlan:
    assert plan.vectors is not None
    return _with(plan, msgspec.structs.replace(plan.vectors, address=packed_address(address)))


def _with(plan: TrainingPlan, what: VectorPlan) -> TrainingPlan:
    return msgspec.structs.replace(plan, vectors=what)


class _Run:
    """One command."""

    def __init__(self, job: Job, settings: Settings, plan: TrainingPlan, watching: Watching) -> None:
        assert plan.vectors is not None
        self._job, self._settings, self._plan, self._watching = job, settings, plan, watching
        self._what = plan.vectors
        self._kind = engine_kind(self._what.engine)

    def load_if_wanted(self, address: Address, *, single_writer: bool) -> list[Ran]:
        """Load the collection where it is to be loaded."""
        how = self._settings["load"].value
        if how == "never":
            return []
        with closing(self._kind.open(address)) as engine:
            if not self._settings["force"].value and is_loaded(engine, self._what):
                self._watching.say(f"{self._what.collection} holds the vectors already")
                return []
        over_mpi = choose_launcher(self._plan.launcher)[0] == "mpi" if self._plan.launcher != "tcp" else True
        plan = loading(self._plan, self._plan.ranks if over_mpi else 1)
        if single_writer and plan.ranks > 1:
            self._watching.say(f"{self._what.engine} takes insertions from one process: the first does them all")
        folder = self._folder("load", single=how == "only")
        with results_kept_in(folder):
            result = conduct(self._job, plan, NO_TARGET, folder, progress=self._watching.on_progress)
        return [Ran(result, folder)]

    def search(self, address: Address) -> list[Ran]:
        """Make ready, then query: once, or once for each recall of a sweep."""
        with closing(self._kind.open(address)) as engine:
            what, facts = looked_at(engine, self._what)
            plan = _with(self._plan, what)
            targets = list(dict.fromkeys(self._settings["sweep"].value or ()))
            folder = self._folder("search", single=len(targets) < 2)
            self._ready(engine, what, folder)
            efforts = efforts_for(engine, what, facts, folder, targets) if targets else {}
        if not targets:
            return [self._conduct(plan, folder)]
        found = []
        for at, (target, effort) in enumerate(efforts.items()):
            self._watching.say(f"recall {target:g}: --search-ef {effort}")
            own = msgspec.structs.replace(what, effort=effort, recall_target=target)
            found.append(self._conduct(_with(plan, own), folder if at == 0 else self._again(folder, at)))
        return found

    def _again(self, first: Path, number: int) -> Path:
        """Return the folder of a further search with the exact answers of the first."""
        folder = make_run_folder(first.with_name(f"{first.name}-{number + 1}"))
        for name in ("truth.npz", "vector_facts.json"):
            (folder / name).write_bytes((first / name).read_bytes())
        return folder

    def _ready(self, engine: VectorEngine, what: VectorPlan, folder: Path) -> None:
        settings = self._settings
        self._watching.say(f"working out the exact answers to {what.queries_made} queries")
        ready(
            engine,
            what,
            engine.describe(what.collection),
            folder,
            flat=settings["gt_collection"].value or "",
            truth=settings["truth"].value or "",
            say=self._watching.say,
        )

    def _conduct(self, plan: TrainingPlan, folder: Path) -> Ran:
        with results_kept_in(folder):
            return Ran(conduct(self._job, plan, NO_TARGET, folder, progress=self._watching.on_progress), folder)

    def _folder(self, label: str, *, single: bool) -> Path:
        told = self._settings["run_folder"].value
        if told:
            return make_run_folder(Path(told) if single else Path(told) / label)
        return new_run_folder(self._settings["results"].value, f"vectordb-{label}-{self._plan.model}")
