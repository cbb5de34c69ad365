"""From the ring to the journal: who commits with a durability waits here, and many are served by one sync.

| durability | a commit returns when its frames are | survives |
|---|---|---|
| none | in the ring, in shared memory | the death of any process |
| os | written to the segment file | the same, and the loss of the shared memory |
| data | synced (fdatasync) | a power loss |
| full | synced with all metadata (fsync of file and folder) | a power loss, on file systems that need it |

The ring is written out by any process, one at a time under the flush lock. Where the journal ends is told by two
records in the arena, of which FLUSHES names the valid one: a process that dies between two words leaves the other.
"""

import errno
from typing import Final

from stoker.core.clock import monotonic_ns, sleep
from stoker.core.errors import UsageError
from stoker.pages.arena.arena import Arena, poisoned
from stoker.pages.arena.layout import Counter, FlushEnd, Word
from stoker.pages.arena.steps import step
from stoker.pages.errors import PagesError, Timeout
from stoker.pages.folder import DURABILITIES
from stoker.pages.journal import Journal, JournalEnd

_END_WORDS: Final = 8
_POLL_SECONDS: Final = 0.0005


class Flusher:
    """Writes one store's ring to its journal. Any number of them, in any process, serve one store."""

    def __init__(self, arena: Arena, journal: Journal) -> None:
        self._arena = arena
        self._words = arena.words
        self._journal = journal
        arena.make_room = self.make_room
        arena.mend_flush = self.mend

    # -- where the journal ends ----------------------------------------------------------------------------------

    def begin(self, end: JournalEnd) -> None:
        """Say where the journal of a new arena ends; everything in it is durable."""
        self._store_end(end, self._words[Word.COMMITTED_POS])
        self._words[Word.DURABLE_LSN] = end.last_lsn

    def _at(self, flushes: int) -> int:
        return int(Word.FLUSH_ENDS) + (flushes & 1) * _END_WORDS

    def end(self) -> JournalEnd:
        """Return where the journal ends; the flush lock is held."""
        at = self._at(self._words[Word.FLUSHES])
        return JournalEnd(
            segment_first_lsn=self._words[at + FlushEnd.SEGMENT_LSN],
            offset_bytes=self._words[at + FlushEnd.SEGMENT_OFFSET],
            last_lsn=self._words[at + FlushEnd.LSN],
            last_crc=self._words[at + FlushEnd.SEGMENT_CRC],
        )

    def _store_end(self, end: JournalEnd, position: int) -> None:
        flushes = self._words[Word.FLUSHES] + 1
        at = self._at(flushes)
        self._words[at + FlushEnd.POS] = position
        self._words[at + FlushEnd.LSN] = end.last_lsn
        self._words[at + FlushEnd.SEGMENT_LSN] = end.segment_first_lsn
        self._words[at + FlushEnd.SEGMENT_OFFSET] = end.offset_bytes
        self._words[at + FlushEnd.SEGMENT_CRC] = end.last_crc
        step("flush: recorded")
        self._words[Word.FLUSHES] = flushes
        step("flush: chosen")
        self.mend()

    def mend(self) -> None:
        """Set what others read from the valid record."""
        at = self._at(self._words[Word.FLUSHES])
        self._words[Word.FLUSHED_LSN] = self._words[at + FlushEnd.LSN]
        self._words[Word.FLUSHED_POS] = self._words[at + FlushEnd.POS]

    # -- writing out ---------------------------------------------------------------------------------------------

    def make_room(self) -> None:
        """Write out all committed frames; the commit lock is held. Raises OutOfSpace, Poisoned."""
        with self._arena.flush_lock.held():
            self._write_out()

    def _write_out(self) -> JournalEnd:
        """Write committed frames to the journal; the flush lock is held."""
        if self._words[Word.POISON]:
            raise poisoned(self._words[Word.POISON])
        end, position = self.end(), self._words[Word.COMMITTED_POS]
        pieces = self._arena.ring.pieces(self._words[Word.FLUSHED_POS], position)
        if not pieces:
            return end
        step("flush: begun")
        try:
            end = self._journal.append(end, pieces, durable_lsn=self._words[Word.DURABLE_LSN])
        except (OSError, PagesError) as error:
            self._poison(error)
            raise
        step("flush: written")
        self._store_end(end, position)
        self._words[Word.COUNTERS + Counter.FLUSHES] += 1
        return end

    def _sync(self, durability: str) -> None:
        end = self._write_out()
        try:
            self._journal.sync(end, full=durability == "full")
        except (OSError, PagesError) as error:
            self._poison(error)
            raise
        self._words[Word.DURABLE_LSN] = end.last_lsn
        self._words[Word.COUNTERS + Counter.SYNCS] += 1

    def _poison(self, error: BaseException) -> None:
        cause = error if isinstance(error, OSError) else error.__cause__
        self._words[Word.POISON] = getattr(cause, "errno", 0) or errno.EIO

    # -- waiting -------------------------------------------------------------------------------------------------

    def settle(self, lsn: int, durability: str) -> None:
        """Return when the commit of this LSN is as durable as asked. Raises what failed; then the store is poisoned."""
        if durability == "none":
            waiting = self._words[Word.COMMITTED_POS] - self._words[Word.FLUSHED_POS]
            if waiting > self._arena.ring.ring_bytes // 2:
                self.make_room()
            return
        reached = Word.FLUSHED_LSN if durability == "os" else Word.DURABLE_LSN
        while self._words[reached] < lsn:
            # Whoever waited for the lock is mostly served by the one who had it.
            with self._arena.flush_lock.held():
                if self._words[reached] >= lsn:
                    return
                if durability == "os":
                    self._write_out()
                else:
                    self._sync(durability)

    def wait(self, lsn: int, timeout_seconds: float) -> None:
        """Return when somebody has made this LSN durable; asks nobody to. Raises Timeout."""
        deadline_ns = monotonic_ns() + int(timeout_seconds * 1e9)
        while self._words[Word.DURABLE_LSN] < lsn:
            if self._words[Word.POISON]:
                raise poisoned(self._words[Word.POISON])
            if monotonic_ns() > deadline_ns:
                raise Timeout(
                    "commit is not durable in time",
                    expected=f"LSN {lsn} within {timeout_seconds:g} s",
                    got=f"LSN {self._words[Word.DURABLE_LSN]}",
                )
            sleep(_POLL_SECONDS)

    def rest(self) -> None:
        """Make everything durable and note it: the last process leaves."""
        with self._arena.flush_lock.held():
            self._sync("data")
            self._journal.note_durable(self.end())

    def close(self) -> None:
        """Close the journal's descriptors."""
        self._journal.close()


def checked_durability(durability: str) -> str:
    """Return a durability; raises UsageError for an unknown one."""
    if durability not in DURABILITIES:
        raise UsageError("unknown durability", expected=" or ".join(DURABILITIES), got=durability)
    return durability
