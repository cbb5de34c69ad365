"""Generation by several processes on one host, without forking: each is a fresh interpreter."""

import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Final

import msgspec

from stoker.core.clock import monotonic_ns
from stoker.core.errors import StokerError, UsageError
from stoker.core.plan import DatasetSpec
from stoker.loader.dataset.generate import DEFAULTS, GenerateOptions, GenerateReport, commit, generate, prepare
from stoker.loader.dataset.messages import ErrorMessage, Message, Order, ProgressMessage, ReportMessage
from stoker.loader.dataset.progress import OnProgress, Progress
from stoker.loader.dataset.verify import DAMAGES_KEPT_MAX, VerifyReport
from stoker.storage.api import Store
from stoker.storage.opening import open_store

PROCESSES_MAX: Final = 1024
_GRACE_SECONDS: Final = 10.0
_TAIL_BYTES: Final = 2000
_PAUSE_NS: Final = 500_000_000


def generate_parallel(
    url: str,
    spec: DatasetSpec,
    options: GenerateOptions = DEFAULTS,
    *,
    processes: int,
    progress: OnProgress | None = None,
) -> GenerateReport:
    """Make the split in the store at `url` (its root is made if need be) by `processes` processes of
    `options.threads` threads; see `generate` for the rest.

    With a world above 1, this call does the share of `options.rank`, and `commit` completes the split. A worker that
    fails or dies stops the others and is named in the error. When this returns or raises, a signal included, no
    worker is left; so too when this process is killed.
    """
    if not 1 <= processes <= PROCESSES_MAX:
        raise UsageError("number of processes is out of range", expected=f"1 to {PROCESSES_MAX}", got=str(processes))
    store = open_store(url, create=True)
    try:
        if processes == 1:
            return generate(store, spec, options, progress=progress)
        return _generate(store, Order(url, spec, options), processes, progress)
    finally:
        store.close()


def _generate(store: Store, order: Order, processes: int, progress: OnProgress | None) -> GenerateReport:
    if store.capabilities.io_mode == "memory":
        raise UsageError("processes do not share this store", where=store.url, remedy="generate with one process")
    start_ns = monotonic_ns()
    options, spec = order.options, order.spec
    _, survey, _ = prepare(store, spec, options)
    untouched = survey.committed and bool(survey.done.all())
    world = options.world * processes
    orders = []
    for number in range(processes):
        rank = options.rank + number * options.world
        if rank < spec.files:
            theirs = msgspec.structs.replace(options, rank=rank, world=world, force=False, check_space=False)
            orders.append(Order(order.url, spec, theirs))
    reports = _Gang(orders, progress).run()
    complete = options.world == 1
    if complete and not untouched:
        commit(store, spec, files_before=options.files_before)
    return _merge(reports, (monotonic_ns() - start_ns) / 1e9, complete=complete)


class _Worker:
    """One worker process, and the two threads that listen to it."""

    def __init__(self, order: Order, news: "queue.SimpleQueue[tuple[int, Message | None]]", number: int) -> None:
        self.rank = order.options.rank
        self.latest: dict[str, Progress] = {}
        self.files = len(range(self.rank, order.spec.files, order.options.world))
        self._news = news
        self._number = number
        self._tail = b""
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "stoker.loader.dataset.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        self._threads = [threading.Thread(target=listen) for listen in (self._hear_messages, self._hear_complaints)]
        for thread in self._threads:
            thread.start()
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it died at once: the end of its messages tells
            self.process.stdin.write(msgspec.json.encode(order) + b"\n")
            self.process.stdin.flush()

    def _hear_messages(self) -> None:
        assert self.process.stdout is not None
        decoder = msgspec.json.Decoder(Message)
        try:
            for line in self.process.stdout:
                self._news.put((self._number, decoder.decode(line)))
        except msgspec.DecodeError as error:
            self._tail += f"unreadable message: {error}".encode()
        finally:
            self._news.put((self._number, None))

    def _hear_complaints(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._tail = (self._tail + line)[-_TAIL_BYTES:]

    def hang_up(self) -> None:
        """Close its input: this is how it is told to stop."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):  # it is gone already
            self.process.stdin.close()

    def reap(self, *, grace_seconds: float) -> None:
        """Wait for its end, by force when it takes too long, and for the threads that listen to it."""
        try:
            self.process.wait(timeout=grace_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()

    def death(self) -> StokerError:
        """Return the error for a worker that ended without a report."""
        code = self.process.wait()
        how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        self._threads[1].join()
        tail = self._tail.decode(errors="replace").strip()
        return StokerError(
            f"generation worker {self.rank} died",
            expected="a report",
            got=how + (f": {tail}" if tail else ""),
            remedy="run the same again: finished files are kept",
        )


class _Gang:
    """All workers of one call."""

    def __init__(self, orders: list[Order], progress: OnProgress | None) -> None:
        self._orders = orders
        self._progress = progress
        self._news: queue.SimpleQueue[tuple[int, Message | None]] = queue.SimpleQueue()
        self._workers: list[_Worker] = []
        self._told_ns = 0

    def run(self) -> list[GenerateReport]:
        """Return every worker's report; raise the first error. No worker is left in either case."""
        try:
            for number, order in enumerate(self._orders):
                self._workers.append(_Worker(order, self._news, number))
            return self._listen()
        finally:
            self._end()

    def _listen(self) -> list[GenerateReport]:
        reports: dict[int, GenerateReport] = {}
        while len(reports) < len(self._workers):
            number, message = self._news.get()
            worker = self._workers[number]
            if isinstance(message, ErrorMessage):
                raise message.error()
            if isinstance(message, ReportMessage):
                reports[number] = message.report
            elif isinstance(message, ProgressMessage):
                worker.latest[message.progress.phase] = message.progress
                self._tell()
            elif number not in reports:
                raise worker.death()
        return [reports[number] for number in sorted(reports)]

    def _tell(self) -> None:
        now_ns = monotonic_ns()
        if self._progress is not None and now_ns - self._told_ns >= _PAUSE_NS:
            self._told_ns = now_ns
            self._progress(self._combined())

    def _combined(self) -> Progress:
        phase = "verify" if all("verify" in worker.latest for worker in self._workers) else "make"
        known = [worker.latest[phase] for worker in self._workers if phase in worker.latest]
        unknown_files = sum(worker.files for worker in self._workers if phase not in worker.latest)
        return Progress(
            phase,
            sum(one.files_done for one in known),
            sum(one.files_total for one in known) + unknown_files,
            sum(one.bytes_done for one in known),
            sum(one.bytes_total for one in known),
            sum(one.bytes_worked for one in known),
            max(one.elapsed_seconds for one in known),
        )

    def _end(self) -> None:
        try:
            for worker in self._workers:
                worker.hang_up()
            for worker in self._workers:
                worker.reap(grace_seconds=_GRACE_SECONDS)
        except BaseException:  # a second signal: no more waiting
            for worker in self._workers:
                worker.process.kill()
                worker.reap(grace_seconds=_GRACE_SECONDS)
            raise


def _merge(reports: list[GenerateReport], seconds: float, *, complete: bool) -> GenerateReport:
    verified = [report.verification for report in reports if report.verification is not None]
    return GenerateReport(
        files_total=sum(report.files_total for report in reports),
        files_made=sum(report.files_made for report in reports),
        files_adopted=sum(report.files_adopted for report in reports),
        files_kept=sum(report.files_kept for report in reports),
        bytes_total=sum(report.bytes_total for report in reports),
        bytes_made=sum(report.bytes_made for report in reports),
        seconds=seconds,
        retries=sum(report.retries for report in reports),
        complete=complete,
        verification=_merge_verified(verified) if verified else None,
        notes=tuple(dict.fromkeys(note for report in reports for note in report.notes)),
    )


def _merge_verified(reports: list[VerifyReport]) -> VerifyReport:
    return VerifyReport(
        files=sum(report.files for report in reports),
        files_checked=sum(report.files_checked for report in reports),
        bytes_checked=sum(report.bytes_checked for report in reports),
        seconds=max(report.seconds for report in reports),
        missing=sum(report.missing for report in reports),
        wrong_size=sum(report.wrong_size for report in reports),
        changed=sum(report.changed for report in reports),
        damages=tuple(damage for report in reports for damage in report.damages)[:DAMAGES_KEPT_MAX],
        checksums=all(report.checksums for report in reports),
        seed=reports[0].seed,
    )
