"""What a volume without daemons needs from who mounts it: sessions end, files that are gone give their bytes back."""

import threading
from collections.abc import Callable
from typing import Final

from stoker.core.clock import wall_ns
from stoker.core.errors import StokerError
from stoker.fs.meta import Volume
from stoker.fs.meta.calls import ForgetFreed, ListFreed
from stoker.fs.store.interface import SliceStore

_EVERY_SECONDS: Final = 30.0
_GRACE_SECONDS: Final = 60.0
"""How long bytes stay after the transaction that let them go: who reads knows what shows for a second at most."""
_SLICES_AT_ONCE: Final = 1000


def collect(volume: Volume, store: SliceStore, *, grace_seconds: float, clock: Callable[[], int] = wall_ns) -> int:
    """Remove the bytes of slices that nothing refers to since `grace_seconds`; return how many.

    They are removed first and forgotten then: a crash between leaves a slice that is removed again.
    """
    after = removed = 0
    before_ns = clock() - int(grace_seconds * 1e9)
    while True:
        page = volume.run(ListFreed(after, _SLICES_AT_ONCE)).slices
        if not page:
            return removed
        after = page[-1].slice.id
        old = [one.slice for one in page if one.time_ns <= before_ns]
        if old:
            store.remove(old)
            volume.run(ForgetFreed(tuple(data.id for data in old)))
            removed += len(old)


class Upkeep:
    """A thread that tidies a volume now and then, until it is stopped. `complain` hears of failures."""

    def __init__(self, volume: Volume, store: SliceStore, complain: Callable[[str], None]) -> None:
        self._volume = volume
        self._store = store
        self._complain = complain
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stoker-fuse-upkeep", daemon=True)

    def __enter__(self) -> "Upkeep":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(_EVERY_SECONDS):
            try:
                self._volume.tidy()
                collect(self._volume, self._store, grace_seconds=_GRACE_SECONDS)
            except StokerError as error:
                self._complain(f"the volume could not be tidied: {error}")
