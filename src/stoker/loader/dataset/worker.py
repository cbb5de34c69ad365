"""One process of a parallel generation: `python -m stoker.loader.dataset.worker`, order in, messages out.

It ends when its standard input ends: whatever becomes of the process that started it, no orphan is left.
"""

import os
import signal
import sys
import threading
from typing import BinaryIO

import msgspec

from stoker.core.errors import InterruptedRunError
from stoker.loader.dataset.generate import GenerateReport, generate
from stoker.loader.dataset.messages import ErrorMessage, Message, Order, ProgressMessage, ReportMessage
from stoker.loader.dataset.progress import OnProgress, Progress
from stoker.storage.opening import open_store


def main() -> int:
    """Do the order on standard input; return the exit code."""
    # A Ctrl-C in the terminal reaches the whole group; the starter decides and closes our input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # what a library prints must not be taken for a message
    stopped = threading.Event()
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)
    threading.Thread(target=_watch, args=(stopped,), daemon=True).start()

    def on_progress(progress: Progress) -> None:
        if stopped.is_set():
            raise InterruptedRunError("generation was stopped")
        _say(out, ProgressMessage(progress))

    try:
        _say(out, ReportMessage(_work(order, on_progress)))
    except BrokenPipeError:
        return 1
    except Exception as error:
        if not stopped.is_set():
            _say(out, ErrorMessage.of(error))
        return 1
    return 0


def _work(order: Order, on_progress: OnProgress) -> GenerateReport:
    store = open_store(order.url, create=True)
    try:
        return generate(store, order.spec, order.options, progress=on_progress)
    finally:
        store.close()


def _watch(stopped: threading.Event) -> None:
    # Not through sys.stdin: the interpreter cannot end while a thread holds the lock of its buffer.
    while os.read(0, 4096):
        pass
    stopped.set()


def _say(out: BinaryIO, message: Message) -> None:
    out.write(msgspec.json.encode(message) + b"\n")


if __name__ == "__main__":
    sys.exit(main())
