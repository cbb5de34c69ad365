"""The client of a real etcd, over gRPC: the channel is grpcio's, the few messages are ours.

A request goes to one server, once, and may take 0.3 s; where no answer comes the next server is asked from then on, and
the caller is told that the outcome is unknown. Nothing is sent again behind the caller's back: only he knows what may
be done twice.

User, password and certificates come from files or the environment, never from a URL or a command line:
STOKER_ETCD_USER, STOKER_ETCD_PASSWORD_FILE, STOKER_ETCD_CA_FILE, STOKER_ETCD_CERT_FILE, STOKER_ETCD_KEY_FILE.
"""

import os
import queue
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import grpc
import msgspec

from stoker.core.errors import CorruptError, DeniedError, NoSpaceError, StokerError, StoreError, UsageError
from stoker.fs.journal import protobuf
from stoker.fs.journal.etcd import (
    TRY_SECONDS,
    Compact,
    CompactedError,
    Get,
    MemberStatus,
    Outcome,
    Request,
    Seen,
    UnknownOutcomeError,
)

_ANSWER_BYTES_MAX: Final = 128 << 20
_OPTIONS: Final = (
    ("grpc.max_receive_message_length", _ANSWER_BYTES_MAX),
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.min_reconnect_backoff_ms", 500),  # also how long one attempt to connect may take,
    ("grpc.max_reconnect_backoff_ms", 300),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 2_000),
    ("grpc.enable_http_proxy", 0),
    ("grpc.use_local_subchannel_pool", 1),
)
_WATCH_ENTRIES_MAX: Final = 1000


class Access(msgspec.Struct, frozen=True):
    """How one shows who one is: paths of certificates, a user, and the file that holds the password."""

    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""


def access_of(environment: Mapping[str, str] = os.environ) -> Access:
    """Return what the environment says."""
    return Access(**{name: environment.get(f"STOKER_ETCD_{name.upper()}", "") for name in Access.__struct_fields__})


def _file(path: str) -> bytes | None:
    if not path:
        return None
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise UsageError("file for etcd cannot be read", where=path, got=error.strerror or str(error)) from error


def _channel(address: str, access: Access) -> Any:
    if not (access.ca_file or access.cert_file or access.key_file):
        return grpc.insecure_channel(address, options=_OPTIONS)
    _check_files(access)
    credentials = grpc.ssl_channel_credentials(_file(access.ca_file), _file(access.key_file), _file(access.cert_file))
    return grpc.secure_channel(address, credentials, options=_OPTIONS)


def _check_files(access: Access) -> None:
    """Raise UsageError for files of which gRPC would only say, once it is asked, that it cannot connect."""
    if bool(access.cert_file) != bool(access.key_file):
        raise UsageError(
            "TLS to etcd needs a certificate and its key",
            remedy="set STOKER_ETCD_CERT_FILE and STOKER_ETCD_KEY_FILE, or neither",
        )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for paths, load in (
        ((access.ca_file,), context.load_verify_locations),
        ((access.cert_file, access.key_file), context.load_cert_chain),
    ):
        if not paths[0]:
            continue
        for path in paths:
            _file(path)
        try:
            load(*paths)
        except OSError as error:  # ssl.SSLError is one of them
            raise UsageError("TLS files for etcd cannot be used", where=", ".join(paths), got=str(error)) from error


class _Server:
    """One server and the calls it takes."""

    def __init__(self, address: str, access: Access) -> None:
        self.address = address
        self.channel = _channel(address, access)
        self.read = self.channel.unary_unary("/etcdserverpb.KV/Range")
        self.txn = self.channel.unary_unary("/etcdserverpb.KV/Txn")
        self.compact = self.channel.unary_unary("/etcdserverpb.KV/Compact")
        self.watch = self.channel.stream_stream("/etcdserverpb.Watch/Watch")
        self.status = self.channel.unary_unary("/etcdserverpb.Maintenance/Status")
        self.login = self.channel.unary_unary("/etcdserverpb.Auth/Authenticate")


class GrpcEtcd:
    """An etcd of one or more servers. `try_seconds` is how long a try may take."""

    def __init__(
        self, addresses: Sequence[str], *, access: Access | None = None, try_seconds: float = TRY_SECONDS
    ) -> None:
        if not addresses:
            raise UsageError("no address of an etcd is given", expected="such as host:2379,host:2379")
        self._access = access_of() if access is None else access
        self._servers = [_Server(address, self._access) for address in addresses]
        self._try_seconds = try_seconds
        self._current = 0
        self._token = ""
        self._lock = threading.Lock()
        self._closed = False
        self.url = "etcd://" + ",".join(addresses)

    def begin(self, request: Request) -> "Future[Outcome]":
        """Send a request to the server that answered last."""
        future: Future[Outcome] = Future()
        place = self._current
        server = self._servers[place]
        try:
            if self._access.user and not self._token:
                self._login(server)
            call, unpack = self._call(server, request)
        except Exception as error:
            self._failed(future, place, error)
            return future
        call.add_done_callback(lambda done: self._settle(future, place, done, unpack))
        return future

    def _call(self, server: _Server, request: Request) -> tuple[Any, Callable[[bytes], Outcome]]:
        options = {"timeout": self._try_seconds, "metadata": self._metadata()}
        if isinstance(request, Get):
            return server.read.future(protobuf.pack_get(request), **options), protobuf.unpack_get
        if isinstance(request, Compact):
            return server.compact.future(protobuf.pack_compact(request), **options), protobuf.unpack_compact
        return server.txn.future(protobuf.pack_txn(request), **options), protobuf.unpack_txn

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("token", self._token),) if self._token else ()

    def _login(self, server: _Server) -> None:
        password = (_file(self._access.password_file) or b"").decode().strip()
        data = server.login(protobuf.pack_login(self._access.user, password), timeout=self._try_seconds)
        self._token = protobuf.unpack_login(data)

    def _settle(self, future: "Future[Outcome]", place: int, done: Any, unpack: Callable[[bytes], Outcome]) -> None:
        try:
            outcome = unpack(done.result())
        except BaseException as error:
            self._failed(future, place, error)
            return
        future.set_result(outcome)

    def _failed(self, future: "Future[Outcome]", place: int, error: BaseException) -> None:
        told = self._told(place, error)
        if isinstance(told, UnknownOutcomeError):
            with self._lock:
                if self._current == place:
                    self._current = (place + 1) % len(self._servers)
        future.set_exception(told)

    def _told(self, place: int, error: BaseException) -> StokerError:
        where = self._servers[place].address
        if isinstance(error, StokerError):
            return error
        code = error.code() if isinstance(error, grpc.RpcError) else None
        details = str(getattr(error, "details", lambda: error)() or error)
        if code is grpc.StatusCode.OUT_OF_RANGE and "compacted" in details:
            return CompactedError("etcd has forgotten that revision", where=where, got=details)
        if code is grpc.StatusCode.OUT_OF_RANGE or code is grpc.StatusCode.INVALID_ARGUMENT:
            if "token" in details:
                self._token = ""
            return UsageError("etcd refuses the request", where=where, got=details)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
            return UsageError("request is too large for etcd", where=where, got=details)
        if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "space" in details:
            remedy = "compact and defragment it, or raise its --quota-backend-bytes"
            return NoSpaceError("etcd has no space left", where=where, got=details, remedy=remedy)
        if code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED):
            self._token = ""  # it may have run out: the next request logs in anew
            return DeniedError("etcd refuses who asks", where=where, got=details)
        return UnknownOutcomeError("etcd gave no answer", where=where, got=details.splitlines()[0])

    def watch(self, start: bytes, end: bytes, after: int) -> "_GrpcWatch":
        """Watch a range at the server that answered last."""
        place = self._current
        return _GrpcWatch(self, place, protobuf.pack_watch(start, end, after + 1), self._metadata())

    def server(self, place: int) -> _Server:
        """Return a server."""
        return self._servers[place]

    def lost(self, place: int) -> None:
        """Ask the next server from now on, for this one broke a watch."""
        with self._lock:
            if self._current == place:
                self._current = (place + 1) % len(self._servers)

    def members(self) -> list[MemberStatus]:
        """Return what each server says of itself; one that does not answer is told so."""
        calls = [
            server.status.future(b"", timeout=max(self._try_seconds, 1.0), metadata=self._metadata())
            for server in self._servers
        ]
        told = []
        for server, call in zip(self._servers, calls, strict=True):
            try:
                told.append(protobuf.unpack_status(server.address, call.result()))
            except (grpc.RpcError, CorruptError):
                told.append(MemberStatus(server.address, answers=False))
        return told

    def close(self) -> None:
        """Close all channels."""
        if not self._closed:
            self._closed = True
            for server in self._servers:
                server.channel.close()


class _GrpcWatch:
    """A stream of changes, read by a thread of its own so that waiting can end."""

    def __init__(self, etcd: GrpcEtcd, place: int, request: bytes, metadata: tuple[tuple[str, str], ...]) -> None:
        self._etcd = etcd
        self._place = place
        self._asked: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._asked.put(request)
        self._told: queue.Queue[Seen | StokerError] = queue.Queue(_WATCH_ENTRIES_MAX)
        self._closed = False
        self._stream = etcd.server(place).watch(iter(self._asked.get, None), metadata=metadata)
        self._thread = threading.Thread(target=self._read, name="stoker-etcd-watch", daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            for data in self._stream:
                seen, over = protobuf.unpack_watch(data)
                self._put(seen)
                if over:
                    break
            end: StokerError = UnknownOutcomeError("etcd ended a watch", where=self._etcd.url)
        except grpc.RpcError as error:
            end = UnknownOutcomeError("etcd broke a watch", where=self._etcd.url, got=str(error.code()))
        except StokerError as error:
            end = error
        self._etcd.lost(self._place)
        self._put(end)

    def _put(self, told: Seen | StokerError) -> None:
        while not self._closed:
            with suppress(queue.Full):
                self._told.put(told, timeout=0.2)
                return

    def next(self, timeout_seconds: float) -> Seen | None:
        try:
            told = self._told.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        if isinstance(told, StokerError):
            self._told.put(told)
            raise told
        return told

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._asked.put(None)
            self._stream.cancel()
            self._thread.join(timeout=5)


def addresses_in(text: str) -> tuple[str, ...]:
    """Return the `host:port` pairs of a list with commas. Raises UsageError for one that is none."""
    found = []
    for part in text.split(","):
        host, colon, port = part.strip().rpartition(":")
        if not host or not colon or not port.isdigit() or not 0 < int(port) < 65536:
            raise UsageError("not an address", where=part.strip(), expected="host:port, several with commas")
        found.append(f"{host}:{port}")
    return tuple(found)


def refused(error: StokerError) -> bool:
    """Tell whether the store said no, so that asking again says the same."""
    return not isinstance(error, UnknownOutcomeError) and isinstance(error, StoreError | UsageError)
