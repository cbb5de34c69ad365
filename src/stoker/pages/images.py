"""One page taken out of a store: what checkpoints hold, replay produces and differences compare."""

from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stoker.pages.errors import FormatError
from stoker.pages.frames import Location, PageState, Residency

SYSTEM: Final = 1
"""Page flag: the store's own page (the graph, the registrations), hidden from listings."""

MetaValue = str | int | float | bool | bytes | list[int | str] | None
Meta = dict[str, MetaValue]
"""What a page carries beside its bytes: `name`, `dtype`, `shape` and whatever its user adds."""


class PageImage(msgspec.Struct, gc=False):
    """A page at one moment: `data` are its bytes, uint8 of shape (size,); `meta` is a MessagePack map."""

    page: int
    epoch: int
    lsn: int
    data: NDArray[np.uint8]
    state: int = PageState.CLEAN
    location: int = Location.HOST
    residency: int = Residency.HOST
    elem_width: int = 1
    flags: int = 0
    meta: bytes = b"\x80"

    @property
    def size_bytes(self) -> int:
        """Bytes of the page."""
        return int(self.data.size)

    def facts(self) -> Meta:
        """Return the metadata; raises FormatError for bytes that are none."""
        return decode_meta(self.meta)


def encode_meta(meta: Meta) -> bytes:
    """Return metadata as bytes, equal for equal maps: keys in order."""
    return msgspec.msgpack.encode({key: meta[key] for key in sorted(meta)})


def decode_meta(encoded: bytes) -> Meta:
    """Return metadata from their bytes. Raises FormatError for bytes that are none."""
    try:
        found: Meta = msgspec.msgpack.decode(encoded, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise FormatError("metadata of a page cannot be read", got=str(error)) from error
    return found
