"""`run vectordb`: from settings to the plans of loading a collection and of searching it. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from stoker.bench.run.hosts.names import parse_hosts
from stoker.bench.run.plan import Settings
from stoker.bench.run.vectors.places import Placed, check_name, packed_address
from stoker.core.errors import UsageError
from stoker.core.plan import DatasetSpec, Spread, TrainingPlan
from stoker.core.vectors import LOADING, QUERY_COUNT, SEARCHING, TIMED, IndexSpec, Recipe, VectorPlan
from stoker.vectors.engine import check_index, engine_kind, index_parameters
from stoker.vectors.making import check_recipe

QUERY_SEED_STEP: Final = 1000
_NONE: Final = DatasetSpec("none", files=0)
_SETTINGS: Final = {
    "max_degree": "max_degree",
    "search_list_size": "search_list_size",
    "inline_pq": "inline_pq",
    "M": "m",
    "efConstruction": "ef_construction",
    "nlist": "nlist",
}


def ranks_of(settings: Settings) -> int:
    """Return the query processes asked for: by `--processes`, else by the slots of `--hosts`."""
    if settings["processes"].value is not None:
        return int(settings["processes"].value)
    hosts = settings.get("hosts")
    if hosts is not None and hosts.value:
        return max(1, sum(host.slots for host in parse_hosts(hosts.value)))
    return 1


def recipe_of(settings: Settings) -> Recipe:
    """Return the recipe of the vectors. Raises UsageError for one that makes none."""
    recipe = Recipe(
        vectors=settings["vectors"].value,
        dimension=settings["dimension"].value,
        distribution=settings["distribution"].value,
        seed=settings["seed"].value,
    )
    check_recipe(recipe)
    return recipe


def index_of(settings: Settings, placed: Placed) -> IndexSpec:
    """Return the index asked for. Raises UsageError for one that the engine does not have."""
    kind = settings["index"].value.upper()
    told = {theirs: settings[ours].value for theirs, ours in _SETTINGS.items() if settings[ours].value is not None}
    index = IndexSpec(kind, settings["metric"].value, index_parameters(kind, told))
    check_index(engine_kind(placed.engine), placed.engine, index)
    return index


def collection_of(settings: Settings, recipe: Recipe, index: IndexSpec) -> str:
    """Return the collection's name: as told, or by what it holds. Raises UsageError for one that is no name."""
    name = settings["collection"].value or (
        f"mlps_{recipe.vectors}_{settings['shards'].value}shards_{recipe.dimension}dim_{recipe.distribution}"
        f"_{index.kind.lower()}"
    )
    check_name(name)
    return str(name)


def plan_vectors(settings: Settings, placed: Placed) -> TrainingPlan:
    """Return the plan of searching a collection of ours. Raises UsageError for what cannot be done."""
    recipe, index = recipe_of(settings), index_of(settings, placed)
    mode = QUERY_COUNT if settings["queries"].value else TIMED
    if settings["queries"].value and settings["duration"].value is not None:
        raise UsageError("--queries and --duration", remedy="give one of them")
    flat = settings["gt_collection"].value
    if flat:
        check_name(flat)
    if flat and settings["truth"].value:
        raise UsageError("--gt-collection and --truth", remedy="give one of them: a copy has its answers with it")
    k = settings["k"].value
    what = VectorPlan(
        work=SEARCHING,
        engine=placed.engine,
        address=packed_address(placed.address),
        database=placed.address.database,
        collection=collection_of(settings, recipe, index),
        recipe=recipe,
        index=index,
        shards=settings["shards"].value,
        insert_batch=settings["insert_batch"].value,
        chunk=settings["chunk_size"].value,
        query_seed=recipe.seed + QUERY_SEED_STEP,
        queries_made=settings["query_vectors"].value,
        k=k,
        effort=settings["search_ef"].value,
        batch=settings["batch_size"].value,
        mode=mode,
        seconds=settings["duration"].value or 60.0,
        queries=settings["queries"].value or 0,
        recall_k=settings["recall_k"].value or k,
        recall_target=settings["recall_target"].value,
        storage_root=settings["storage_root"].value or placed.address.uri,
        compact=settings["compact"].value,
        monitor_seconds=settings["monitor_interval"].value,
        ready_seconds=settings["ready_timeout"].value,
        rank_folder=settings["rank_output"].value or "",
        report_count=settings["report_count"].value,
    )
    return _framed(settings, what, placed)


def _framed(settings: Settings, what: VectorPlan, placed: Placed) -> TrainingPlan:
    told = settings["sample_hosts"].value
    raw = what.recipe.vectors * what.recipe.dimension * 4
    plan = TrainingPlan(
        model=what.index.kind,
        dataset=_NONE,
        ranks=ranks_of(settings),
        batch_size=0,
        computation=Spread(),
        target_url=placed.told,
        duration_seconds=what.seconds if what.mode == TIMED else 0.0,
        launcher=settings["launcher"].value,
        host_interval_seconds=settings["host_interval"].value,
        rank_deadline_seconds=settings["rank_deadline"].value,
        sample_hosts=tuple(host.name for host in parse_hosts(told)) if told else (),
        predicted={"vector_bytes": float(raw), "query_bytes": float(what.queries_made * what.recipe.dimension * 4)},
        vectors=what,
        notes=tuple(_notes(what)),
    )
    check_vectors(plan, what)
    return plan


def _notes(what: VectorPlan) -> Iterator[str]:
    if what.engine == "milvus-lite":
        yield "The database is Milvus Lite, whose indexes lie in memory: a search does not read the storage."


def loading(plan: TrainingPlan, ranks: int = 1) -> TrainingPlan:
    """Return the plan of loading the collection that `plan` searches."""
    assert plan.vectors is not None
    what = msgspec.structs.replace(plan.vectors, work=LOADING)
    return msgspec.structs.replace(plan, ranks=ranks, duration_seconds=0.0, vectors=what)


def check_vectors(plan: TrainingPlan, what: VectorPlan) -> None:
    """Raise UsageError for a plan that no run can follow."""
    checks: Mapping[str, tuple[bool, str, Any]] = {
        "ranks": (plan.ranks >= 1, "at least 1", plan.ranks),
        "k": (1 <= what.k <= what.recipe.vectors, f"1 to the {what.recipe.vectors} vectors", what.k),
        "recall_k": (1 <= what.recall_k <= what.k, f"1 to the {what.k} neighbours asked for", what.recall_k),
        "batch": (1 <= what.batch <= what.queries_made, f"1 to the {what.queries_made} queries", what.batch),
        "queries": (what.mode == TIMED or what.queries >= plan.ranks, "a query a process", what.queries),
        "seconds": (what.mode != TIMED or what.seconds > 0, "more than 0", what.seconds),
    }
    for name, (good, expected, got) in checks.items():
        if not good:
            raise UsageError("plan cannot be run", where=name, expected=expected, got=str(got))
