"""Where a database is: `milvus://host:port/database`, `postgresql://host:port/database`, or a folder."""

import re
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from stoker.core.errors import UsageError
from stoker.core.files import redact_url
from stoker.vectors.engine import Address, engine_kind

SCHEMES: Final = {
    "milvus": "milvus",
    "postgresql": "pgvector",
    "postgres": "pgvector",
    "milvus-lite": "milvus-lite",
    "file": "milvus-lite",
}
NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")


class Placed(msgspec.Struct, frozen=True):
    """An engine and where it is."""

    engine: str
    address: Address

    @property
    def told(self) -> str:
        """Return it for people."""
        address = self.address
        place = address.uri or f"{address.host}:{address.port}" + (f"/{address.database}" if address.database else "")
        return f"{self.engine} at {place}"


def place_of(target: str) -> Placed:
    """Return the database that a target names.

    Raises UsageError for a target that is none, or that holds a password: it would stand in process lists.
    """
    scheme, colon, rest = target.partition("://")
    if not colon:
        return Placed("milvus-lite", Address(uri=target))
    engine = SCHEMES.get(scheme)
    if engine is None:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise UsageError("no vector database", where=redact_url(target), expected=f"{known}, or a folder")
    if engine == "milvus-lite":
        return Placed(engine, Address(uri=unquote(rest)))
    try:
        parts = urlsplit(target)
        host, port = unquote(parts.hostname or "127.0.0.1"), parts.port
    except ValueError as error:
        raise UsageError("not the address of a database", where=redact_url(target), got=str(error)) from error
    if parts.username or parts.password or parts.query:
        raise UsageError(
            "a target holds neither user nor password",
            where=redact_url(target),
            remedy="set STOKER_VECTOR_USER and STOKER_VECTOR_PASSWORD, or STOKER_VECTOR_TOKEN",
        )
    return placed(engine, _socket_folder(parts.netloc) or host, port, database=unquote(parts.path.strip("/")))


def _socket_folder(netloc: str) -> str:
    """Return the folder of a Unix socket: `postgresql://%2Frun%2Fpg/database`, in its own case."""
    host = unquote(netloc.partition(":")[0])
    return host if host.startswith("/") else ""


def placed(engine: str, host: str, port: int | None, *, database: str = "", folder: str = "") -> Placed:
    """Return an engine at a host and port; one that is embedded is at a folder.

    Raises UnknownNameError for an engine that nobody registered, MissingExtraError for one that is not installed.
    """
    default = engine_kind(engine).default_port
    if not default:
        if not folder:
            raise UsageError(f"{engine} keeps its data in a folder", remedy="name it")
        return Placed(engine, Address(uri=folder))
    return Placed(engine, Address(host=host, port=port or default, database=database))


def packed_address(address: Address) -> str:
    """Return an address as a plan has it: `host:port`, and behind a bar the folder of an embedded database."""
    return f"{address.host}:{address.port}" + (f"|{address.uri}" if address.uri else "")


def check_name(name: str) -> None:
    """Raise UsageError for a collection's name that a database may take for something else."""
    if not NAME.fullmatch(name):
        raise UsageError("not a collection's name", where=name, expected="letters, digits and _, at most 63")
