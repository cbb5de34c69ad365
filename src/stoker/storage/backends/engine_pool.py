"""Write engines for a store that many threads use."""

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from stoker.kernels.write_engines import open_write_engine
from stoker.kernels.writing import WriteEngine


class EnginePool:
    """Engines of one kind, as many as there are threads at work at once. Safe from many threads."""

    def __init__(self, kind: str) -> None:
        """Raises UnavailableError for a kind that cannot be had here."""
        self._kind = kind
        self._closed = False
        # Appending and popping are single steps; the last one used comes first, it is the likeliest to fit its thread.
        self._idle: deque[WriteEngine] = deque([open_write_engine(kind)])

    @contextmanager
    def borrowed(self) -> Iterator[WriteEngine]:
        """Lend an engine for the length of a `with` block."""
        try:
            engine = self._idle.pop()
        except IndexError:
            engine = open_write_engine(self._kind)
        try:
            yield engine
        finally:
            self._idle.append(engine)
            if self._closed:
                self.close()

    def close(self) -> None:
        """Release the idle engines, and those on loan when they come back."""
        self._closed = True
        while self._idle:
            self._idle.pop().close()
