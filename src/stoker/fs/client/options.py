"""What can be chosen about a client."""

from typing import Annotated, Final

import msgspec

PIECE_BYTES: Final = 4 << 20
"""A file's bytes are stored in slices of this size at most, on a grid of it: the 64 MiB grid holds sixteen."""

_Seconds = Annotated[float, msgspec.Meta(gt=0)]
_Count = Annotated[int, msgspec.Meta(ge=1)]
_Bytes = Annotated[int, msgspec.Meta(ge=0)]


class ClientOptions(msgspec.Struct, frozen=True):
    """Options of a client.

    session_seconds    how long the session outlives its last sign of life: then others may take its locks
    slice_numbers      how many numbers for slices are taken at once
    buffer_bytes       how many written bytes may wait in memory, in all files together: beyond it writers flush
    commit_bytes       how many bytes of one file may wait before it is flushed in the background
    flush_seconds      how long written bytes wait at most before they are flushed
    threads            how many pieces are stored, or read ahead, at once
    attempts           how often a store or the metadata is asked in all before a passing failure is an error
    pause_seconds      before the second attempt; each further pause is twice as long
    hold_seconds       how long the names of a directory are held at a time in which files are being made, so that
                       making one asks nobody; others who want to change it wait for them. 0 is never
    strict             every read asks the metadata what shows now, and every write is shown before it returns
    attribute_seconds  how long what a file shows is believed while it stays open; opening asks anew in any case
    entry_seconds      how long names, attributes, and that there is no such name, are believed by `ask`; 0 is never
    cache_bytes        memory for blocks of slices
    block_bytes        what is cached, and read from the store, at least
    readahead_bytes    how far reading ahead goes at most; 0 is never
    """

    session_seconds: _Seconds = 60.0
    slice_numbers: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] = 4096
    buffer_bytes: _Count = 256 << 20
    commit_bytes: _Count = 64 << 20
    flush_seconds: _Seconds = 5.0
    threads: _Count = 8
    attempts: _Count = 5
    pause_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.05
    hold_seconds: Annotated[float, msgspec.Meta(ge=0, le=10)] = 0.0
    strict: bool = False
    attribute_seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    entry_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    cache_bytes: _Bytes = 256 << 20
    block_bytes: Annotated[int, msgspec.Meta(ge=4096, le=PIECE_BYTES)] = 256 << 10
    readahead_bytes: _Bytes = 32 << 20
