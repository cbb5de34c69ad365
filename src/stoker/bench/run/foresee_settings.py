"""From the settings of `stoker plan` to what is to be foreseen."""

import os
from typing import Any

from stoker.bench.rules.mlperf.tables import models
from stoker.bench.rules.mlperf.verifier import JobFacts
from stoker.bench.run.foresee import ForeseeRequest, Foresight, family_of, foresee
from stoker.bench.run.hosts.names import parse_hosts
from stoker.bench.run.plan import Settings
from stoker.core.errors import UsageError
from stoker.core.options import Setting
from stoker.core.plan import TrainingPlan


def foresee_settings(settings: Settings, target: str | None, plan: TrainingPlan | None) -> Foresight:
    """Return what the asked job will take; `plan` is that of a training run, over the dataset at `target` if any.

    Raises UsageError for what no job can be.
    """
    model = str(settings["model"].value)
    kind, _, count = str(settings["accelerator"].value or "").partition(":")
    hosts = parse_hosts(settings["hosts"].value) if settings["hosts"].value else ()
    family = family_of(model)
    slots = tuple(host.slots for host in hosts if host.slots)
    clients = settings["clients"].value or len(hosts) or 1
    job = JobFacts(
        family=family,
        model=model,
        edition=settings["edition"].value,
        division=settings["division"].value or "",
        accelerator=kind,
        processes=_processes(family, model, count, sum(slots), clients, plan),
        hosts=clients,
        slots=slots,
        overrides=_overrides(settings["override"]),
        memory_bytes_per_host=settings["client_memory"].value,
        files=plan.dataset.files if plan is not None and target is not None else None,
        files_made=plan.dataset.files if plan is not None and target is not None else None,
        needed_bytes=0 if plan is not None and target is not None else None,
        needed_files=0 if plan is not None and target is not None else None,
        subset=settings["subset"].value,
        writes=settings["writes"].value,
        reads=settings["reads"].value,
        data=_place(target or settings["place"].value or ""),
        results=os.path.abspath(settings["results"].value),  # noqa: PTH100 - Path.absolute keeps `..`
    )
    return foresee(
        ForeseeRequest(
            job=job,
            vectors=settings["vectors"].value,
            dimension=settings["dimension"].value,
            users=settings["users"].value,
            line_rate_bytes_per_second=settings["line_rate"].value,
            write_bytes_per_second=settings["write_rate"].value,
        )
    )


def _place(place: str) -> str:
    return place if not place or "://" in place else os.path.abspath(place)  # noqa: PTH100


def _processes(family: str, model: str, count: str, slots: int, clients: int, plan: TrainingPlan | None) -> int:
    """Return the processes: as told, else what the model's closed job has, else one a client."""
    if plan is not None:
        return plan.ranks
    if count and not (count.isdecimal() and len(count) < 8 and int(count)):
        raise UsageError("--accelerator: bad count", where=count, expected="KIND:COUNT such as b200:8")
    told = int(count) if count else slots
    return told or (models().checkpointing[model].processes if family == "checkpointing" else clients)


def _overrides(setting: Setting) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for word in setting.value or ():
        key, equals, value = str(word).partition("=")
        if not equals or not key:
            raise UsageError("--override: no value", where=word, expected="KEY=VALUE")
        found[key] = value
    return found
