"""POSIX access control lists: the bytes of Linux's `system.posix_acl_*` attributes, and who they let do what.

The rules are those of acl(5): an owner's entry, named users, the owning and named groups, others; the mask bounds all
but the owner and the others. The owner's and others' entries, and the mask or else the group's entry, are the bits of
the file's mode: a change of one changes the other.
"""

import errno
import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from stoker.core.errors import CorruptError
from stoker.fs.meta.calls import Caller
from stoker.fs.meta.faults import Refused

ACCESS_NAME: Final = b"system.posix_acl_access"
DEFAULT_NAME: Final = b"system.posix_acl_default"

USER_OBJ: Final = 0x01
USER: Final = 0x02
GROUP_OBJ: Final = 0x04
GROUP: Final = 0x08
MASK: Final = 0x10
OTHER: Final = 0x20
_TAGS: Final = (USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER)
_VERSION: Final = 2
_NO_ID: Final = 0xFFFFFFFF
_HEAD: Final = struct.Struct("<I")
_ENTRY: Final = struct.Struct("<HHI")
_ENTRIES_MAX: Final = 8191  # what fits into 64 KiB


class AclEntry(msgspec.Struct, frozen=True):
    """An entry: its kind, what it allows (4 read, 2 write, 1 execute), and the user or group of a named one."""

    tag: int
    allows: int
    id: int = _NO_ID


Acl = tuple[AclEntry, ...]


def parse_acl(data: bytes) -> Acl:
    """Return a list from its bytes; no entry is none at all. Raises Refused: EINVAL for bytes that are none,
    EOPNOTSUPP for another version. Whether the entries make a list, `check_acl` tells."""
    count, rest = divmod(len(data) - _HEAD.size, _ENTRY.size)
    if rest or not 0 <= count <= _ENTRIES_MAX:
        raise Refused(errno.EINVAL)
    if _HEAD.unpack_from(data)[0] != _VERSION:
        raise Refused(errno.EOPNOTSUPP)
    acl = tuple(AclEntry(*fields) for fields in _ENTRY.iter_unpack(data[_HEAD.size :]))
    if any(entry.tag not in _TAGS for entry in acl):
        raise Refused(errno.EINVAL)
    return acl


def check_acl(acl: Acl) -> None:
    """Raise Refused (EINVAL) unless each needed entry is there once, in order, and a mask where names are."""
    tags = [entry.tag for entry in acl]
    named = [(entry.tag, entry.id) for entry in acl if entry.tag in (USER, GROUP)]
    once = all(tags.count(tag) == 1 for tag in (USER_OBJ, GROUP_OBJ, OTHER)) and tags.count(MASK) <= 1
    masked = not named or MASK in tags
    ordered = tags == sorted(tags) and len(set(named)) == len(named)
    if not (once and masked and ordered and all(entry.allows < 8 for entry in acl)):
        raise Refused(errno.EINVAL)


def stored_acl(data: bytes) -> Acl:
    """Return a list that a row holds. Raises CorruptError for one that could not have been set."""
    try:
        acl = parse_acl(data)
        check_acl(acl)
    except Refused:
        raise CorruptError("access control list is not readable", got=f"{len(data)} bytes") from None
    return acl


def pack_acl(acl: Acl) -> bytes:
    """Return a list as bytes."""
    entries = (
        _ENTRY.pack(entry.tag, entry.allows, entry.id if entry.tag in (USER, GROUP) else _NO_ID) for entry in acl
    )
    return _HEAD.pack(_VERSION) + b"".join(entries)


def is_minimal(acl: Acl) -> bool:
    """Tell whether a list says nothing that a mode does not."""
    return len(acl) == 3


def mode_of(acl: Acl) -> int:
    """Return the nine bits of the mode that a list stands for."""
    by_tag = {entry.tag: entry.allows for entry in acl if entry.tag not in (USER, GROUP)}
    return by_tag[USER_OBJ] << 6 | by_tag.get(MASK, by_tag[GROUP_OBJ]) << 3 | by_tag[OTHER]


def with_mode(acl: Acl, mode: int) -> Acl:
    """Return a list after a chmod: owner, mask (or group, without one) and others as the mode says."""
    has_mask = any(entry.tag == MASK for entry in acl)
    new = {USER_OBJ: mode >> 6 & 7, MASK if has_mask else GROUP_OBJ: mode >> 3 & 7, OTHER: mode & 7}
    return tuple(AclEntry(e.tag, new.get(e.tag, e.allows), e.id) for e in acl)


def inherited(default: Acl, mode: int) -> tuple[Acl, int]:
    """Return the list of what is made in a directory with a default one, and its mode: each bounds the other."""
    has_mask = any(entry.tag == MASK for entry in default)
    bound = {USER_OBJ: mode >> 6 & 7, MASK if has_mask else GROUP_OBJ: mode >> 3 & 7, OTHER: mode & 7}
    acl = tuple(AclEntry(e.tag, e.allows & bound.get(e.tag, 7), e.id) for e in default)
    return acl, mode & ~0o777 | mode_of(acl)


def allowed(acl: Acl, owner: int, group: int, caller: Caller, wanted: int) -> bool:
    """Tell whether a list lets the caller do all of `wanted` on what `owner` and `group` own."""
    mask = next((entry.allows for entry in acl if entry.tag == MASK), 7)
    for entry in acl:
        if entry.tag == USER_OBJ and caller.uid == owner:
            return entry.allows & wanted == wanted
    for entry in acl:
        if entry.tag == USER and caller.uid == entry.id:
            return entry.allows & mask & wanted == wanted
    groups = _of_groups(acl, group, caller)
    if groups:
        return any(allows & mask & wanted == wanted for allows in groups)
    return next(entry.allows for entry in acl if entry.tag == OTHER) & wanted == wanted


def _of_groups(acl: Acl, group: int, caller: Caller) -> Sequence[int]:
    return [
        entry.allows
        for entry in acl
        if (entry.tag == GROUP_OBJ and caller.belongs_to(group)) or (entry.tag == GROUP and caller.belongs_to(entry.id))
    ]
