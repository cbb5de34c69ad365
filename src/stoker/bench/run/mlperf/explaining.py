"""Which value of an option or of a workload's key won in a command of `stoker mlperf`, and over which others."""

from collections.abc import Mapping
from typing import Any

from stoker.bench.run.dlio import TABLE, compose
from stoker.bench.run.dlio.tree import Leaf, find
from stoker.bench.run.explaining import (
    Explained,
    bare_key,
    explain_option,
    leaf_candidates,
    named,
    unknown,
)
from stoker.bench.run.mlperf.lookup import options_of
from stoker.bench.run.mlperf.prepare import prepare
from stoker.bench.run.mlperf.resolving import Place, resolve_invocation
from stoker.bench.run.mlperf.words import template
from stoker.core.options import Candidate


def explain_mlperf(place: Place, flags: Mapping[str, Any], environment: Mapping[str, str], key: str) -> Explained:
    """Return what became of an option, or of a dotted key below `workload`.

    Raises UnknownNameError for a key that neither has, UsageError for values that are bad. What is needed and missing
    is no error here.
    """
    invocation = resolve_invocation(place, flags, environment, strict=False)
    options = options_of(place.division, place.family, place.model, place.command, place.access)
    option = named(options, key)
    if option is not None and option.name != "params":
        return explain_option(option, invocation.found[option.name], "--config-file")
    path = bare_key(key)
    known = [each.name for each in options]
    if "." not in path and path not in ("framework",):
        raise unknown(key, known)
    quiet = {**flags, "dry_run": True}
    prepared = prepare(resolve_invocation(place, quiet, environment, strict=False), environment)
    if prepared.config is None:
        raise unknown(key, known)
    chain = list(invocation.params.get(path, ()))
    chain += [
        Candidate(word.value, word.origin, word.where) for word in prepared.words if word.key == path and not chain
    ]
    sized, made = prepared.extent.sized, prepared.extent.made
    if path == "dataset.num_files_train":
        chain += _further(chain, sized.files if sized else None, "datasize", sized.where if sized else "")
        chain += _further(chain, made.files if made else None, "manifest", prepared.data.url if prepared.data else "")
    node = find(compose([f"workload={template(invocation)}"])[0].workload, path.split("."))
    chain += leaf_candidates(node if isinstance(node, Leaf) else None)
    row = next((row for row in TABLE.rows if row.path == path), None)
    if row is not None:
        chain.append(Candidate(row.default, "default", "DLIO's table"))
    if not chain:
        raise unknown(path, sorted(prepared.config.values))
    found = prepared.config.values.get(path)
    ways = ("--params", "--config-file") if "params" in invocation.settings else ()
    return Explained(
        path, found.value if found is not None else chain[0].value, tuple(chain), ways, row.meaning if row else ""
    )


def _further(chain: list[Candidate], value: int | None, origin: str, where: str) -> list[Candidate]:
    """Return a candidate that stands behind those that won, unless it is among them."""
    if value is None or any(each.origin == origin for each in chain):
        return []
    return [Candidate(value, origin, where)]
