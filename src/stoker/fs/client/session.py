"""The client's session: begun at once, kept alive by a thread of its own, and never silently another one.

Open files and locks live in a session. When its lease passes because nobody could renew it, the metadata refuses all
that its files want (ESTALE), whatever this process believes; here that is noted, so that the next file that is opened
gets a new session while those of the lost one keep failing.
"""

import errno
import threading
from collections.abc import Callable
from typing import Final

from stoker.core.errors import StokerError
from stoker.fs.meta.calls import BeginSession, RenewSession
from stoker.fs.meta.faults import MetaError
from stoker.fs.meta.service import Metadata

_RENEWALS_PER_LEASE: Final = 3


class Session:
    """The session that new files are opened in. `on_lost` hears the number of one that was lost."""

    def __init__(
        self, metadata: Metadata, lease_seconds: float, on_lost: Callable[[int], None], clock: Callable[[], int]
    ) -> None:
        self._metadata = metadata
        self._lease_seconds = lease_seconds
        self._clock = clock
        self._renewed_ns = 0
        self._on_lost = on_lost
        self._mutex = threading.Lock()
        self._number = 0
        self.renewals = 0
        self.lost = 0

    @property
    def number(self) -> int:
        """Return the session's number; begin one when there is none, or the last was lost."""
        number = self._number
        return number or self._begin()

    def _begin(self) -> int:
        with self._mutex:
            if not self._number:
                asked_ns = self._clock()
                self._number = self._metadata.run(BeginSession(int(self._lease_seconds * 1e9))).value
                self._renewed_ns = asked_ns
            return self._number

    def is_alive(self, number: int) -> bool:
        """Tell whether a session is this one and was renewed within its lease; tries to when it was not."""
        if number == self._number and not self._lapsed():
            return True
        if number == self._number:
            self.renew()
        return number == self._number and not self._lapsed()

    def _lapsed(self) -> bool:
        return not 0 <= self._clock() - self._renewed_ns < int(self._lease_seconds * 1e9)

    def renew(self) -> None:
        """Give a sign of life. A metadata service that does not answer is asked again at the next renewal."""
        number = self._number
        if not number:
            return
        asked_ns = self._clock()
        try:
            self._metadata.run(RenewSession(), session=number)
            self._renewed_ns = asked_ns
            self.renewals += 1
        except MetaError as error:
            if error.errno == errno.ESTALE:
                self.lose(number)
        except StokerError:
            return

    def lose(self, number: int) -> None:
        """Note that a session is over."""
        with self._mutex:
            if self._number != number:
                return
            self._number = 0
            self.lost += 1
        self._on_lost(number)

    def end(self) -> None:
        """End the session; its files are closed and its locks given back."""
        with self._mutex:
            number, self._number = self._number, 0
        if not number:
            return
        try:
            self._metadata.end_session(number)
        except MetaError as error:
            if error.errno != errno.ESTALE:
                raise

    @property
    def renewal_seconds(self) -> float:
        """Return how long to wait between two signs of life."""
        return self._lease_seconds / _RENEWALS_PER_LEASE


class Keeper:
    """A thread that does something every so often, until it is stopped."""

    def __init__(self, task: Callable[[], None], every_seconds: float, name: str) -> None:
        self._task = task
        self._every_seconds = every_seconds
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._every_seconds):
            self._task()

    def stop(self) -> None:
        """End the thread; return when it has."""
        self._stopped.set()
        self._thread.join()
