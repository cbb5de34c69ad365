"""Who has the arena attached, which LSNs snapshots hold, which pages are being edited or made: lines of processes.

A sweep frees the lines of processes that are gone. One that tells of a page whose maker was killed stays until a graph
takes over: it is what is known of that death.
"""

import os

import numpy as np

from stoker.core.processes import start_ticks
from stoker.pages.arena.layout import ATTACHED, COMPUTED, EDITED, PINNED, READER_BYTES, Counter, Reader, Word
from stoker.pages.arena.mapping import Mapping
from stoker.pages.errors import OutOfSpace


class Readers:
    """The reader table of one arena. All but looking wants the commit lock."""

    def __init__(self, mapping: Mapping) -> None:
        self._words = mapping.words
        self._first = mapping.geometry.reader_offset >> 3
        self._count = mapping.geometry.reader_slots
        self._table = np.frombuffer(
            mapping.data, np.uint64, self._count * (READER_BYTES >> 3), mapping.geometry.reader_offset
        ).reshape(self._count, -1)
        self._began: dict[int, int] = {}  # this process, and the one that it was forked from

    def _lines(self) -> range:
        return range(self._first, self._first + self._count * (READER_BYTES >> 3), READER_BYTES >> 3)

    def register(self, kind: int, lsn: int = 0) -> int:
        """Take a line for this process and return its index. Raises OutOfSpace when all are taken by living ones."""
        line = self._free_line()
        if line is None and self.sweep(all_of_them=True):
            line = self._free_line()
        if line is None:
            raise OutOfSpace("too many processes and snapshots use the store", expected=f"at most {self._count}")
        pid = os.getpid()
        if pid not in self._began:
            self._began[pid] = start_ticks(pid)
        self._words[line + Reader.START_TICKS] = self._began[pid]
        self._words[line + Reader.KIND] = kind
        self._words[line + Reader.LSN] = lsn
        self._words[line + Reader.PID] = pid  # last: from now on the line counts
        if kind == PINNED:
            self.renew()
        return line

    def _free_line(self) -> int | None:
        return next((line for line in self._lines() if not self._words[line + Reader.PID]), None)

    def forget(self, line: int) -> None:
        """Give a line back."""
        pinned = self._words[line + Reader.KIND] == PINNED
        self._words[line + Reader.PID] = 0
        if pinned:
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

    def sweep(self, *, all_of_them: bool = False) -> int:
        """Free the lines of processes that are gone; return how many. Those of killed makers stay, unless asked for."""
        gone = 0
        for line in self._lines():
            if self._is_dead(line) and (all_of_them or not self._tells_of_a_page(line, COMPUTED)):
                self._words[line + Reader.PID] = 0
                gone += 1
        if gone:
            self.renew()
            self._words[Word.COUNTERS + Counter.SWEPT] += gone
        return gone

    def _is_dead(self, line: int) -> bool:
        pid = self._words[line + Reader.PID]
        return bool(pid) and start_ticks(pid) != self._words[line + Reader.START_TICKS]

    def _tells_of_a_page(self, line: int, kind: int) -> bool:
        return self._words[line + Reader.KIND] == kind and self._words[line + Reader.PAGE] != 0

    def busy(self, page: int) -> tuple[bool, bool, bool]:
        """Tell whether a page is being edited, is being made, and whether who made it was killed. Wants no lock."""
        rows = np.flatnonzero((self._table[:, Reader.PAGE] == page) & (self._table[:, Reader.KIND] >= EDITED))
        edited = made = killed = False
        for line in (self._first + row * (READER_BYTES >> 3) for row in rows.tolist()):
            if not self._words[line + Reader.PID]:
                continue
            computed, dead = self._words[line + Reader.KIND] == COMPUTED, self._is_dead(line)
            edited, made, killed = edited or not (computed or dead), made or computed > dead, killed or computed & dead
        return edited, made, killed

    def killed(self) -> dict[int, int]:
        """Return the lines of killed makers, and the page that each was making."""
        lines = [line for line in self._lines() if self._is_dead(line) and self._tells_of_a_page(line, COMPUTED)]
        return {line: int(self._words[line + Reader.PAGE]) for line in lines}

    def attached(self) -> list[int]:
        """Return the processes that have the arena attached and live."""
        return [
            int(self._words[line + Reader.PID])
            for line in self._lines()
            if self._words[line + Reader.KIND] == ATTACHED
            and (pid := self._words[line + Reader.PID])
            and start_ticks(pid) == self._words[line + Reader.START_TICKS]
        ]
