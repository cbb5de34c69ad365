"""A small HTTP server that speaks enough S3 to misbehave on purpose."""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass
class Bucket:
    """What the server holds, what it was asked, and how it misbehaves."""

    objects: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)
    parts: dict[int, bytes] = field(default_factory=dict)
    failures: int = 0
    failure_status: int = 503
    failure_body: bytes = b"<Error><Code>SlowDown</Code></Error>"
    cut_bodies: int = 0
    fail_ranges: dict[str, int] = field(default_factory=dict)
    on_get: Callable[[str], None] | None = None
    under_way: int = 0
    under_way_max: int = 0
    pause_seconds: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)
    lost_part: int = 0
    silent: threading.Event | None = None


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    bucket: Bucket

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def begin(self) -> tuple[str, dict[str, list[str]], bytes] | None:
        """Return key, query and body, or None when the request was already answered."""
        parts = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.bucket.asked.append(f"{self.command} {self.path}")
        if self.bucket.silent is not None:
            self.bucket.silent.wait(30)
            self.close_connection = True
            return None
        if self.bucket.failures:
            self.bucket.failures -= 1
            self.answer(self.bucket.failure_status, self.bucket.failure_body)
            return None
        key = unquote(parts.path).removeprefix("/bucket").removeprefix("/")
        return key, parse_qs(parts.query, keep_blank_values=True), body

    def facts(self, data: bytes) -> dict[str, str]:
        etag = f'"{hashlib.md5(data).hexdigest()}"'
        return {"ETag": etag, "Last_Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}

    @contextmanager
    def under_way(self) -> Iterator[None]:
        bucket = self.bucket
        with bucket.lock:
            bucket.under_way += 1
            bucket.under_way_max = max(bucket.under_way_max, bucket.under_way)
        try:
            time.sleep(bucket.pause_seconds)
        finally:  # before the answer: a client that has it may ask again before this thread runs on
            with bucket.lock:
                bucket.under_way -= 1
        yield

    def do_GET(self) -> None:
        with self.under_way():
            self._get()

    def _get(self) -> None:
        if (asked := self.begin()) is None:
            return
        wanted = self.headers.get("Range", "")
        self.bucket.ranges.append(f"{asked[0]} {wanted}")
        with self.bucket.lock:
            failing = self.bucket.fail_ranges.get(wanted, 0)
            self.bucket.fail_ranges[wanted] = failing - 1
        if failing > 0:
            self.answer(503, b"<Error><Code>SlowDown</Code></Error>")
            return
        self._send(asked[0], wanted)

    def _send(self, key: str, wanted: str) -> None:
        data = self.bucket.objects.get(key)
        if self.bucket.on_get is not None:
            self.bucket.on_get(key)
        if data is None:
            self.answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            return
        span, status = range(len(data)), 200
        if wanted:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            if int(first) >= len(data):
                self.answer(416, b"<Error><Code>InvalidRange</Code></Error>")
                return
            span, status = range(int(first), min(int(last or len(data)) + 1, len(data))), 206
        body = data[span.start : span.stop]
        extra = {"Content_Range": f"bytes {span.start}-{span.stop - 1}/{len(data)}"} if status == 206 else {}
        if not self.bucket.cut_bodies:
            self.answer(status, body, **self.facts(data), **extra)
            return
        self.bucket.cut_bodies -= 1
        self.send_response(status)
        for name, value in {**self.facts(data), **extra, "Content_Length": str(len(body))}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def do_HEAD(self) -> None:
        if (asked := self.begin()) is None:
            return
        data = self.bucket.objects.get(asked[0])
        self.send_response(404 if data is None else 200)
        if data is not None:
            for name, value in {**self.facts(data), "Content_Length": str(len(data))}.items():
                self.send_header(name.replace("_", "-"), value)
        else:
            self.send_header("Content-Length", "0")
        self.end_headers()

    def do_PUT(self) -> None:
        with self.under_way():
            self._put()

    def _put(self) -> None:
        if (asked := self.begin()) is None:
            return
        key, query, body = asked
        if "partNumber" in query:
            self.bucket.parts[int(query["partNumber"][0])] = body
        else:
            self.bucket.objects[key] = body
        self.answer(200, ETag=self.facts(body)["ETag"])

    def do_POST(self) -> None:
        if (asked := self.begin()) is None:
            return
        key, query, body = asked
        if "uploads" in query:
            self.bucket.parts.clear()
            self.answer(200, b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>")
        elif "uploadId" in query:
            kept = [body for number, body in sorted(self.bucket.parts.items()) if number != self.bucket.lost_part]
            data = b"".join(kept)
            self.bucket.objects[key] = data
            etag = self.facts(data)["ETag"].strip('"')
            self.answer(
                200, f"<CompleteMultipartUploadResult><ETag>{etag}</ETag></CompleteMultipartUploadResult>".encode()
            )
        else:  # a bulk delete
            keys = re.findall(r"<Key>(.*?)</Key>", body.decode())
            for key in keys:
                self.bucket.objects.pop(key, None)
            gone = "".join(f"<Deleted><Key>{key}</Key></Deleted>" for key in keys)
            self.answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())

    def do_DELETE(self) -> None:
        if (asked := self.begin()) is None:
            return
        self.bucket.objects.pop(asked[0], None)
        self.answer(204)


class StubServer:
    """Runs in a thread while a `with` block lasts."""

    def __init__(self) -> None:
        self.bucket = Bucket()
        handler = type("BoundHandler", (Handler,), {"bucket": self.bucket})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "StubServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.bucket.silent is not None:
            self.bucket.silent.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
