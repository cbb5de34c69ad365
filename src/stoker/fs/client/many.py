"""Many small files in few round trips: names, attributes and extents by batches, bytes of many files by one read."""

import errno
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from stoker.core.errors import StokerError
from stoker.fs.client.client import Client
from stoker.fs.client.errors import as_refusal
from stoker.fs.client.gather import gather
from stoker.fs.client.spans import Span, shown_spans
from stoker.fs.meta.answers import Answer, Peeked, Refusal
from stoker.fs.meta.calls import READ, Call, Caller, Peek
from stoker.fs.meta.faults import MetaError, meta_error
from stoker.fs.store.interface import Bytes

BATCH_FILES: Final = 1024
WINDOW_BYTES: Final = 64 << 20

Wanted = tuple[int, bytes]
"""A file by its number, with no name; or by its directory's and its name in it."""


class LinkMet(Exception):
    """A name stands for a symbolic link: whoever knows paths has to follow it."""


Outcome = Bytes | MetaError | LinkMet


def read_many(
    client: Client, wanted: Iterable[Wanted], caller: Caller, *, window_bytes: int = WINDOW_BYTES
) -> Iterator[Outcome]:
    """Yield the content of each file, or what was wrong with it, in the order asked for.

    Besides what was yielded, about `window_bytes` are in memory, or one file where that is larger.
    """
    source = iter(wanted)
    while batch := list(islice(source, BATCH_FILES)):
        answers = client.submit([Call(Peek(ino, name), caller) for ino, name in batch])
        yield from _read(client, batch, answers, caller, window_bytes)


def _read(
    client: Client, batch: Sequence[Wanted], answers: Sequence[Answer], caller: Caller, window_bytes: int
) -> Iterator[Outcome]:  # fmt: skip
    group: list[tuple[Wanted, Peeked]] = []
    waiting_bytes = 0
    for one, answer in zip(batch, answers, strict=True):
        plain = isinstance(answer, Peeked) and answer.attr.is_file and not client.has_unshown(answer.ino)
        if plain and isinstance(answer, Peeked) and waiting_bytes + answer.attr.size_bytes <= window_bytes:
            group.append((one, answer))
            waiting_bytes += answer.attr.size_bytes
            continue
        yield from _together(client, group, caller)
        group, waiting_bytes = [], 0
        if plain and isinstance(answer, Peeked):
            group, waiting_bytes = [(one, answer)], answer.attr.size_bytes
        else:
            yield _alone(client, one, answer, caller)
    yield from _together(client, group, caller)


def _together(client: Client, group: Sequence[tuple[Wanted, Peeked]], caller: Caller) -> Iterator[Outcome]:
    """Read files by one call of the store; where that fails each by itself, so that each has its own error."""
    if not group:
        return
    plans = [_plan(answer) for _, answer in group]
    try:
        parts = gather(client.works.blocks, plans)
    except StokerError:
        for one, answer in group:
            yield _alone(client, one, answer, caller)
        return
    client.works.counters.read_bytes += sum(stop for _, _, stop in plans)
    for pieces in parts:
        yield pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _plan(answer: Peeked) -> tuple[list[Span], int, int]:
    return shown_spans(answer.shown, 0, answer.attr.size_bytes), 0, answer.attr.size_bytes


def _alone(client: Client, one: Wanted, answer: Answer, caller: Caller) -> Outcome:
    """Return one file as opening and reading it gives it, or what is wrong."""
    where = one[1].decode(errors="backslashreplace") or f"inode {one[0]}"
    if isinstance(answer, Refusal):
        return meta_error(answer.errno, "read", where, answer.detail)
    assert isinstance(answer, Peeked)
    if answer.attr.is_symlink:
        return LinkMet()
    if not answer.attr.is_file:
        return meta_error(errno.EISDIR if answer.attr.is_directory else errno.EINVAL, "read", where)
    try:
        handle = client.open(answer.ino, READ, caller=caller)
        try:
            return handle.read(0, handle.attributes().size_bytes)
        finally:
            handle.close()
    except StokerError as error:
        return as_refusal(error, "read", where)
