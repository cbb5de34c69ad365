"""Which options a command has, and what the rules allow in its division: models, accelerators, indexes."""

from dataclasses import replace
from typing import Final

from stoker.bench.rules.mlperf.tables import CLOSED, OPEN, WHATIF, models, training_models
from stoker.bench.run.mlperf.families import ROWS
from stoker.bench.run.mlperf.rows import CHECKPOINTING, TRAINING, VECTORDB, Row
from stoker.core.options import Option

EDITION: Final = "3.0"
DIVISIONS: Final = (CLOSED, OPEN, WHATIF)


def positionals(division: str, family: str) -> tuple[str, ...]:
    """Return the models, or indexes, that may stand behind the family; none for the KV cache."""
    if family == TRAINING:
        return tuple(training_models(EDITION, division))
    if family == CHECKPOINTING:
        return tuple(models().checkpointing)
    return indexes(division) if family == VECTORDB else ()


def offered_in(family: str, name: str) -> str:
    """Return the divisions whose models, or indexes, hold the name: `open and whatif`; nothing where none does."""
    return " and ".join(division for division in DIVISIONS if name in positionals(division, family))


def accelerator_offered_in(family: str, model: str, name: str) -> str:
    """Return the divisions that offer an accelerator for a model, nothing where none does."""
    return " and ".join(division for division in DIVISIONS if name in accelerators(division, family, model))


def indexes(division: str) -> tuple[str, ...]:
    """Return the indexes of the vector database that a division has."""
    table = models().vector_database
    return tuple(dict.fromkeys((*table.closed_indexes, *(table.open_indexes if division != CLOSED else ()))))


def accelerators(division: str, family: str, model: str) -> tuple[str, ...]:
    """Return the accelerators that a division has for the model: those with a template, or, for checkpoints, those
    that any model of the division has one for."""
    legal = training_models(EDITION, division)
    if family == TRAINING:
        return legal.get(model, ())
    known = {kind for kinds in legal.values() for kind in kinds}
    return tuple(kind for kind in models().accelerator_memory_gb if kind in known)


def rows_of(division: str, family: str, command: str, access: str = "") -> list[Row]:
    """Return the rows of a command in the order of the table."""
    return [row for row in ROWS[family] if row.exists(division, command, access)]


def options_of(division: str, family: str, model: str, command: str, access: str = "") -> list[Option]:
    """Return the options of a command, each with the choices that the rules leave it in this division."""
    return [bounded(row, division, family, model) for row in rows_of(division, family, command, access)]


def bounded(row: Row, division: str, family: str, model: str) -> Option:
    """Return a row's option with the choices of the division."""
    choices = {
        "accelerator": lambda: accelerators(division, family, model),
        "engine": lambda: models().vector_database.closed_engines if division == CLOSED else (),
        "kv_model": lambda: models().kv_cache.models,
    }.get(row.limit, tuple)()
    return replace(row.option, choices=tuple(choices)) if choices else row.option


def needed(family: str, row: Row, command: str) -> bool:
    """Tell whether a command does not go without the option; datasize names the system for training alone."""
    if row.option.name == "systemname" and family == TRAINING:
        return True
    return command in row.needed
