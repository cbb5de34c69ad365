"""What one request does to the KV cache: look up what is known, write what is new, read it while tokens are generated.

The order is the reference's: the shared prompt, the turns before, the new entry, documents, then one whole read of the
entry and one more for every 32 tokens that are generated. In the layout of pages an inference server's real order is
followed: the longest known prefix is read once, and every full page behind it is written.
"""

import threading
from typing import Final

from stoker.core import clock, seed
from stoker.core.kvcache import BLOCK_LAYOUT, KvPlan
from stoker.kv.account import Account
from stoker.kv.cache import Done, KvCache
from stoker.kv.trace_log import DECODE, PREFILL
from stoker.kv.traffic.request import BOTH, Request

DECODE_TOKENS: Final = 32
PREPARED_TOKENS: Final = 2048
PREPARED_A_USER: Final = 10


def prepared_key(number: int) -> str:
    """Return the key of an entry that was written before the traffic begins, to be read only."""
    return f"prepop_{number}"


class _Stopped(Exception):
    """The time is over: what is left of the request is not done."""


class RequestWork:
    """Serves requests. Safe from many threads; `over` ends them between two entries."""

    def __init__(self, plan: KvPlan, cache: KvCache, account: Account, over: threading.Event) -> None:
        self._plan, self._cache, self._account, self._over = plan, cache, account, over

    def serve(self, request: Request, arrived_ns: int) -> None:
        """Serve one request and enter what that took. Raises what the cache raises."""
        began_ns = clock.monotonic_ns()
        io = _Io()
        try:
            self._do(request, io)
            generation_ns = self._generate(request)
        except _Stopped:
            self._account.counted(cut=1, io_seconds=io.span_ns / 1e9)
            return
        ended_ns = clock.monotonic_ns()
        account = self._account
        for name, duration_ns in (
            ("request", ended_ns - arrived_ns),
            ("queue", began_ns - arrived_ns),
            ("io", io.span_ns),
            ("generation", generation_ns),
            (f"qos_{request.qos}", ended_ns - arrived_ns),
        ):
            account.lasted(name, max(0, duration_ns))
        account.counted(
            requests=1, tokens=request.generated, context_tokens=request.context, io_seconds=io.span_ns / 1e9
        )

    def _do(self, request: Request, io: "_Io") -> None:
        if self._plan.mode == "decode":
            self._decode(self._prepared(request), request.generated, io)
        elif self._plan.layout == BLOCK_LAYOUT:
            self._pages(request, io)
        else:
            self._entries(request, io)

    def _prepared(self, request: Request) -> str:
        many = PREPARED_A_USER * self._plan.users
        return prepared_key(seed.derive(self._plan.seed, "kv-pick", request.user, request.number) % many)

    # -- whole entries -----------------------------------------------------------------------------------------------

    def _entries(self, request: Request, io: "_Io") -> None:
        reads = self._plan.mode != "prefill"
        if request.prefix:
            self._prefix(request, io)
        if reads:
            for key in request.earlier:
                found = self._read(key, PREFILL, io)
                self._account.counted(**{"turn_hits" if found else "turn_misses": 1})
        self._write(request.key, request.context, io)
        if reads:
            for key in request.chunks:
                self._read(key, PREFILL, io)
                self._account.counted(rag_reads=1)
            if request.phase == BOTH:
                self._decode(request.key, request.generated, io)

    def _prefix(self, request: Request, io: "_Io") -> None:
        """Read the shared prompt; who comes first writes it, so that it is there for all others."""
        if self._cache.holds(request.prefix) and self._plan.mode != "prefill":
            found = self._read(request.prefix, PREFILL, io)
            self._account.counted(**{"prefix_hits" if found else "prefix_misses": 1})
        else:
            self._account.counted(prefix_misses=1)
            self._write(request.prefix, request.prefix_tokens, io)

    def _decode(self, key: str, generated: int, io: "_Io") -> None:
        for _ in range(1 + -(-generated // DECODE_TOKENS)):
            found = self._read(key, DECODE, io)
            self._account.counted(decode_reads=1)
            if not found:
                return

    # -- pages -------------------------------------------------------------------------------------------------------

    def _pages(self, request: Request, io: "_Io") -> None:
        """Read the longest prefix that is known, each page once, and write the pages behind it."""
        known = 0
        if self._plan.mode != "prefill":
            for key in request.pages:
                if not self._cache.holds(key) or not self._read(key, PREFILL, io):
                    break
                known += 1
        size = self._plan.page_tokens
        self._account.counted(wanted_tokens=len(request.pages) * size, matched_tokens=known * size)
        for key in request.pages[known:]:
            self._write(key, size, io)
        if self._plan.mode != "prefill" and known < len(request.pages):
            self._account.counted(misses=1)

    # -- the cache ---------------------------------------------------------------------------------------------------

    def _read(self, key: str, phase: str, io: "_Io") -> bool:
        self._go_on()
        done = self._cache.read(key, phase)
        io.add(done)
        self._account.counted(**{"hits" if done is not None else "misses": 1})
        return done is not None

    def _write(self, key: str, tokens: int, io: "_Io") -> None:
        self._go_on()
        done = self._cache.write(key, tokens, PREFILL)
        io.add(done)
        if done is not None:
            self._account.counted(prefill_writes=1, prefill_tokens=tokens)

    def _go_on(self) -> None:
        if self._over.is_set():
            raise _Stopped

    def _generate(self, request: Request) -> int:
        """Wait as long as the tokens take; return the nanoseconds."""
        seconds = request.generated * self._plan.token_seconds
        if seconds <= 0:
            return 0
        began_ns = clock.monotonic_ns()
        if self._over.wait(seconds):
            raise _Stopped
        return clock.monotonic_ns() - began_ns


class _Io:
    """What a request spent on reading and writing."""

    def __init__(self) -> None:
        self.span_ns = 0

    def add(self, done: Done | None) -> None:
        self.span_ns += done.span_ns if done is not None else 0
