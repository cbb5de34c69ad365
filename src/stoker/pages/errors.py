"""What can go wrong with pages; every class belongs to the tree of `stoker.core.errors`.

PagesError                  something went wrong with a store of pages
├─ PageNotFound             no live page has this id or name
├─ InvalidDelta             a delta does not fit the page it is for
├─ Conflict                 the page has another epoch than was expected: read again, decide again
├─ CycleError               an edge would close a cycle; the path is told
├─ DeriveError              a recompute failed; its page and its descendants stay stale, and can be tried again
├─ DeviceError              a device is missing, full or failed
├─ OutOfSpace               the arena, the log ring or the disk is full
├─ Timeout                  a wait passed its deadline
├─ Poisoned                 the log could not be written: nothing more is accepted, everything is readable
└─ CorruptPages             bytes are not what they promise (also a CorruptError)
   ├─ FormatError           not our file, or a version we do not know
   ├─ ChecksumError         a checksum does not match
   ├─ Quarantined           the page's bytes are not what the log gives: neither read nor written before it is healed
   └─ CorruptLog            damage in the middle of a log; a torn tail is none
"""

from stoker.core.errors import CorruptError, NoSpaceError, NotFoundError, StokerError, UsageError


class PagesError(StokerError):
    """Something went wrong with a store of pages."""


class PageNotFound(PagesError, NotFoundError):
    """No live page has this id or name."""


class InvalidDelta(PagesError, UsageError):
    """A delta does not fit the page it is for, or its parts do not fit each other."""


class Conflict(PagesError):
    """The page has another epoch than was expected; nothing was written."""


class CycleError(PagesError, UsageError):
    """An edge would close a cycle; `path` holds the ids from the child back to the child."""

    path: tuple[int, ...] = ()


class DeriveError(PagesError):
    """A recompute failed; its page and the pages below stay stale, and can be tried again."""


class DeviceError(PagesError):
    """A device is missing, full or failed."""


class OutOfSpace(PagesError, NoSpaceError):
    """The arena, the log ring or the disk is full; nothing was written."""


class Timeout(PagesError):
    """A wait passed its deadline."""


class Poisoned(PagesError):
    """The log could not be written or made durable: the store takes no more writes, and all pages can be read."""


class CorruptPages(PagesError, CorruptError):
    """Bytes are not what they promise."""


class FormatError(CorruptPages):
    """Not a file of ours, or a version this release does not know."""


class ChecksumError(CorruptPages):
    """A checksum does not match; the bytes are withheld."""


class Quarantined(CorruptPages):
    """The page's bytes are not what the log gives: they are neither given out nor built upon."""


def quarantined(page: int) -> Quarantined:
    """Return the error for the use of a page in quarantine."""
    return Quarantined(
        "page is in quarantine: its bytes are not what the log gives",
        where=str(page),
        remedy="heal it: Store.heal, or `stoker pages heal`",
    )


class CorruptLog(CorruptPages):
    """Valid records lie behind damaged ones: this is not a torn tail."""
