"""Requests and answers over TCP: frames with checksums, a hello with versions and tokens, bounded memory."""

from stoker.fs.wire.begun import AskAgainError, Begun, is_no_answer
from stoker.fs.wire.connection import ClientOptions, Connection
from stoker.fs.wire.faults import let_travel
from stoker.fs.wire.operations import Asker, FileSpan, FileSpans, Operation
from stoker.fs.wire.peer import Peer
from stoker.fs.wire.server import RpcServer, ServerOptions

__all__ = [
    "AskAgainError",
    "Asker",
    "Begun",
    "ClientOptions",
    "Connection",
    "FileSpan",
    "FileSpans",
    "Operation",
    "Peer",
    "RpcServer",
    "ServerOptions",
    "is_no_answer",
    "let_travel",
]
