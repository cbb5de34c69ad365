"""Processes that share a page: each adds to one counter, and none loses a step of another.

python examples/pages_workers.py
"""

import multiprocessing
from uuid import uuid4

from stoker.pages import Conflict, Store

WORKERS, STEPS = 3, 200


def add(name: str, who: str) -> None:
    """Add one, many times; write only if nobody wrote since the value was read."""
    with Store.attach(name) as store:
        page = store.page("counter")
        done = 0
        while done < STEPS:
            epoch = page.epoch
            value = int.from_bytes(page.read().tobytes(), "little")
            try:
                page.write((value + 1).to_bytes(8, "little"), expect_epoch=epoch, source=who)
            except Conflict:
                continue  # somebody was faster: read again
            done += 1


def main() -> None:
    """Start the workers and look at what they made of the page."""
    context = multiprocessing.get_context("spawn")
    with Store.open(name=f"example-{uuid4().hex}", size_bytes=1 << 20) as store:
        page = store.allocate(8, name="counter")
        workers = [context.Process(target=add, args=(store.name, f"worker-{index}")) for index in range(WORKERS)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        print("counter:", int.from_bytes(page.read().tobytes(), "little"))
        print("epoch:", page.epoch)
        by = store.journal.stats().by_source
        for index in range(WORKERS):
            print(f"worker-{index} wrote at least {STEPS} frames: {by[f'worker-{index}'] >= STEPS}")
        print("the log gives the page:", not store.verify())


if __name__ == "__main__":
    main()
