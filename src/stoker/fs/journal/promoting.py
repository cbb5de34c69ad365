"""A volume of one node becomes one of masters, while it is used, without losing a file.

    1. all pairs of the old volume are copied into the new journal, some at a time, in the order of their keys;
    2. what was committed meanwhile follows, as the old volume's history tells it, until almost nothing is left;
    3. a fence goes into the old volume, in one transaction: whoever has it open is refused from then on, and told where
       the volume is now;
    4. what was committed before the fence follows; both are compared, pair by pair, and checked; then the new volume
       gets its settings, without which nobody can open it.

It may be interrupted anywhere and run again. A row in the new journal, written with each step, says how far it is. Up
to step 3 the old volume is the one that counts, and the new one cannot be opened.
"""

from collections.abc import Callable, Iterator
from typing import Final

import msgspec

from stoker.core.errors import CorruptError, UsageError
from stoker.fs.meta import fsck
from stoker.fs.meta.keys import MOVED, VOLUME
from stoker.fs.meta.kv import Engine, HistoryGoneError, Pair, Snapshot

_PROGRESS: Final = b"P"
_NOT_COPIED: Final = (VOLUME, MOVED, _PROGRESS)
_STEP_BYTES: Final = 512 << 10
_PAIRS_A_SCAN: Final = 500
_ALMOST: Final = 50
"""With fewer transactions than this left, the old volume is fenced."""


class Progress(msgspec.Struct, frozen=True):
    """How far a promotion is: of which volume, behind which key, and up to which of its revisions."""

    volume: str
    after: bytes
    revision: int
    copied: bool = False


class Promoted(msgspec.Struct, frozen=True):
    """What a promotion did: pairs that were copied, transactions that followed, pairs that were compared."""

    pairs: int
    transactions: int
    compared: int


def promote(old: Engine, new: Engine, place: str, *, told: Callable[[str], None] = lambda _: None) -> Promoted:
    """Move the volume in `old` to `new`, whose place is told to whoever asks the old one.

    Raises UsageError where there is no volume, it has moved elsewhere, or another one is in `new`; CorruptError where
    the old one has faults or both differ: the old one counts then, as before.
    """
    volume = old.get(VOLUME)
    if volume is None:
        raise UsageError("no volume is here", where=old.url)
    moved = old.get(MOVED)
    if moved not in (None, place.encode()):
        raise UsageError("volume has moved already", where=old.url, got=(moved or b"").decode(errors="replace"))
    if new.get(VOLUME) is not None:
        if new.get(VOLUME) == volume and moved is not None:
            return Promoted(0, 0, 0)  # all of it was done
        raise UsageError("another volume is there", where=new.url)
    promotion = _Promotion(old, new, volume, told)
    promotion.copy()
    promotion.follow(_ALMOST)
    if moved is None:
        old.txn(None, {MOVED: place.encode()})
        told("the old volume takes no more changes")
    try:
        promotion.follow(0)
        compared = promotion.compare()
    except CorruptError:
        old.txn(None, {MOVED: None})
        raise
    new.txn(None, {VOLUME: volume, _PROGRESS: None})
    return Promoted(promotion.pairs, promotion.transactions, compared)


class _Promotion:
    def __init__(self, old: Engine, new: Engine, volume: bytes, told: Callable[[str], None]) -> None:
        self.pairs = 0
        self.transactions = 0
        self._old = old
        self._new = new
        self._told = told
        self._volume = volume.decode(errors="replace")
        self._progress = self._begun()

    def _begun(self) -> Progress:
        """Return how far an earlier run came; what is left of another volume's, or without its history, is removed."""
        data = self._new.get(_PROGRESS)
        if data is not None:
            progress = msgspec.msgpack.decode(data, type=Progress)
            if progress.volume == self._volume:
                try:
                    self._old.changes(progress.revision, 1)
                except HistoryGoneError:
                    self._told("what an earlier run left is too old: it begins anew")
                else:
                    self._told("an earlier run is continued")
                    return progress
            while pairs := self._new.scan(b"", limit=_PAIRS_A_SCAN):
                self._new.txn(None, {key: None for key, _ in pairs})
        elif self._new.scan(b"", limit=1):
            raise UsageError("something else is there", where=self._new.url, expected="an empty journal")
        return Progress(self._volume, b"", self._old.revision())

    def _write(self, writes: dict[bytes, bytes | None], progress: Progress) -> None:
        self._new.txn(None, {**writes, _PROGRESS: msgspec.msgpack.encode(progress)})
        self._progress = progress

    def copy(self) -> None:
        """Copy the pairs behind those that are copied. What of them is older than the history is put right by it."""
        if self._progress.copied:
            return
        with self._old.snapshot() as snapshot:
            for step in _steps(snapshot, self._progress.after):
                writes: dict[bytes, bytes | None] = {key: value for key, value in step if key not in _NOT_COPIED}
                self.pairs += len(writes)
                self._write(writes, msgspec.structs.replace(self._progress, after=step[-1][0]))
        self._write({}, msgspec.structs.replace(self._progress, copied=True))
        self._told(f"{self.pairs} pairs are copied")

    def follow(self, until: int) -> None:
        """Do what was committed since, until at most so many transactions are left."""
        while self._old.revision() - self._progress.revision > until:
            # Many at a time, or a busy volume would stay ahead for ever; nobody sees what is in between.
            changes = self._old.changes(self._progress.revision)
            writes = {key: value for change in changes for key, value in change.writes if key not in _NOT_COPIED}
            self._write(writes, msgspec.structs.replace(self._progress, revision=changes[-1].revision))
            self.transactions += len(changes)

    def compare(self) -> int:
        """Compare both pair by pair, and check what they hold; return how many pairs there are."""
        count = 0
        with self._old.snapshot() as ours, self._new.snapshot() as theirs:
            left, right = _all(ours), _all(theirs)
            while True:
                one, other = next(left, None), next(right, None)
                if one != other:
                    key = (one or other or (b"", b""))[0]
                    raise CorruptError("the new volume differs from the old one", where=self._new.url, got=key.hex())
                if one is None:
                    break
                count += 1
        faults = fsck(self._old)
        if faults:
            raise CorruptError(
                "the old volume has faults", where=self._old.url, got=str(faults[0]), remedy="mend it first"
            )
        return count


def _all(snapshot: Snapshot) -> Iterator[Pair]:
    after = b""
    while pairs := snapshot.scan(b"", after, _PAIRS_A_SCAN):
        after = pairs[-1][0]
        yield from (pair for pair in pairs if pair[0] not in _NOT_COPIED)


def _steps(snapshot: Snapshot, after: bytes) -> Iterator[list[Pair]]:
    held: list[Pair] = []
    size_bytes = 0
    while pairs := snapshot.scan(b"", after, _PAIRS_A_SCAN):
        after = pairs[-1][0]
        for pair in pairs:
            held.append(pair)
            size_bytes += len(pair[0]) + len(pair[1])
            if size_bytes >= _STEP_BYTES:
                yield held
                held, size_bytes = [], 0
    if held:
        yield held
