"""Sampling hosts over SSH: one connection and one shell a host for the whole run, asked side by side.

One thread runs them all. Sample n of each host is due at start + n x interval; a host has half an interval to answer,
after which its connection is given up and made anew for a later sample. A host that fails, hangs or is cut off costs
only its own samples.
"""

import asyncio
import shlex
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from stoker.bench.run.hosts.clocks import PROBES, Probe, offset_of
from stoker.bench.run.hosts.sampler import JOIN_EXTRA_SECONDS, PARTIAL_NAME, Gathered, file_name, sample_of
from stoker.bench.run.hosts.shell import END, clock_ns, parse_answer, program
from stoker.bench.run.hosts.sources import TEXT_BYTES_MAX, Texts, counted, snapshot
from stoker.bench.run.hosts.ssh import asyncssh, connect
from stoker.core import clock
from stoker.core.errors import StokerError
from stoker.core.host_series import ClockOffset, Header, HostSeries

AT_ONCE_MAX: Final = 10
SNAPSHOT_SECONDS: Final = 10.0
_SILENCE_INTERVALS: Final = 4
_SILENCE_SECONDS_MIN: Final = 30.0


class RemoteHost:
    """One host. All its methods but `result` are for the sampler's loop."""

    def __init__(self, name: str, header: Header, partial: Path | None) -> None:
        self.name, self._header, self._partial = name, header, partial
        self._connection: Any = None
        self._process: Any = None
        self._gathered: Gathered | None = None
        self._errors: list[str] = []

    async def begin(self, gate: asyncio.Semaphore) -> None:
        """Connect, compare clocks and take the first snapshot."""
        async with gate:
            with suppress(_Failed):
                async with _limit(SNAPSHOT_SECONDS, self):
                    await self._connect()
                    offset = await self._compare_clocks()
                    texts = await self._ask("snapshot")
                    self._open(texts, offset)

    def _open(self, texts: Texts, offset: ClockOffset | None) -> None:
        disks, interfaces = counted(texts)
        name = texts.get("hostname", "").strip() or self.name
        start = {**snapshot(texts, {}), "address": self.name}
        series = HostSeries(name, "ssh", offset, disks=disks, interfaces=interfaces, start=start)
        partial = None
        if self._partial is not None:
            partial = self._partial / PARTIAL_NAME.format(name=file_name(self.name))
        self._gathered = Gathered(series, self._header, partial)

    async def sample(self, timeout_seconds: float) -> None:
        """Take a sample; a host that was never reached, or was lost, is tried again, which may take longer."""
        with suppress(_Failed):
            if self._process is None or self._gathered is None:
                async with _limit(SNAPSHOT_SECONDS, self):
                    await self._reach()
            async with _limit(timeout_seconds, self):
                texts = await self._ask("sample")
                self._take(texts)

    async def _reach(self) -> None:
        if self._process is None:
            await self._connect()
        if self._gathered is None:
            self._open(await self._ask("snapshot"), await self._compare_clocks())

    def _take(self, texts: Texts) -> None:
        assert self._gathered is not None
        theirs = clock_ns(texts)
        at_us = (clock.monotonic_ns() - self._header.origin_ns) // 1000
        self._gathered.add(sample_of(texts, at_us=at_us, wall_ns=theirs[0] if theirs else 0))

    async def end(self, gate: asyncio.Semaphore) -> None:
        """Take the last sample and the second snapshot, and close."""
        async with gate:
            with suppress(_Failed):
                async with _limit(SNAPSHOT_SECONDS, self):
                    if self._process is None:
                        await self._connect()
                    texts = await self._ask("snapshot")
                    if self._gathered is None:
                        self._open(texts, None)
                    self._take(texts)
                    assert self._gathered is not None
                    self._gathered.series.end = snapshot(texts, {})
            await self.close()

    def result(self) -> HostSeries:
        """Return what was seen of the host."""
        series = HostSeries(self.name, "ssh") if self._gathered is None else self._gathered.finish()
        series.errors = list(dict.fromkeys([*series.errors, *self._errors]))[:20]
        return series

    def failed(self, reason: str) -> None:
        """Note why something failed."""
        self._errors.append(f"{self.name}: {reason}")

    async def _connect(self) -> None:
        self._connection = await connect(self.name)
        silence_seconds = max(self._header.interval_seconds * _SILENCE_INTERVALS, _SILENCE_SECONDS_MIN)
        self._process = await self._connection.create_process(
            f"exec sh -c {shlex.quote(program(silence_seconds))}",
            encoding="utf-8",
            errors="replace",
            window=TEXT_BYTES_MAX,
        )
        await self._answer()

    async def _compare_clocks(self) -> ClockOffset | None:
        probes, resolution_ns = [], 0
        for _ in range(PROBES):
            sent_ns = clock.wall_ns()
            theirs = clock_ns(await self._ask("clock"))
            if theirs is not None:
                probes.append(Probe(sent_ns, theirs[0], clock.wall_ns()))
                resolution_ns = theirs[1]
        return offset_of(probes, resolution_ns=resolution_ns)

    async def _ask(self, word: str) -> Texts:
        self._process.stdin.write(word + "\n")
        return await self._answer()

    async def _answer(self) -> Texts:
        lines: list[str] = []
        length = 0
        while True:
            line = await self._process.stdout.readline()
            if not line:
                raise StokerError("the shell ended", where=self.name, got=await self._last_words())
            if line.rstrip("\n") == END:
                return parse_answer("".join(lines))
            length += len(line)
            if length > TEXT_BYTES_MAX:
                raise StokerError("the host answers too much", where=self.name, expected="at most 8 MiB")
            lines.append(line)

    async def _last_words(self) -> str:
        with suppress(TimeoutError):
            return str(await asyncio.wait_for(self._process.stderr.read(200), 0.5)).strip()
        return ""

    async def close(self) -> None:
        """End the shell and the connection; what does not answer is broken off."""
        connection, self._connection, self._process = self._connection, None, None
        if connection is None:
            return
        connection.close()
        try:
            await asyncio.wait_for(connection.wait_closed(), 1.0)
        except TimeoutError:
            connection.abort()


class _Failed(Exception):
    """Something about one host failed; it was noted."""


class _limit:
    """A context that gives a host so long, and turns whatever fails inside into a note and a closed connection."""

    def __init__(self, seconds: float, host: RemoteHost) -> None:
        self._timeout, self._seconds, self._host = asyncio.timeout(seconds), seconds, host

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            error = TimeoutError(f"no answer within {self._seconds:g} s")
        if error is None:
            return False
        if isinstance(error, asyncio.CancelledError) or not isinstance(error, Exception):
            return False
        self._host.failed(str(error) or type(error).__name__)
        await self._host.close()
        raise _Failed from error


class SshSampler:
    """Samples several hosts over SSH on one thread between `start` and `stop`."""

    def __init__(self, names: Sequence[str], header: Header, *, partial_folder: Path | None = None) -> None:
        """Raises MissingExtraError without asyncssh."""
        asyncssh()
        self._header = header
        self._hosts = [RemoteHost(name, header, partial_folder) for name in names]
        self._began = threading.Event()
        self._stop_asked = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._run, name="stoker-ssh-hosts", daemon=True)

    def start(self) -> None:
        """Begin to connect; the run does not wait for it."""
        self._thread.start()
        self._began.wait(JOIN_EXTRA_SECONDS)

    def stop(self) -> list[HostSeries]:
        """Take the last samples and return all hosts; one that does not answer is not waited for long."""
        self._stop_asked.set()
        if self._loop is not None and self._stop is not None:
            with suppress(RuntimeError):  # the loop has ended already
                self._loop.call_soon_threadsafe(self._stop.set)
        rounds = -(-len(self._hosts) // AT_ONCE_MAX)
        self._thread.join(2 * rounds * (SNAPSHOT_SECONDS + 2) + JOIN_EXTRA_SECONDS)
        if self._thread.is_alive():
            for host in self._hosts:
                host.failed("sampling did not end in time")
        return [host.result() for host in self._hosts]

    def _run(self) -> None:
        asyncio.run(self._sample_all())

    async def _sample_all(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._began.set()
        if self._stop_asked.is_set():
            return
        gate = asyncio.Semaphore(AT_ONCE_MAX)
        await asyncio.gather(*(self._one(host, gate, self._stop) for host in self._hosts))

    async def _one(self, host: RemoteHost, gate: asyncio.Semaphore, stop: asyncio.Event) -> None:
        """Sample one host from its first snapshot to its last."""
        interval_seconds = self._header.interval_seconds
        began_ns = clock.monotonic_ns()
        await host.begin(gate)
        number = 0
        while not stop.is_set():
            await host.sample(max(interval_seconds / 2, 0.5))
            elapsed_seconds = (clock.monotonic_ns() - began_ns) / 1e9
            number = max(number + 1, int(elapsed_seconds / interval_seconds) + 1)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), number * interval_seconds - elapsed_seconds)
        await host.end(gate)
