"""Who may talk: tokens that never travel, certificates, and where a server may listen.

Both ends prove that they have the token by an HMAC-SHA-256 over all that was said before, so that nobody in between
changes the hello unnoticed. Without TLS what follows is neither secret nor sealed: beyond a network one trusts, use it.
"""

import hashlib
import hmac
import ipaddress
import logging
import os
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from stoker.core.errors import UsageError

_log: Final = logging.getLogger("stoker.fs.wire")
TOKEN_CHARACTERS_MIN: Final = 16
TOKEN_BYTES_MAX: Final = 4096
TOKEN_VARIABLE: Final = "STOKER_FS_TOKEN"  # noqa: S105 - the name of a variable
_SERVER: Final = b"stoker wire 1 server"
_CLIENT: Final = b"stoker wire 1 client"


class TlsFiles(msgspec.Struct, frozen=True):
    """Paths of a certificate, its key, and of the authority that signs those of peers, if they must show any."""

    certificate: str
    key: str
    authority: str = ""

    def for_server(self) -> "Tls":
        """Return how this process serves: with an authority clients must show a certificate. Raises UsageError."""
        return server_tls(Path(self.certificate), Path(self.key), Path(self.authority) if self.authority else None)

    def for_client(self) -> "Tls | None":
        """Return how this process asks others, None without an authority that they could be held against."""
        if not self.authority:
            return None
        return client_tls(Path(self.authority), Path(self.certificate), Path(self.key))


def read_token(path: Path | None) -> str | None:
    """Return the token in a file, or that of the environment's STOKER_FS_TOKEN, None where there is neither.

    Raises UsageError for one that is too short or long, and for a file that others may read.
    """
    if path is None:
        found = os.environ.get(TOKEN_VARIABLE)
        return None if found is None else check_token(found.strip(), TOKEN_VARIABLE)
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(TOKEN_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError("file of the token cannot be read", where=str(path), got=error.strerror or "") from error
    if stat.S_IMODE(mode) & 0o077:
        raise UsageError("file of the token is open to others", where=str(path), remedy=f"chmod 600 {path}")
    return check_token(data.decode(errors="replace").strip(), str(path))


def check_token(token: str, where: str) -> str:
    """Return a token. Raises UsageError for one that can be guessed, or is endless."""
    if not TOKEN_CHARACTERS_MIN <= len(token) <= TOKEN_BYTES_MAX:
        raise UsageError(
            "token does not fit",
            where=where,
            expected=f"{TOKEN_CHARACTERS_MIN} to {TOKEN_BYTES_MAX} characters",
            got=str(len(token)),
        )
    return token


def client_proof(token: str, said: bytes) -> bytes:
    """Return what proves to a server that the client has the token; `said` is all that went before, both ways."""
    return hmac.new(token.encode(), _CLIENT + hashlib.sha256(said).digest(), hashlib.sha256).digest()


def server_proof(token: str, said: bytes) -> bytes:
    """Return what proves to a client that the server has the token."""
    return hmac.new(token.encode(), _SERVER + hashlib.sha256(said).digest(), hashlib.sha256).digest()


class Tls:
    """Certificates by their files, which are read again once they have changed: each new connection asks for `current`.

    Files that cannot be used, such as a certificate whose key has not been put beside it yet, leave what was in use in
    use; that is told once for each state of the files, to the log.
    """

    def __init__(self, files: Sequence[Path], make: Callable[[], ssl.SSLContext]) -> None:
        self._files = tuple(files)
        self._make = make
        self._mutex = threading.Lock()
        self._seen = self._look()  # before reading: what is changed meanwhile differs at the next look
        self._context = make()
        self.asks_peers = self._context.verify_mode == ssl.CERT_REQUIRED

    def current(self) -> ssl.SSLContext:
        """Return how a new connection is encrypted."""
        with self._mutex:
            seen = self._look()
            if seen != self._seen:
                self._seen = seen
                self._read_again()
            return self._context

    def _read_again(self) -> None:
        names = ", ".join(map(str, self._files))
        try:
            self._context = self._make()
        except UsageError as error:
            _log.warning("TLS files have changed and cannot be used; those read before stay in use: %s", error)
        else:
            _log.info("TLS files have changed and were read again: %s", names)

    def _look(self) -> tuple[tuple[int, int, int, int] | None, ...]:
        return tuple(map(_state_of, self._files))


def _state_of(path: Path) -> tuple[int, int, int, int] | None:
    """Return what differs between two states of a file, None where it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def server_tls(certificate: Path, key: Path, authority: Path | None = None) -> Tls:
    """Return how a server shows its certificate; with `authority` clients must show one that it has signed.

    Raises UsageError for files that are no such thing.
    """

    def made() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        _load(context, certificate, key, authority)
        if authority is not None:
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    return Tls([path for path in (certificate, key, authority) if path is not None], made)


def client_tls(authority: Path, certificate: Path | None = None, key: Path | None = None) -> Tls:
    """Return how a client verifies servers, by their names or addresses, and shows its own certificate if it has one.

    Raises UsageError for files that are no such thing.
    """

    def made() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        _load(context, certificate, key, authority)
        return context

    return Tls([path for path in (certificate, key, authority) if path is not None], made)


def _load(context: ssl.SSLContext, certificate: Path | None, key: Path | None, authority: Path | None) -> None:
    files = [str(path) for path in (certificate, key, authority) if path is not None]
    try:
        if certificate is not None:
            context.load_cert_chain(certificate, key)
        if authority is not None:
            context.load_verify_locations(authority)
    except OSError as error:  # ssl.SSLError is one of them
        raise UsageError("TLS files cannot be used", where=", ".join(files), got=str(error)) from error


def may_listen(host: str, token: str | None, tls: Tls | None) -> None:
    """Raise UsageError for a server that whoever reaches it could use: beyond loopback it must know its clients."""
    if token is not None or (tls is not None and tls.asks_peers) or is_loopback(host):
        return
    raise UsageError(
        "a server beyond loopback must know its clients",
        where=host,
        expected="a token, or TLS that asks for clients' certificates",
        remedy=f"give --token-file or {TOKEN_VARIABLE}, or --tls-ca, or listen on 127.0.0.1",
    )


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine alone. Raises UsageError for one that is not known."""
    if not host:
        return False  # every address
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError("address to listen on is not known", where=host, got=str(error)) from error
    return all(ipaddress.ip_address(str(entry[4][0]).partition("%")[0]).is_loopback for entry in found)


def parse_address(text: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[v6]:port`. Raises UsageError for other text."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535 or not host:
        raise UsageError("address is not readable", where=text, expected="host:port, such as 127.0.0.1:7000")
    return host.removeprefix("[").removesuffix("]"), int(port)


def address_text(host: str, port: int) -> str:
    """Return an address as `parse_address` reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
