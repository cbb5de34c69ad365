"""Who has the arena attached, and which LSNs snapshots hold: lines that a sweep frees when their process is gone."""

import os

from stoker.core.processes import start_ticks
from stoker.pages.arena.layout import ATTACHED, PINNED, READER_BYTES, Counter, Reader, Word
from stoker.pages.arena.mapping import Mapping
from stoker.pages.errors import OutOfSpace


class Readers:
    """The reader table of one arena. All but looking wants the commit lock."""

    def __init__(self, mapping: Mapping) -> None:
        self._words = mapping.words
        self._first = mapping.geometry.reader_offset >> 3
        self._count = mapping.geometry.reader_slots

    def _lines(self) -> range:
        return range(self._first, self._first + self._count * (READER_BYTES >> 3), READER_BYTES >> 3)

    def register(self, kind: int, lsn: int = 0) -> int:
        """Take a line for this process and return its index. Raises OutOfSpace when all are taken by living ones."""
        line = self._free_line()
        if line is None and self.sweep():
            line = self._free_line()
        if line is None:
            raise OutOfSpace("too many processes and snapshots use the store", expected=f"at most {self._count}")
        pid = os.getpid()
        self._words[line + Reader.START_TICKS] = start_ticks(pid)
        self._words[line + Reader.KIND] = kind
        self._words[line + Reader.LSN] = lsn
        self._words[line + Reader.PID] = pid  # last: from now on the line counts
        self.renew()
        return line

    def _free_line(self) -> int | None:
        return next((line for line in self._lines() if not self._words[line + Reader.PID]), None)

    def forget(self, line: int) -> None:
        """Give a line back."""
        self._words[line + Reader.PID] = 0
        self.renew()

    def renew(self) -> None:
        """Work out which LSNs are held: PIN_MAX and PIN_MIN are the largest and smallest plus one, 0 for none."""
        held = [
            self._words[line + Reader.LSN] + 1
            for line in self._lines()
            if self._words[line + Reader.PID] and self._words[line + Reader.KIND] == PINNED
        ]
        self._words[Word.PIN_MIN] = min(held, default=0)
        self._words[Word.PIN_MAX] = max(held, default=0)

    def sweep(self) -> int:
        """Free the lines of processes that are gone; return how many."""
        gone = 0
        for line in self._lines():
            pid = self._words[line + Reader.PID]
            if pid and start_ticks(pid) != self._words[line + Reader.START_TICKS]:
                self._words[line + Reader.PID] = 0
                gone += 1
        if gone:
            self.renew()
            self._words[Word.COUNTERS + Counter.SWEPT] += gone
        return gone

    def attached(self) -> list[int]:
        """Return the processes that have the arena attached and live."""
        return [
            int(self._words[line + Reader.PID])
            for line in self._lines()
            if self._words[line + Reader.KIND] == ATTACHED
            and (pid := self._words[line + Reader.PID])
            and start_ticks(pid) == self._words[line + Reader.START_TICKS]
        ]
