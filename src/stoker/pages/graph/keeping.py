"""Where a store keeps its graph: in pages of its own, so that log, checkpoints and replay hold it like any other."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from stoker.pages.errors import FormatError, PageNotFound
from stoker.pages.graph.edges import HEADER, MAGIC, RECORD, Edge, decode_edges, encode_edges, encode_record
from stoker.pages.graph.nodes import Derivation
from stoker.pages.images import SYSTEM
from stoker.pages.page import Page
from stoker.pages.store import Store

EDGES: Final = "\0edges"
DERIVATIONS: Final = "\0derivations"
SIGNATURES: Final = "\0signatures"
_FIRST_BYTES: Final = 4096
_T = TypeVar("_T")


class GraphKeeper:
    """The pages that hold a store's edges, derivations and signatures."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._count, self._count_epoch = 0, -1

    def _page(self, name: str) -> Page | None:
        try:
            return self._store.page(name)
        except PageNotFound:
            return None

    def _made(self, name: str, size_bytes: int) -> Page:
        page = self._page(name)
        if page is None:
            with self._store.batch() as batch:
                page = batch.allocate(max(size_bytes, _FIRST_BYTES), name=name, flags=SYSTEM)
        if page.size_bytes < size_bytes:
            page.resize(max(size_bytes, 2 * page.size_bytes))
        return page

    # -- edges ---------------------------------------------------------------------------------------------------

    def edges(self) -> list[Edge]:
        """Return the edges that are kept. Raises FormatError."""
        page = self._page(EDGES)
        if page is None:
            return []
        found: dict[Edge, None] = {}
        for edge, added in decode_edges(page.read().tobytes()):
            if added:
                found[edge] = None
            else:
                found.pop(edge, None)
        return list(found)

    def append(self, edges: Sequence[Edge], *, add: bool) -> None:
        """Log that edges came or went; the page is made small again when most of it is about edges that are gone."""
        if not edges:
            return
        page = self._made(EDGES, HEADER.size)
        count = self._count if self._count_epoch == page.epoch else self._counted(page)
        records = b"".join(encode_record(edge, add=add) for edge in edges)
        end = HEADER.size + (count + len(edges)) * RECORD.size
        if end > page.size_bytes:
            kept = self.edges() if count else []
            kept = [*kept, *edges] if add else [edge for edge in kept if edge not in set(edges)]
            whole = encode_edges(kept)
            page = self._made(EDGES, 2 * len(whole))
            with self._store.batch(source="graph") as batch:
                batch.write_at(page, 0, whole)
            self._count, self._count_epoch = len(kept), page.epoch
            return
        with self._store.batch(source="graph") as batch:
            batch.write_at(page, HEADER.size + count * RECORD.size, records)
            batch.write_at(page, 0, HEADER.pack(MAGIC, count + len(edges)))
        self._count, self._count_epoch = count + len(edges), page.epoch

    @staticmethod
    def _counted(page: Page) -> int:
        head = page.read()[: HEADER.size].tobytes()
        return int(HEADER.unpack(head)[1]) if head[:8] == MAGIC else 0

    # -- derivations and signatures ------------------------------------------------------------------------------

    def derivations(self) -> dict[int, Derivation]:
        """Return how derived pages are made. Raises FormatError."""
        return {node.page: node for node in self._load(DERIVATIONS, list[Derivation])}

    def save_derivations(self, derivations: Mapping[int, Derivation]) -> None:
        """Keep how derived pages are made."""
        self._save(DERIVATIONS, [derivations[page] for page in sorted(derivations)])

    def signatures(self) -> dict[int, dict[int, int]]:
        """Return, for each derived page, the epochs of the inputs that it was made from. Raises FormatError."""
        kept = self._load(SIGNATURES, list[tuple[int, list[tuple[int, int]]]])
        return {page: dict(pairs) for page, pairs in kept}

    def save_signatures(self, signatures: Mapping[int, Mapping[int, int]]) -> None:
        """Keep from which epochs derived pages were made: they need not be made again after a restart."""
        if signatures or self._page(SIGNATURES):
            self._save(SIGNATURES, [(page, sorted(signatures[page].items())) for page in sorted(signatures)])

    def _load(self, name: str, kind: type[_T]) -> _T:
        page = self._page(name)
        data = page.read().tobytes() if page else b""
        length = int.from_bytes(data[:8], "little")
        encoded = data[8 : 8 + length] if length else msgspec.msgpack.encode([])
        try:
            return msgspec.msgpack.decode(encoded, type=kind)
        except msgspec.MsgspecError as error:
            raise FormatError("page of the graph cannot be read", where=name.strip("\0"), got=str(error)) from error

    def _save(self, name: str, value: object) -> None:
        encoded = msgspec.msgpack.encode(value)
        page = self._made(name, 8 + len(encoded))
        with self._store.batch(source="graph") as batch:
            batch.write_at(page, 0, len(encoded).to_bytes(8, "little") + encoded)
