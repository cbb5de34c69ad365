"""The order of work on one device: a stream of its own, and events instead of waiting for the whole device.

On the host work is done when the call returns; streams and events are then empty.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from stoker.pages.errors import DeviceError


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
        """Queue work on the lane's stream, or on the one that is given, for a `with` block.

        What its user queues afterwards comes behind it. Raises DeviceError where the device fails or is full.
        """
        chosen = stream if stream is not None else self._stream
        try:
            if chosen is None:
                yield
                return
            users = self._torch.cuda.current_stream(self._device)
            chosen.wait_stream(users)
            with self._torch.cuda.stream(chosen):
                yield
            users.wait_stream(chosen)
        except RuntimeError as error:
            told = str(error).partition("\n")[0]
            raise DeviceError("work on the device failed", where=str(self._device), got=told) from error

    def arrival(self) -> Arrival:
        """Return what tells when the work queued so far is done; inside `running`."""
        if self._stream is None:
            return Arrival()
        return Arrival(self._torch.cuda.current_stream(self._device).record_event())

    def barrier(self) -> None:
        """Return when the lane's work is done; other streams of the device go on."""
        if self._stream is not None:
            self._stream.synchronize()
