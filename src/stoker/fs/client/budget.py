"""How many bytes may wait in memory, for all files of a client together."""

import threading


class Budget:
    """Bytes given out of a fixed number. One who asks for more than all of them gets them when nobody has any."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.peak_bytes = 0
        self._mutex = threading.Lock()

    def try_take(self, count: int) -> bool:
        """Take bytes unless they would be more than there are; tell whether."""
        with self._mutex:
            if self.used_bytes and self.used_bytes + count > self.limit_bytes:
                return False
            self.used_bytes += count
            self.peak_bytes = max(self.peak_bytes, self.used_bytes)
            return True

    def give(self, count: int) -> None:
        """Give bytes back."""
        with self._mutex:
            self.used_bytes -= count
            assert self.used_bytes >= 0
