"""What can be chosen about a mount."""

from typing import Annotated, Final

import msgspec

_Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e6)]
MOUNT_TYPE: Final = "fuse.stoker"


class MountOptions(msgspec.Struct, frozen=True):
    """Options of a mount.

    entry_seconds  how long the kernel may believe a name without asking
    attr_seconds   how long it may believe attributes
    read_only      nothing can be changed through this mount
    allow_other    other users than the one who mounts may use it, within the permissions of the files
    strict         the kernel believes nothing and keeps no bytes of files: each read and each name is asked for
    threads        how many requests are worked on at once
    """

    entry_seconds: _Seconds = 1.0
    attr_seconds: _Seconds = 1.0
    read_only: bool = False
    allow_other: bool = False
    strict: bool = False
    threads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16
