"""Recorded traffic: ShareGPT's conversations, BurstGPT's arrivals, Mooncake's requests with the ids of their blocks.

The files are other people's: sizes, lengths and numbers are held within bounds before anything is made of them.
"""

import csv
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.core.errors import CorruptError, NotFoundError, UsageError
from stoker.core.kvcache import KvPlan
from stoker.core.units import GiB, format_bytes
from stoker.kv.traffic.pages import chained, page_key, root_id
from stoker.kv.traffic.request import BOTH, PREFILL, QOS, Request, Source

FILE_BYTES_MAX: Final = 4 * GiB
LINE_BYTES_MAX: Final = 16 << 20
CONTEXT_MAX: Final = 16_384
GENERATED_MAX: Final = 2048
TOKENS_MAX: Final = 1 << 20
CHARACTERS_A_TOKEN: Final = 4
USERS_MAX: Final = 1000
MOONCAKE_TOKENS: Final = 512
"""Tokens that an id of Mooncake's traces stands for."""
_PREFILL_TOKENS: Final = 10_000
_BURST_COLUMNS: Final = ("Timestamp", "Request tokens", "Response tokens")


class _Said(msgspec.Struct):
    speaker: str = msgspec.field(name="from", default="")
    value: str = ""


class _Talk(msgspec.Struct):
    conversations: list[_Said] = []


class _Served(msgspec.Struct):
    timestamp: float
    input_length: int
    output_length: int
    hash_ids: list[int] = []


def _qos(number: int) -> str:
    return QOS[number % len(QOS)]


def _phase(context: int) -> str:
    return PREFILL if context >= _PREFILL_TOKENS else BOTH


def trace_files(path: str, suffix: str) -> list[Path]:
    """Return the trace's files: the one named, or those of a folder or a pattern, in the order of their names.

    Raises NotFoundError for nothing, UsageError for a file of over 4 GiB.
    """
    place = Path(path)
    if place.is_dir():
        found = sorted(place.glob(f"*{suffix}"))
    elif "*" in path:
        found = sorted(place.parent.glob(place.name))
    else:
        found = [place]
    found = [file for file in found if file.is_file()]
    if not found:
        raise NotFoundError("no trace", where=path, expected=f"a file, a folder of *{suffix}, or a pattern")
    for file in found:
        if file.stat().st_size > FILE_BYTES_MAX:
            got = format_bytes(file.stat().st_size)
            raise UsageError("trace is too large", where=str(file), expected="at most 4 GiB a file", got=got)
    return found


class _Trace:
    """One stream of requests, whose times are the trace's."""

    def streams(self, users: int) -> int:
        """Return 1: the trace says who comes when."""
        return min(users, 1)


class ShareGptSource(_Trace):
    """Conversations of people and a model, turn by turn; a request each pair. Tokens are a quarter of the letters."""

    def __init__(self, plan: KvPlan) -> None:
        """Raises CorruptError for a file of another kind."""
        self._plan = plan
        (file, *_) = trace_files(plan.source_path, ".json")
        try:
            every = msgspec.json.decode(file.read_bytes(), type=list[_Talk])
        except msgspec.DecodeError as error:
            raise CorruptError("not ShareGPT's conversations", where=str(file), got=str(error)) from error
        turns = [_turns(talk) for talk in every[: plan.conversations_max]]
        self._talks = [pairs for pairs in turns if pairs]
        if not self._talks:
            raise CorruptError("no conversation in it", where=str(file), expected="pairs of human and gpt")

    def requests(self, stream: int) -> Iterator[Request]:
        """Yield the conversations again and again, each time under new names."""
        rate, number, round_ = self._plan.request_rate, stream, 0
        while not self._plan.replay_cycles or round_ < self._plan.replay_cycles:
            for at, pairs in enumerate(self._talks):
                talk = round_ * len(self._talks) + at
                for turn, (context, generated) in enumerate(pairs):
                    yield Request(
                        user=talk % USERS_MAX,
                        number=number,
                        at_seconds=number / rate if rate else 0.0,
                        qos=_qos(talk),
                        key=f"conv_{talk % USERS_MAX}_{talk}_turn_{turn}",
                        context=context,
                        generated=generated,
                        phase=_phase(context),
                        earlier=tuple(f"conv_{talk % USERS_MAX}_{talk}_turn_{each}" for each in range(turn))
                        if self._plan.multi_turn
                        else (),
                    )
                    number += 1
            round_ += 1


def _turns(talk: _Talk) -> list[tuple[int, int]]:
    """Return context and generated tokens of each question with an answer."""
    said, found = talk.conversations, []
    for asked, answered in pairwise(said):
        if asked.speaker in ("human", "user") and answered.speaker in ("gpt", "assistant"):
            context = min(CONTEXT_MAX, max(1, len(asked.value) // CHARACTERS_A_TOKEN))
            found.append((context, min(GENERATED_MAX, max(1, len(answered.value) // CHARACTERS_A_TOKEN))))
    return found


class BurstSource(_Trace):
    """BurstGPT's arrivals: when, and how many tokens. No two requests share anything."""

    def __init__(self, plan: KvPlan) -> None:
        self._plan = plan
        self._files = trace_files(plan.source_path, ".csv")
        next(self._rows())

    def requests(self, stream: int) -> Iterator[Request]:
        """Yield the requests, `replay_cycles` times over (0: without end)."""
        speed, number, round_, offset = self._plan.trace_speedup, stream, 0, 0.0
        while not self._plan.replay_cycles or round_ < self._plan.replay_cycles:
            first = last = None
            for moment, context, generated in self._rows():
                first = moment if first is None else first
                last = moment - first
                yield Request(
                    user=number % USERS_MAX,
                    number=number,
                    at_seconds=offset + (last / speed if speed else 0.0),
                    qos=_qos(number),
                    key=f"user_{number % USERS_MAX}_req_{number}",
                    context=context,
                    generated=generated,
                    phase=_phase(context),
                )
                number += 1
            offset += (last or 0.0) / speed if speed else 0.0
            round_ += 1

    def _rows(self) -> Iterator[tuple[float, int, int]]:
        """Yield moment, context and generated tokens. Raises CorruptError for another table, or without a row."""
        seen = False
        for file in self._files:
            with file.open(encoding="utf-8", errors="replace", newline="") as lines:
                table = csv.DictReader(lines)
                if not set(_BURST_COLUMNS) <= set(table.fieldnames or ()):
                    raise CorruptError("not a BurstGPT trace", where=str(file), expected=", ".join(_BURST_COLUMNS))
                for row in table:
                    seen = True
                    yield _numbers(row, f"{file}:{table.line_num}")
        if not seen:
            raise CorruptError("trace has no request", where=self._plan.source_path)


def _numbers(row: dict[str, Any], where: str) -> tuple[float, int, int]:
    try:
        moment, context, generated = (float(row[name]) for name in _BURST_COLUMNS)
    except (TypeError, ValueError) as error:
        raise CorruptError("line of a trace has no numbers", where=where, got=str(error)) from error
    if not 0 <= moment < 1e12 or not 0 <= context <= TOKENS_MAX or not 0 <= generated <= TOKENS_MAX:
        raise CorruptError("line of a trace is out of bounds", where=where, got=f"{moment}, {context}, {generated}")
    return moment, max(1, int(context)), max(1, int(generated))


class MooncakeSource(_Trace):
    """Mooncake's requests: each names the blocks of 512 tokens that its context consists of."""

    def __init__(self, plan: KvPlan) -> None:
        self._plan = plan
        (self._file, *_) = trace_files(plan.source_path, ".jsonl")
        self._root = root_id(plan)
        next(self._lines())

    def requests(self, stream: int) -> Iterator[Request]:
        """Yield the requests, `replay_cycles` times over (0: once; a second time everything would be there)."""
        speed, number, offset = self._plan.trace_speedup, stream, 0.0
        for _ in range(max(1, self._plan.replay_cycles)):
            last = 0.0
            for served in self._lines():
                last = served.timestamp / 1000
                context = max(1, served.input_length)
                yield Request(
                    user=number % USERS_MAX,
                    number=number,
                    at_seconds=offset + (last / speed if speed else 0.0),
                    qos=_qos(number),
                    key=f"user_{number % USERS_MAX}_req_{number}",
                    context=context,
                    generated=max(1, served.output_length),
                    phase=_phase(context),
                    pages=self._pages(served.hash_ids, context),
                )
                number += 1
            offset += last / speed if speed else 0.0

    def _pages(self, ids: list[int], tokens: int) -> tuple[str, ...]:
        """Return the full pages of a context; an id stands for its 512 tokens, which pages join or split."""
        size = self._plan.page_tokens
        stands_for = (
            b"".join(each.to_bytes(8, "little", signed=True) for each in _covering(ids, at * size, size))
            + (at * size % MOONCAKE_TOKENS).to_bytes(4, "little")
            for at in range(min(tokens, len(ids) * MOONCAKE_TOKENS) // size)
        )
        return tuple(page_key(page) for page in chained(self._root, stands_for))

    def _lines(self) -> Iterator[_Served]:
        with self._file.open("rb") as lines:
            number = 0
            while line := lines.readline(LINE_BYTES_MAX):
                number += 1
                if line.strip():
                    yield self._line(line, number)
        if not number:
            raise CorruptError("trace has no request", where=str(self._file))

    def _line(self, line: bytes, number: int) -> _Served:
        where = f"{self._file}:{number}"
        try:
            served = msgspec.json.decode(line, type=_Served)
        except msgspec.DecodeError as error:
            raise CorruptError("not a line of a Mooncake trace", where=where, got=str(error)) from error
        small = all(-(1 << 63) <= each < 1 << 63 for each in served.hash_ids)
        if not 0 <= served.timestamp < 1e15 or not 0 <= served.input_length <= TOKENS_MAX or not small:
            raise CorruptError("line of a trace is out of bounds", where=where)
        return served


def _covering(ids: list[int], start: int, size: int) -> list[int]:
    return ids[start // MOONCAKE_TOKENS : -(-(start + size) // MOONCAKE_TOKENS)]


_SOURCES: Final[dict[str, Callable[[KvPlan], Source]]] = {
    "sharegpt": ShareGptSource,
    "burst": BurstSource,
    "mooncake": MooncakeSource,
}


def open_trace(plan: KvPlan) -> Source:
    """Return the recorded traffic that a plan names. Raises NotFoundError, UsageError, CorruptError."""
    return _SOURCES[plan.source](plan)
