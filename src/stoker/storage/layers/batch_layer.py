"""What every layer over a batch reader has in common: it is as the inner one is, but for what it changes."""

from stoker.storage.batch import BatchReader


class BatchLayer:
    """The unchanged part of a `BatchReader` over another."""

    def __init__(self, inner: BatchReader) -> None:
        self._inner = inner
        self.block_bytes = inner.block_bytes
        self.queues = inner.queues

    @property
    def chosen(self) -> dict[str, str | int]:
        """Return what the inner reader works with."""
        return self._inner.chosen

    def tune(self, *, queue_depth: int, request_bytes: int) -> None:
        """Use other settings from the next batch on."""
        self._inner.tune(queue_depth=queue_depth, request_bytes=request_bytes)

    def close(self) -> None:
        """Close the inner reader."""
        self._inner.close()
