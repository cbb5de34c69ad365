"""Were the checkpoints really written, made durable, and read from the storage? And who held the run up?"""

from typing import Final

from stoker.bench.rules.catalogue import found
from stoker.bench.rules.facts import (
    AGREEMENT_RATIO_MAX,
    NO_STORE_KINDS,
    NO_STORE_MODES,
    is_object_store,
    percent,
    saves_alone,
    share,
)
from stoker.core.checkpoints import LOAD, SAVE, STAGE, Checkpoint
from stoker.core.result import Finding, Result
from stoker.core.units import format_bytes, format_rate, format_seconds

MEMORY_MULTIPLE: Final = 3
HANDOVER_SECONDS_MAX: Final = 30.0
CLIENT_SHARE_MAX: Final = 0.5
CLOCK_RATIO_MAX: Final = 0.05
_TOLD_MAX: Final = 5


def _done(result: Result, operation: str) -> list[Checkpoint]:
    return [each for each in result.checkpoints if each.operation == operation and each.complete]


def _names(checkpoints: list[Checkpoint]) -> str:
    told = [f"{each.operation} {each.number}" for each in checkpoints[:_TOLD_MAX]]
    return ", ".join(told) + (" …" if len(checkpoints) > _TOLD_MAX else "")


def check_target(result: Result) -> list[Finding]:
    """Something outside this process was written to and read from."""
    evidence = result.evidence
    if evidence.io_mode not in NO_STORE_MODES and evidence.target_kind not in NO_STORE_KINDS:
        return []
    what = evidence.io_mode or evidence.target_kind
    return [found("checkpoint.target", expected="a store", observed=f"target of kind {what}")]


def check_done(result: Result) -> list[Finding]:
    """Every planned save and load came to its end on all ranks, with all the bytes of the checkpoint."""
    what, whole = result.plan.checkpoint, result.checkpointing
    if what is None or whole is None or result.status != "complete" or not saves_alone(result):
        return []
    saves, loads = len(_done(result, SAVE)), len(_done(result, LOAD))
    short = [each for each in result.checkpoints if each.complete and each.bytes != whole.size_bytes]
    if (saves, loads) == (what.writes, what.reads) and not short:
        return []
    observed = f"{saves} saves and {loads} loads"
    if short:
        observed += f", of which {len(short)} moved another number of bytes than {whole.size_bytes}"
    expected = f"{what.writes} saves and {what.reads} loads of {format_bytes(whole.size_bytes)}"
    return [found("checkpoint.done", expected=expected, observed=observed, where=_names(short))]


def check_durable(result: Result) -> list[Finding]:
    """When a save was over, the store had promised that it survives, and nothing was left in the page cache alone."""
    what, saves = result.plan.checkpoint, _done(result, SAVE)
    if what is None or not saves or check_target(result):
        return []
    left = [each for each in saves if (each.dirty_bytes or 0) > AGREEMENT_RATIO_MAX * each.bytes]
    reasons = []
    if what.fsync == "none":
        reasons.append("nothing was synced (fsync none)")
    elif result.evidence.durable is not True and what.fsync == "full":
        reasons.append("the store does not promise that a finished write survives")
    if left:
        dirty = format_bytes(max(each.dirty_bytes or 0 for each in left))
        reasons.append(f"up to {dirty} lay in the page cache alone when a save was over")
    if not reasons:
        return []
    return [found("checkpoint.durable", expected="durable", observed="; ".join(reasons), where=_names(left))]


def check_written(result: Result) -> list[Finding]:
    """Whoever counts writes saw at least what was written: the device under the target, else the kernel."""
    saves = _done(result, SAVE)
    if not saves or is_object_store(result) or check_target(result):
        return []
    asked = sum(each.bytes for each in saves)
    counted, witness = _witness(result, saves)
    if counted is not None and counted >= (1 - AGREEMENT_RATIO_MAX) * asked:
        return []
    observed = "nobody counted" if counted is None else f"{format_bytes(counted)} counted ({witness})"
    return [found("checkpoint.written", expected=f"{format_bytes(asked)} written", observed=observed)]


def _witness(result: Result, saves: list[Checkpoint]) -> tuple[int | None, str]:
    devices = [each.device_written_bytes for each in saves]
    if result.evidence.device and None not in devices:
        return sum(each or 0 for each in devices), f"device {result.evidence.device}"
    return result.evidence.counters.process_write_bytes, "process_write_bytes"


def check_client(result: Result) -> list[Finding]:
    """Making the content took no more of the saves' time than writing it."""
    stages: dict[str, float] = {}
    for each in _done(result, SAVE):
        for stage, seconds in each.stage_seconds.items():
            stages[stage] = stages.get(stage, 0.0) + seconds
    part = share(stages.get(STAGE, 0.0), sum(stages.values()))
    if part <= CLIENT_SHARE_MAX:
        return []
    observed = f"{percent(part, 0)} of the saves' time went into making the content"
    return [found("checkpoint.client", expected=f"at most {percent(CLIENT_SHARE_MAX, 0)}", observed=observed)]


def check_memory(result: Result) -> list[Finding]:
    """Reads cannot come from a client's memory: three times as much was written, or the cache was emptied before."""
    what, saves, loads = result.plan.checkpoint, _done(result, SAVE), _done(result, LOAD)
    if what is None or not saves or not loads or result.evidence.io_mode in ("direct", "network"):
        return []
    if result.plan.evict and all(each.resident_bytes == 0 for each in loads):
        return []
    hosts = max(1, len({rank.host for rank in result.ranks}))
    memory = _memory_bytes(result)
    each_host = sum(each.bytes for each in saves) / hosts
    if memory and each_host >= MEMORY_MULTIPLE * memory:
        return []
    observed = f"{format_bytes(each_host)} written a client" + (f" of {format_bytes(memory)} memory" if memory else "")
    expected = f"at least {MEMORY_MULTIPLE} times the memory, or a page cache that was emptied"
    return [found("checkpoint.memory", expected=expected, observed=observed)]


def _memory_bytes(result: Result) -> float:
    told = [host.memory_bytes for host in result.hosts if host.memory_bytes and host.ranks]
    machine = result.machine.get("memory_bytes")
    return float(max(told) if told else machine if isinstance(machine, int) else 0)


def check_clock(result: Result) -> list[Finding]:
    """Tell where the reference's figure, by rank 0's clock, is better than what the slowest rank allows."""
    figures = result.checkpointing
    if figures is None:
        return []
    told = []
    for name, each in (("saves", figures.save), ("loads", figures.load)):
        if each is not None and each.bytes_per_second_compatible > (1 + CLOCK_RATIO_MAX) * each.bytes_per_second:
            rates = format_rate(each.bytes_per_second_compatible), format_rate(each.bytes_per_second)
            told.append(f"{name}: {rates[0]} by rank 0, {rates[1]} by the slowest rank")
    return [found("checkpoint.clock", expected="within 5 %", observed="; ".join(told))] if told else []


def check_verified(result: Result) -> list[Finding]:
    """Tell that nothing that was read was held against what had been written."""
    loads = _done(result, LOAD)
    if not loads or any(each.verified_bytes for each in loads):
        return []
    return [found("checkpoint.verified", expected="some", observed="0 bytes verified")]


def check_handover(result: Result) -> list[Finding]:
    """Between the run that wrote and the one that reads lie at most 30 s, and none that are negative."""
    gap = result.plan.checkpoint.hand_over_seconds if result.plan.checkpoint is not None else None
    if gap is None or 0 <= gap <= HANDOVER_SECONDS_MAX:
        return []
    observed = format_seconds(gap) + (": the clocks of the two hosts differ" if gap < 0 else "")
    return [found("checkpoint.handover", expected=f"0 to {HANDOVER_SECONDS_MAX:g} s", observed=observed)]
