"""Requests about who holds the names of a directory, and numbers for the files that are made there without asking."""

from stoker.fs.meta.answers import Done, Entry, Number
from stoker.fs.meta.calls import Request


class HoldNames(Request[Entry], frozen=True):
    """Let nobody else change the names in a directory for `ttl_ns` from now, or once more so long.

    Refused (EAGAIN) while another session holds them, or when another has asked for them.
    """

    ino: int
    ttl_ns: int


class AskNames(Request[Done], frozen=True):
    """Ask whoever holds the names of a directory to give them back: no hold is made longer from now on."""

    ino: int


class ReturnNames(Request[Done], frozen=True):
    """Give back the names of a directory, where the caller's session holds them."""

    ino: int


class TakeInodes(Request[Number], frozen=True):
    """Take `count` numbers for inodes; nobody else gets them."""

    count: int
