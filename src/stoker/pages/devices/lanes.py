"""The order of work on one device: a stream of its own, and events instead of waiting for the whole device.

On the host work is done when the call returns; streams and events are then empty.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Arrival:
    """Copies that are on their way. `done` asks, `wait` waits; a tensor may be used before, work on it waits there."""

    def __init__(self, event: Any = None) -> None:
        self._event = event

    @property
    def done(self) -> bool:
        """Tell whether the copies are there."""
        return self._event is None or bool(self._event.query())

    def wait(self) -> None:
        """Return when the copies are there."""
        if self._event is not None:
            self._event.synchronize()


class Lane:
    """A stream of one device. Work inside `running` comes behind what its user queued so far, not before it."""

    def __init__(self, torch: Any, device: Any) -> None:
        self._torch = torch
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def running(self, stream: Any = None) -> Iterator[None]:
        """Queue work on the lane's stream, or on the one that is given, for a `with` block."""
        chosen = stream if stream is not None else self._stream
        if chosen is None:
            yield
            return
        cuda = self._torch.cuda
        chosen.wait_stream(cuda.current_stream(self._device))
        with cuda.stream(chosen):
            yield

    def arrival(self, stream: Any = None) -> Arrival:
        """Return what tells when the work queued so far is done."""
        chosen = stream if stream is not None else self._stream
        return Arrival(chosen.record_event() if chosen is not None else None)

    def join(self) -> None:
        """Let what its user queues from now on come behind the lane's work."""
        if self._stream is not None:
            self._torch.cuda.current_stream(self._device).wait_stream(self._stream)

    def barrier(self) -> None:
        """Return when the lane's work is done; other streams of the device go on."""
        if self._stream is not None:
            self._stream.synchronize()
