"""What the rules can tell before a run: which hold, and which a run as asked for would break. Pure."""

import os
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from stoker.bench.rules.mlperf.catalogue import RULES
from stoker.bench.rules.mlperf.formulas import bytes_of_gib, checkpoint_bytes
from stoker.bench.rules.mlperf.sizing import training_size
from stoker.bench.rules.mlperf.tables import CLOSED, OPEN, models, override_breach
from stoker.bench.run.mlperf.lookup import EDITION
from stoker.bench.run.mlperf.resolving import Invocation
from stoker.bench.run.mlperf.rows import CHECKPOINTING, KVCACHE, TRAINING
from stoker.bench.run.mlperf.storing import DataPlace
from stoker.core.units import format_bytes

ACCELERATORS_A_HOST_MIN: Final = 4
_GIGA: Final = 1_000_000_000
_OVERRIDES: Final = {
    (TRAINING, CLOSED): "3.6.2",
    (TRAINING, OPEN): "3.6.3",
    (CHECKPOINTING, CLOSED): "4.6.3",
    (CHECKPOINTING, OPEN): "4.6.4",
}
"""The rule that limits what may be changed. A what-if is held to what open allows."""
HOLDS: Final = "holds"
BROKEN: Final = "broken"
AFTER: Final = "after the run"


class Foretold(msgspec.Struct, frozen=True):
    """A rule before the run. `state` is holds, broken, or after the run: only what is measured can tell."""

    rule: str
    state: str
    observed: str = ""
    required: str = ""

    @property
    def counts(self) -> bool:
        """Tell whether a run must not start with it: the rule is broken, and is no mere warning."""
        rule = RULES.get(self.rule)
        return self.state == BROKEN and (rule is None or rule.severity == "error")

    @property
    def told(self) -> str:
        """Return it as a sentence with the rule's number and name."""
        rule = RULES.get(self.rule)
        name = f"{self.rule} {rule.name}" if rule is not None else self.rule
        more = f"; required: {self.required}" if self.required else ""
        return f"[{name}] {self.observed}{more}"


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What was found out for this: the files the run reads, those sized and generated, measured memory (all hosts)."""

    files: int | None = None
    files_sized: int | None = None
    files_made: int | None = None
    measured_memory_bytes: float | None = None
    data: DataPlace | None = None
    results_dir: str = ""


def foretell(invocation: Invocation, known: Known) -> list[Foretold]:
    """Return every rule of the family and division: broken ones first, those that hold, those only a run can tell."""
    place = invocation.place
    division = CLOSED if place.division == CLOSED else OPEN
    broken = list(_faults(invocation, known))
    seen = {each.rule for each in broken}
    checked = _checked(invocation, known)
    told = []
    for rule in RULES.values():
        concerned = EDITION in rule.editions and division in rule.divisions
        if not concerned or rule.family != place.rules_family or rule.id in seen or not rule.decidable:
            continue
        told.append(Foretold(rule.id, HOLDS if rule.id in checked else AFTER, rule.tested))
    return [*broken, *sorted(told, key=lambda each: each.state == AFTER)]


def _checked(invocation: Invocation, known: Known) -> set[str]:
    """Return the rules that `_faults` looked at to the end."""
    place = invocation.place
    division = CLOSED if place.division == CLOSED else OPEN
    rules = {_OVERRIDES.get((place.family, division), "")}
    if place.family == TRAINING:
        rules |= (
            {"3.3.6", "3.4.1"}
            | ({"2.1.11"} if place.division != "whatif" else set())
            | ({"3.3.1"} if known.files is not None else set())
        )
    if place.family == CHECKPOINTING:
        rules |= {"4.3.4", "4.3.5", "4.4.1", "4.6.1", "4.6.2"}
    return rules


def _faults(invocation: Invocation, known: Known) -> Iterator[Foretold]:
    yield from _override_faults(invocation)
    if invocation.place.command != "run" or not invocation.ranks:
        return
    yield from _path_faults(invocation, known)
    if invocation.place.family == TRAINING:
        yield from _file_faults(invocation, known)
        yield from _spread_faults(invocation)
    if invocation.place.family == CHECKPOINTING:
        yield from _checkpoint_faults(invocation)
    if invocation.place.family == KVCACHE and invocation.ranks and invocation.ranks % invocation.host_count:
        yield Foretold(
            "6.3.3.1", BROKEN, f"{invocation.ranks} processes on {invocation.host_count} hosts", "as many on each"
        )


def _override_faults(invocation: Invocation) -> Iterator[Foretold]:
    place = invocation.place
    division = CLOSED if place.division == CLOSED else OPEN
    rule = _OVERRIDES.get((place.family, division), "5.6.4" if division == CLOSED else "5.6.5")
    given = dict(invocation.overrides)
    if invocation.value("o_direct"):
        given["reader.odirect"] = "True"
    for key, value in given.items():
        breach = override_breach(place.rules_family, division, place.model, key, value)
        if breach:
            yield Foretold(rule, BROKEN, f"{key}={value}: {breach}", f"only what {division} allows")


def _path_faults(invocation: Invocation, known: Known) -> Iterator[Foretold]:
    if known.data is None or not known.data.folder or not known.results_dir:
        return
    one, other = (os.path.realpath(path) for path in (known.data.folder, known.results_dir))
    if f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/"):
        rule = "3.4.1" if invocation.place.family == TRAINING else "4.4.1"
        yield Foretold(rule, BROKEN, f"{one} and {other}", "neither in the other")


def _file_faults(invocation: Invocation, known: Known) -> Iterator[Foretold]:
    memory, kind = invocation.value("client_host_memory_in_gb"), invocation.value("accelerator_type")
    if known.files is None or memory is None or kind is None:
        return
    size = training_size(
        invocation.place.model,
        str(kind),
        accelerators=invocation.ranks,
        hosts=invocation.host_count,
        memory_bytes_per_host=bytes_of_gib(memory),
        measured_memory_bytes=known.measured_memory_bytes,
    )
    if known.files < size.files:
        yield Foretold("3.3.1", BROKEN, f"{known.files:,} files", f"at least {size.sentence}")
    if known.files_sized is not None and known.files < known.files_sized:
        yield Foretold("3.3.1", BROKEN, f"{known.files:,} files", f"at least {known.files_sized:,}, as datasize told")
    if known.files_made is not None and known.files > known.files_made:
        yield Foretold("3.3.1", BROKEN, f"{known.files:,} files", f"at most {known.files_made:,}, as were generated")


def _spread_faults(invocation: Invocation) -> Iterator[Foretold]:
    slots = {host.slots for host in invocation.hosts}
    if invocation.ranks % invocation.host_count or len(slots) > 1:
        told = f"{invocation.ranks} accelerators on {invocation.host_count} clients"
        yield Foretold("3.3.6", BROKEN, told, "as many on each")


def _checkpoint_faults(invocation: Invocation) -> Iterator[Foretold]:
    model, ranks = models().checkpointing[invocation.place.model], invocation.ranks
    subset = bool(invocation.value("checkpoint_subset"))
    if subset and (not model.subset_ranks or ranks != model.subset_ranks):
        yield Foretold("4.3.5", BROKEN, f"a subset of {ranks} ranks", "llama3-8b with exactly 8 ranks")
    elif invocation.place.division == CLOSED and ranks != model.processes:
        yield Foretold("4.6.1", BROKEN, f"{ranks} processes", f"{model.processes}")
    elif invocation.place.division != CLOSED and ranks % model.open_multiple:
        yield Foretold("4.6.4", BROKEN, f"{ranks} processes", f"a multiple of {model.open_multiple}")
    each = models().accelerator_memory_gb.get(str(invocation.value("accelerator_type")))
    if each is not None and ranks * each * _GIGA < checkpoint_bytes(model):
        told = f"{ranks} x {invocation.value('accelerator_type')} hold {format_bytes(ranks * each * _GIGA)}"
        yield Foretold("4.3.4", BROKEN, told, f"at least {format_bytes(checkpoint_bytes(model))}")
    fewest = ranks // invocation.host_count
    if invocation.place.division == CLOSED and fewest < ACCELERATORS_A_HOST_MIN:
        yield Foretold("4.6.2", BROKEN, f"{fewest} accelerators a host", f"at least {ACCELERATORS_A_HOST_MIN}")


def sorted_by_state(told: list[Foretold]) -> Mapping[str, list[Foretold]]:
    """Return them by state."""
    return {state: [each for each in told if each.state == state] for state in (BROKEN, HOLDS, AFTER)}
