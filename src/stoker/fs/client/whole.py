"""Whole files in one step: small ones share packs and commits, and nothing is asked before."""

import errno
from collections.abc import Iterable, Sequence
from itertools import chain

import msgspec

from stoker.fs.client.commits import DurabilityError
from stoker.fs.client.packs import LOOSE_BYTES_MAX, Loose, Part, shown_by
from stoker.fs.client.works import Works
from stoker.fs.meta.answers import Answer, Entry, Refusal
from stoker.fs.meta.calls import Call, Caller, GetAttr, Lookup, Put
from stoker.fs.meta.faults import meta_error
from stoker.fs.store.interface import Bytes

_CLASSES_MAX = 4096


class WholeFiles:
    """Makes files of bytes. Which class a directory gives is remembered: who was wrong is told, and stores again."""

    def __init__(self, works: Works) -> None:
        self._works = works
        self._classes: dict[int, int] = {}

    def put(self, request: Put, contents: Iterable[Bytes], session: int, caller: Caller) -> Entry:
        """Store bytes and make a file of them; see `Client.put`. Raises MetaError, StoreError."""
        source = (one for one in contents if len(one))
        head = [one for _, one in zip(range(2), source, strict=False)]
        if len(head) > 1 or (head and len(head[0]) > LOOSE_BYTES_MAX):
            kind = self._asked_class(request)
            slices = self._works.store_all(chain(head, source), session, kind)
            return self._told(
                request, self._shown(msgspec.structs.replace(request, slices=tuple(slices)), caller, session)
            )
        return self._put_small(request, head[0] if head else b"", session, caller)

    def _shown(self, request: Put, caller: Caller, session: int) -> Answer:
        try:
            return self._works.commits.commit(request.slices, [Call(request, caller, session)])[0]
        except DurabilityError as failed:
            raise failed.error from failed

    def _put_small(self, request: Put, data: Bytes, session: int, caller: Caller) -> Entry:
        """Make a file of few bytes: in a pack, with the class that the directory gave last, if that still fits."""
        known = self._classes.get(request.parent)
        kind = self._asked_class(request) if known is None else known
        answer = self._packed(request, data, kind, session, caller, fitting=known is not None)
        if isinstance(answer, Refusal) and answer.errno == errno.EAGAIN:
            # Another class, or a pack that was freed meanwhile: stored anew, alone, as the file itself says.
            kind = self._asked_class(request)
            answer = self._packed(request, data, kind, session, caller, alone=True)
        return self._told(request, answer)

    def _packed(
        self,
        request: Put,
        data: Bytes,
        kind: int,
        session: int,
        caller: Caller,
        *,
        fitting: bool = False,
        alone: bool = False,
    ) -> Answer:
        loose = [Loose(data, session, kind, alone)] if len(data) else []

        def calls(parts: Sequence[Part]) -> list[Call]:
            slices, shown = shown_by(parts)
            whole = msgspec.structs.replace(request, slices=slices, parts=shown, fitting=fitting)
            return [Call(whole, caller, session)]

        try:
            return self._works.commits.commit_loose((), loose, calls)[0]
        except DurabilityError as failed:
            raise failed.error from failed

    def _asked_class(self, request: Put) -> int:
        """Return the storage class of a file that is there, or what its directory gives to a new one."""
        questions = [Call(GetAttr(request.parent)), Call(Lookup(request.parent, request.name))]
        folder, file = self._works.metadata.submit(questions)
        given = folder.attr.storage_class if isinstance(folder, Entry) else 0
        if len(self._classes) >= _CLASSES_MAX:
            self._classes.clear()
        self._classes[request.parent] = given
        return file.attr.storage_class if isinstance(file, Entry) else given

    @staticmethod
    def _told(request: Put, answer: Answer) -> Entry:
        if isinstance(answer, Refusal):
            raise meta_error(answer.errno, "put", request.name.decode(errors="backslashreplace"), answer.detail)
        assert isinstance(answer, Entry)
        return answer
