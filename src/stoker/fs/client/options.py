"""What can be chosen about a client."""

from typing import Annotated, Final

import msgspec

PIECE_BYTES: Final = 4 << 20
"""A file's bytes are stored in slices of this size at most, on a grid of it: the 64 MiB grid holds sixteen."""

_Positive = Annotated[float, msgspec.Meta(gt=0)]


class ClientOptions(msgspec.Struct, frozen=True):
    """Options of a client.

    session_seconds  how long the session outlives its last sign of life: then others may take its locks
    slice_numbers    how many numbers for slices are taken at once
    storage_class    what new slices are stored as
    """

    session_seconds: _Positive = 60.0
    slice_numbers: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 4096
    storage_class: Annotated[int, msgspec.Meta(ge=0, lt=2**16)] = 0
