"""What can be held against the rules before a job runs: its model, counts, sizes, overrides and places."""

import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from stoker.bench.rules.mlperf.checkpointing_checks import ACCELERATORS_PER_HOST_MIN, DECIMAL_GIGA
from stoker.bench.rules.mlperf.findings import Unknown
from stoker.bench.rules.mlperf.formulas import checkpoint_bytes
from stoker.bench.rules.mlperf.job_facts import INVALID, Issue, JobFacts
from stoker.bench.rules.mlperf.sizing import checkpoint_size, training_size
from stoker.bench.rules.mlperf.tables import CLOSED, OPEN, WHATIF, models, override_breach, training_models
from stoker.core.errors import UsageError
from stoker.core.units import format_bytes

Said = Issue | Unknown
AT_START: Final = "the gate tells when the run starts"


def unknown(reason: str) -> Unknown:
    """Return that a rule cannot be told yet."""
    return Unknown(reason, "")


def _overrides(rule: str) -> Callable[[JobFacts], Iterator[Said]]:
    """Return the check of what was changed: allowed in closed, in open alone, or nowhere."""

    def check(job: JobFacts) -> Iterator[Said]:
        for key, value in job.overrides.items():
            breach = override_breach(job.family, job.rules_division, job.model, key, value)
            if not breach:
                continue
            elsewhere = override_breach(job.family, OPEN, job.model, key, value)
            state = INVALID if elsewhere else OPEN
            yield Issue(rule=rule, validation=state, parameter=key, expected=breach, actual=str(value))

    return check


def known_model(job: JobFacts) -> Iterator[Said]:
    """The model and its accelerator are those of the division."""
    legal = training_models(job.edition, WHATIF if job.division in (WHATIF, "") else job.division)
    if job.model not in legal:
        expected = ", ".join(legal)
        yield Issue(rule="2.1.11", validation=INVALID, parameter="model", expected=expected, actual=job.model)
    elif job.accelerator not in legal[job.model]:
        expected, actual = ", ".join(legal[job.model]), job.accelerator or "none"
        yield Issue(rule="2.1.11", validation=INVALID, parameter="accelerator", expected=expected, actual=actual)


def known_checkpoint(job: JobFacts) -> Iterator[Said]:
    """The model is one of the four."""
    legal = models().checkpointing
    if job.model not in legal:
        yield Issue(rule="2.1.21", validation=INVALID, parameter="model", expected=", ".join(legal), actual=job.model)


def _minimum(job: JobFacts) -> tuple[int | None, str]:
    """Return the least files, and the sentence why; None where too little is known."""
    if job.memory_bytes_per_host is None:
        return None, "the clients' memory is not told"
    try:
        size = training_size(
            job.model,
            job.accelerator,
            accelerators=job.processes,
            hosts=job.hosts,
            memory_bytes_per_host=job.memory_bytes_per_host,
            measured_memory_bytes=job.measured_memory_bytes,
        )
    except UsageError as error:
        return None, str(error)
    return size.files, size.sentence


def generated_enough(job: JobFacts) -> Iterator[Said]:
    """As many files are generated as were sized, or as the rules ask for."""
    wanted, why = (job.files_sized, "as datasize told") if job.files_sized is not None else _minimum(job)
    made = job.files if job.command == "datagen" else job.files_made
    if made is None or wanted is None:
        yield unknown("the number of files generated is not known" if made is None else why)
    elif made < wanted:
        yield _files("3.2.1", made, f"at least {wanted:,}: {why}")


def _files(rule: str, count: int, expected: str) -> Issue:
    name = "dataset.num_files_train"
    return Issue(rule=rule, validation=INVALID, parameter=name, expected=expected, actual=f"{count:,}")


def enough_files(job: JobFacts) -> Iterator[Said]:
    """The run reads at least what the rules ask for, what was sized, and no more than was generated."""
    if job.command == "datagen":
        return
    least, why = _minimum(job)
    if job.files is None or least is None:
        yield unknown("the number of files is not known" if job.files is None else why)
        return
    if job.files < least:
        yield _files("3.3.1", job.files, f"at least {why}")
    elif job.files_sized is not None and job.files < job.files_sized:
        yield _files("3.3.1", job.files, f"at least {job.files_sized:,}, as datasize told")
    if job.files_made is not None and job.files > job.files_made:
        yield _files("3.3.1", job.files, f"at most {job.files_made:,}, as were generated")


def as_many_on_each(job: JobFacts) -> Iterator[Said]:
    """Every host has as many accelerators."""
    if job.processes % job.hosts or len(set(job.slots)) > 1:
        actual = f"{job.processes} on {job.hosts} hosts"
        yield Issue(
            rule="3.3.6", validation=INVALID, parameter="accelerators", expected="as many on each host", actual=actual
        )


def _paths(rule: str) -> Callable[[JobFacts], Iterator[Said]]:
    def check(job: JobFacts) -> Iterator[Said]:
        """Data and results are two places, and neither lies in the other."""
        if not job.data or not job.results:
            yield unknown("the places of data and results are not told")
            return
        one, other = job.data_folder, posixpath.normpath(job.results)
        if one and (f"{one}/".startswith(f"{other}/") or f"{other}/".startswith(f"{one}/")):
            expected = "neither in the other"
            yield Issue(
                rule=rule, validation=INVALID, parameter="data and results", expected=expected, actual=f"{one}, {other}"
            )

    return check


def _apart(rule: str) -> Callable[[JobFacts], Iterator[Said]]:
    def check(job: JobFacts) -> Iterator[Said]:
        """Data and results lie on two file systems."""
        if job.is_object:
            return
        if job.apart is None:
            yield unknown(AT_START)
        elif not job.apart:
            actual = f"{job.data_folder} and {job.results} lie on one"
            yield Issue(
                rule=rule, validation=INVALID, parameter="file systems", expected="two file systems", actual=actual
            )

    return check


def free_space(job: JobFacts) -> Iterator[Said]:
    """The target has room for what will be written."""
    if job.is_object:
        return
    if job.free_bytes is None or job.needed_bytes is None:
        yield unknown(AT_START)
        return
    if job.free_bytes < job.needed_bytes:
        missing = format_bytes(job.needed_bytes - job.free_bytes)
        expected = f"{format_bytes(job.needed_bytes)}: {missing} too little"
        yield _room("free space", expected, format_bytes(job.free_bytes))
    if job.free_files is not None and job.needed_files is not None and job.free_files < job.needed_files:
        yield _room("free inodes", f"{job.needed_files:,}", f"{job.free_files:,}")


def _room(parameter: str, expected: str, actual: str) -> Issue:
    return Issue(rule="CAP-01", validation=INVALID, parameter=parameter, expected=expected, actual=actual)


def shared(job: JobFacts) -> Iterator[Said]:
    """One host shares with itself; several are asked when the run starts."""
    if job.hosts > 1 and not job.is_object:
        yield unknown(AT_START)


def checkpoint_against_memory(job: JobFacts) -> Iterator[Said]:
    """A client writes three times its memory, or the caches are cleared between."""
    if not job.writes:
        yield unknown("nothing is written, and the writing job is not known")
        return
    if job.memory_bytes_per_host is None:
        yield unknown("the clients' memory is not told")
        return
    try:
        size = checkpoint_size(
            job.model,
            processes=job.processes,
            hosts=job.hosts,
            subset=job.subset,
            writes=job.writes,
            memory_bytes_per_host=job.memory_bytes_per_host,
        )
    except UsageError as error:
        yield unknown(str(error))
        return
    if size.cache_rule_held is False:
        yield Issue(
            rule="4.3.1",
            validation=CLOSED,
            parameter="bytes written a client",
            expected=f"at least 3 times its memory of {format_bytes(job.memory_bytes_per_host)}, or caches cleared",
            actual=format_bytes(size.written_bytes_per_host),
            severity="warning",
        )


def durable(job: JobFacts) -> Iterator[Said]:
    """The template writes with fsync, unless that is changed."""
    told = job.overrides.get("checkpoint.fsync", True)
    if str(told).lower() != "true":
        yield Issue(rule="4.3.2", validation=INVALID, parameter="checkpoint.fsync", expected="true", actual=str(told))


def fits_accelerators(job: JobFacts) -> Iterator[Said]:
    """All accelerators together hold the checkpoint."""
    model, each = models().checkpointing.get(job.model), models().accelerator_memory_gb.get(job.accelerator)
    if model is None or each is None:
        yield unknown("the accelerator's memory is not known")
    elif job.processes * each * DECIMAL_GIGA < checkpoint_bytes(model):
        yield Issue(
            rule="4.3.4",
            validation=INVALID,
            parameter="accelerators",
            expected=f"at least {format_bytes(checkpoint_bytes(model))} together",
            actual=f"{job.processes} x {job.accelerator} hold {format_bytes(job.processes * each * DECIMAL_GIGA)}",
        )


def subset(job: JobFacts) -> Iterator[Said]:
    """A subset is of the 8B model, with exactly its ranks."""
    model = models().checkpointing.get(job.model)
    if job.subset and (model is None or not model.subset_ranks or job.processes != model.subset_ranks):
        actual = f"{job.model} with {job.processes} ranks"
        yield Issue(
            rule="4.3.5",
            validation=INVALID,
            parameter="checkpoint_subset",
            expected="llama3-8b with exactly 8 ranks",
            actual=actual,
        )


def closed_processes(job: JobFacts) -> Iterator[Said]:
    """The process count is the model's."""
    model = models().checkpointing.get(job.model)
    if model is not None and job.processes != model.processes:
        state = INVALID if job.processes % model.open_multiple else OPEN
        yield Issue(
            rule="4.6.1",
            validation=state,
            parameter="processes",
            expected=f"{model.processes}",
            actual=f"{job.processes}",
        )


def per_host(job: JobFacts) -> Iterator[Said]:
    """At least 4 accelerators a host; 4 are warned of, since one text of the rules asks for more."""
    fewest = min(job.slots, default=job.processes // job.hosts)
    if fewest <= ACCELERATORS_PER_HOST_MIN:
        few = fewest < ACCELERATORS_PER_HOST_MIN
        yield Issue(
            rule="4.6.2",
            validation=OPEN if few else CLOSED,
            parameter="accelerators a host",
            expected=f"at least {ACCELERATORS_PER_HOST_MIN}; one text of the rules says more than that",
            actual=f"{fewest}",
            severity="error" if few else "warning",
        )


def open_scaling(job: JobFacts) -> Iterator[Said]:
    """A multiple of the model's parallelism, and only allowed keys."""
    model = models().checkpointing.get(job.model)
    if model is not None and not job.subset and job.processes % model.open_multiple:
        yield Issue(
            rule="4.6.4",
            validation=INVALID,
            parameter="processes",
            expected=f"a multiple of {model.open_multiple}",
            actual=f"{job.processes}",
        )
    yield from _overrides("4.6.4")(job)


def closed_index(job: JobFacts) -> Iterator[Said]:
    """The index is one that closed takes."""
    table = models().vector_database
    if job.model not in table.closed_indexes:
        state = OPEN if job.model in table.open_indexes else INVALID
        expected = ", ".join(table.closed_indexes)
        yield Issue(rule="5.6.3", validation=state, parameter="index", expected=expected, actual=job.model)


def closed_engine(job: JobFacts) -> Iterator[Said]:
    """The database is one that closed takes."""
    legal = models().vector_database.closed_engines
    if job.engine not in legal:
        expected = ", ".join(legal)
        yield Issue(rule="5.6.2", validation=OPEN, parameter="engine", expected=expected, actual=job.engine)


def sequence_locks(job: JobFacts) -> Iterator[Said]:
    """Seed, trials and delay are the rules', and there is no configuration of one's own."""
    table = models().kv_cache
    wanted: dict[str, Any] = {"seed": table.seed, "trials": table.trials, "inter_option_delay": table.delay_seconds}
    for key, value in wanted.items():
        told = job.overrides.get(key, value)
        if str(told) != str(value):
            yield Issue(rule="6.3.2.1", validation=OPEN, parameter=key, expected=f"{value}", actual=str(told))
    if job.overrides.get("config"):
        yield Issue(
            rule="6.3.2.1", validation=OPEN, parameter="config", expected="none", actual=str(job.overrides["config"])
        )


def no_autoscaling(job: JobFacts) -> Iterator[Said]:
    """The autoscaler stays off."""
    told = job.overrides.get("enable_autoscaling", False)
    if str(told).lower() not in ("false", "", "0", "none"):
        yield Issue(rule="6.3.2.2", validation=OPEN, parameter="enable_autoscaling", expected="off", actual=str(told))


def clients_alike(job: JobFacts) -> Iterator[Said]:
    """Every host runs as many clients."""
    if job.processes % job.hosts:
        actual = f"{job.processes} on {job.hosts} hosts"
        yield Issue(
            rule="6.3.3.1", validation=INVALID, parameter="clients", expected="as many on each host", actual=actual
        )


CHECKS: Final[dict[str, Callable[[JobFacts], Iterable[Said]]]] = {
    "2.1.11": known_model,
    "2.1.21": known_checkpoint,
    "3.2.1": generated_enough,
    "3.3.1": enough_files,
    "3.3.6": as_many_on_each,
    "3.4.1": _paths("3.4.1"),
    "3.4.2": _apart("3.4.2"),
    "3.6.2": _overrides("3.6.2"),
    "3.6.3": _overrides("3.6.3"),
    "4.3.1": checkpoint_against_memory,
    "4.3.2": durable,
    "4.3.4": fits_accelerators,
    "4.3.5": subset,
    "4.4.1": _paths("4.4.1"),
    "4.4.2": _apart("4.4.2"),
    "4.6.1": closed_processes,
    "4.6.2": per_host,
    "4.6.3": _overrides("4.6.3"),
    "4.6.4": open_scaling,
    "5.4.1": _paths("5.4.1"),
    "5.6.2": closed_engine,
    "5.6.3": closed_index,
    "5.6.4": _overrides("5.6.4"),
    "5.6.5": _overrides("5.6.5"),
    "6.3.2.1": sequence_locks,
    "6.3.2.2": no_autoscaling,
    "6.3.3.1": clients_alike,
    "6.6.1": _overrides("6.6.1"),
    "6.6.2": _overrides("6.6.2"),
    "CAP-01": free_space,
    "CAP-02": shared,
    "CAP-03": _apart("CAP-03"),
}
