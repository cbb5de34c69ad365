"""What a volume without daemons needs from who mounts it: sessions end, files that are gone give their bytes back."""

import threading
from collections.abc import Callable
from typing import Final

from stoker.core.clock import wall_ns
from stoker.core.errors import StokerError
from stoker.fs.client.garbage import GRACE_SECONDS, Collected, collect_garbage
from stoker.fs.client.repacking import Repacked, repack
from stoker.fs.meta import Volume
from stoker.fs.store.interface import SliceStore

_EVERY_SECONDS: Final = 30.0
_FREED_GRACE_SECONDS: Final = 60.0
"""How long bytes stay that were let go. Everybody who can read them shares this process's client, which believes what
shows for a second at most, and keeps open what it removes itself."""
_LOST_EVERY_NS: Final = int(GRACE_SECONDS * 1e9)


class Upkeep:
    """A thread that tidies a volume now and then, until it is stopped. `complain` hears of failures."""

    def __init__(
        self,
        volume: Volume,
        store: SliceStore,
        complain: Callable[[str], None],
        *,
        clock: Callable[[], int] = wall_ns,
        every_seconds: float = _EVERY_SECONDS,
    ) -> None:
        self._volume = volume
        self._store = store
        self._complain = complain
        self._clock = clock
        self._every_seconds = every_seconds
        self._looked_ns = clock()
        self.repacked = Repacked()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stoker-fuse-upkeep", daemon=True)

    def __enter__(self) -> "Upkeep":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def tidy(self) -> list[Collected]:
        """End sessions that are over, store anew what is left of some sparse packs, and remove what was freed.

        That is removed a minute after it was freed; each hour, what was never shown goes as well. `repacked` tells what
        the last pass did with packs.

        Returns what the passes did. Raises StokerError: what was not done is done by the next.
        """
        self._volume.tidy()
        self.repacked = repack(self._volume, self._store, after=self.repacked.after)
        now_ns = self._clock()
        done = [collect_garbage(self._volume, self._store, _FREED_GRACE_SECONDS, now_ns=now_ns, lost=False)]
        if now_ns - self._looked_ns >= _LOST_EVERY_NS:
            done.append(collect_garbage(self._volume, self._store, GRACE_SECONDS, now_ns=now_ns))
            self._looked_ns = now_ns
        return done

    def _run(self) -> None:
        while not self._stopped.wait(self._every_seconds):
            try:
                self.tidy()
            except StokerError as error:
                self._complain(f"the volume could not be tidied: {error}")
