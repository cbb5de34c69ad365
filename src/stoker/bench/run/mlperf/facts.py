"""What the metadata of a leaf say of the command that made it."""

from typing import Any, Final

from stoker.bench.report.submission import LeafFacts
from stoker.bench.run.mlperf.prepare import Prepared
from stoker.bench.run.mlperf.rows import CHECKPOINTING, KVCACHE, VECTORDB
from stoker.bench.run.mlperf.vectors import collection_of

_PLACES: Final = {CHECKPOINTING: "checkpoint_folder", KVCACHE: "cache_dir", VECTORDB: "storage_root"}


def leaf_facts(prepared: Prepared, stamp: str, **more: Any) -> LeafFacts:
    """Return what the metadata of a leaf say of the command; `more` is what only its end tells."""
    invocation = prepared.invocation
    place = invocation.place
    arguments = invocation.arguments
    if prepared.results is not None:
        arguments["results_dir"] = str(prepared.results.root)
    if place.family == VECTORDB and place.command != "datasize":
        arguments["collection"] = collection_of(invocation, prepared.results)
    if prepared.data is not None:
        name = _PLACES.get(place.family, "data_dir")
        arguments[name] = prepared.data.url
    return LeafFacts(
        family=place.rules_family,
        command=place.command,
        division=place.division,
        org=prepared.home.org,
        system=prepared.system,
        stamp=stamp,
        accelerator=str(invocation.value("accelerator_type") or ""),
        args=arguments,
        overrides=invocation.overrides,
        config=prepared.workload,
        ranks=invocation.ranks,
        **{"model": prepared.model, "parameters": _parameters(prepared), **more},
    )


def _parameters(prepared: Prepared) -> dict[str, Any]:
    """Return the numbers that were settled by the tool: what is below `dataset` of the words."""
    found = {word.key.partition(".")[2]: int(word.value) for word in prepared.extent.words.values()}
    return {"dataset": found} if found else {}
