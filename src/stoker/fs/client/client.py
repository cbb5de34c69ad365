"""A client: one session with the metadata, one store of slices, and the files that are open over both."""

from collections.abc import Sequence
from typing import TypeVar

from stoker.fs.client.errors import refusing
from stoker.fs.client.numbers import SliceNumbers
from stoker.fs.client.openfile import OpenFile
from stoker.fs.client.options import ClientOptions
from stoker.fs.client.session import Keeper, Session
from stoker.fs.meta.answers import Entry, Shown
from stoker.fs.meta.calls import Caller, Create, Open, ReadExtents, Request
from stoker.fs.meta.records import FILE_BYTES_MAX
from stoker.fs.meta.service import Metadata
from stoker.fs.meta.slices import Slice
from stoker.fs.store.interface import Bytes, SliceStore

A = TypeVar("A")
_SUPERUSER = Caller()
_DEFAULTS = ClientOptions()


class Client:
    """Opens files. All methods may be called from many threads; a forked child must make its own.

    The client ends its session when it is closed; the metadata and the store stay the caller's.
    """

    def __init__(
        self, metadata: Metadata, store: SliceStore, options: ClientOptions = _DEFAULTS, *, keeper: bool = True
    ) -> None:
        self.metadata = metadata
        self.store = store
        self.options = options
        self.session = Session(metadata, options.session_seconds, self._lost)
        self.session.number  # noqa: B018 - begins it
        self._numbers = SliceNumbers(metadata, options.slice_numbers)
        self._keeper = Keeper(self.session.renew, self.session.renewal_seconds, "stoker-fs-keep") if keeper else None
        self._closed = False

    def _lost(self, number: int) -> None:
        """Hear that a session is over: its files refuse from now on, by its number."""

    def ask(self, request: Request[A], *, caller: Caller = _SUPERUSER) -> A:
        """Do a request in the client's session; attributes tell what was written, committed or not."""
        return self.metadata.run(request, caller=caller, session=self.session.number)

    def open(self, ino: int, access: int, *, truncate: bool = False, caller: Caller = _SUPERUSER) -> OpenFile:
        """Open a file to READ, WRITE or both (their sum)."""
        number = self.session.number
        self.metadata.run(Open(ino, access, truncate), caller=caller, session=number)
        return OpenFile(self, ino, access, number, caller)

    def create(self, request: Create, *, caller: Caller = _SUPERUSER) -> tuple[Entry, OpenFile]:
        """Make a file, or find it, and open it as the request's `access` says."""
        number = self.session.number
        entry = self.metadata.run(request, caller=caller, session=number)
        return entry, OpenFile(self, entry.ino, request.access, number, caller)

    def store_slice(self, data: Bytes) -> Slice:
        """Store bytes as a new slice."""
        new = Slice(self._numbers.take(), 0, len(data), self.options.storage_class)
        self.store.write(new, [data], durable=False)
        return new

    def layout(self, ino: int, session: int, offset: int) -> tuple[int, Sequence[Shown]]:
        """Return a file's size and what shows in it from `offset` on."""
        with refusing("read", f"inode {ino}"):
            answer = self.metadata.run(ReadExtents(ino, max(offset, 0), FILE_BYTES_MAX), session=session)
            return answer.size_bytes, answer.shown

    def close(self) -> None:
        """Close all files and end the session; closing twice is harmless."""
        if self._closed:
            return
        self._closed = True
        if self._keeper is not None:
            self._keeper.stop()
        self.session.end()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
