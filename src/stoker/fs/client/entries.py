"""Names and attributes that were asked for, believed for a while; names that stand for nothing, too."""

import errno
import threading
from typing import Final

import msgspec

from stoker.fs.meta.answers import Entry
from stoker.fs.meta.calls import Caller, GetAttr, Lookup
from stoker.fs.meta.faults import MetaError, meta_error

_ENTRIES_MAX: Final = 100_000
Key = tuple[Caller, GetAttr | Lookup]


class EntryCache:
    """Answers by who asked what. Whatever this client changes makes it forget all: what it did itself it sees at once.

    `generation` grows with each change: an answer that was asked for before one is not kept.
    """

    def __init__(self, believed_seconds: float) -> None:
        self._believed_ns = int(believed_seconds * 1e9)
        self._answers: dict[Key, tuple[int, Entry | None]] = {}
        self._mutex = threading.Lock()
        self.generation = 0

    @property
    def is_on(self) -> bool:
        """Tell whether anything is believed at all."""
        return self._believed_ns > 0

    def get(self, key: Key, now_ns: int) -> Entry | None:
        """Return an answer that is still believed, None when there is none. Raises MetaError (ENOENT) for no name."""
        found = self._answers.get(key)
        if found is None or not 0 <= now_ns - found[0] <= self._believed_ns:
            return None
        entry = found[1]
        if entry is None:
            name = key[1].name if isinstance(key[1], Lookup) else b""
            raise meta_error(errno.ENOENT, "lookup", name.decode(errors="backslashreplace"))
        return Entry(entry.ino, msgspec.structs.replace(entry.attr), entry.made)  # who gets it may change it

    def put(self, key: Key, answer: Entry | MetaError, generation: int, now_ns: int) -> None:
        """Keep an answer; of errors only that there is no such name."""
        if isinstance(answer, MetaError) and (answer.errno != errno.ENOENT or not isinstance(key[1], Lookup)):
            return
        kept = None if isinstance(answer, MetaError) else Entry(answer.ino, msgspec.structs.replace(answer.attr))
        with self._mutex:
            if generation != self.generation:
                return
            if len(self._answers) >= _ENTRIES_MAX:
                self._answers.clear()
            self._answers[key] = (now_ns, kept)

    def forget(self) -> None:
        """Forget all: this client has changed something."""
        with self._mutex:
            self.generation += 1
            self._answers.clear()
