"""Clients over one volume and one store in memory, with a clock that a test moves."""

from collections.abc import Sequence
from typing import Any, TypeVar

from fs_place import Place
from slice_faults import FaultyStore

from stoker.core.errors import UnavailableError
from stoker.fs.client import Client, ClientOptions, OpenFile
from stoker.fs.meta import Volume
from stoker.fs.meta.answers import Answer, Refusal
from stoker.fs.meta.calls import READ, WRITE, Call, Create, GetAttr, Request, Write
from stoker.fs.meta.keys import ROOT
from stoker.fs.store.memory import MemorySliceStore

A = TypeVar("A")


class LossyMetadata:
    """The metadata of a volume, whose answers to what shows slices get lost, or are refusals, when told."""

    def __init__(self, volume: Volume) -> None:
        self.volume = volume
        self.settings = volume.settings
        self.lose_answers = 0
        self.refusal = 0
        self.submitted = 0
        self.asked = 0
        self.end_session = volume.end_session
        self.numbered = volume.numbered
        self.answered = volume.answered
        self.make_durable = volume.make_durable
        self.close = volume.close

    def run(self, request: Request[A], **named: Any) -> A:
        self.asked += 1
        return self.volume.run(request, **named)

    def submit(self, batch: Sequence[Call]) -> list[Answer]:
        self.submitted += 1
        writes = any(isinstance(call.request, Write) for call in batch)
        if writes and self.refusal:
            return [Refusal(self.refusal) for _ in batch]
        answers = self.volume.submit(batch)
        if writes and self.lose_answers:
            self.lose_answers -= 1
            raise UnavailableError("the answer got lost")
        return answers


class Clients:
    """A place with a store, and clients that do nothing by themselves unless told to have threads."""

    def __init__(self, capacity_bytes: int | None = None) -> None:
        self.place = Place()
        self.metadata = LossyMetadata(self.place.volume)
        self.slices = MemorySliceStore(capacity_bytes)
        self.store = FaultyStore(self.slices)
        self.made: list[Client] = []
        self.pauses: list[float] = []

    def client(self, *, threads: bool = False, **options: Any) -> Client:
        made = Client(
            self.metadata,
            self.store,
            ClientOptions(**options),
            threads=threads,
            clock=lambda: self.place.now_ns,
            pause=self.pauses.append,
        )
        self.made.append(made)
        return made

    def file(self, client: Client, name: bytes = b"f", access: int = READ | WRITE) -> OpenFile:
        return client.create(Create(ROOT, name, 0o666, access=access))[1]

    def size(self, client: Client, ino: int) -> int:
        return client.ask(GetAttr(ino)).attr.size_bytes

    def wait(self, seconds: float) -> None:
        self.place.now_ns += int(seconds * 1e9)

    def shown(self, ino: int) -> bytes:
        """Return what a new client reads of a file: what is shown to everybody."""
        with self.client() as other:
            handle = other.open(ino, READ)
            content = bytes(handle.read(0, 1 << 40))
            handle.close()
            return content

    def close(self) -> None:
        for client in self.made:
            client.close()
        self.place.sound()
