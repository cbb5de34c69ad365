"""The short ways: pages allocated, updated and read from Python, in memory.

Beside them stand what bounds them here: calls of Python that do nothing, and reading the bytes that must be read.
"""

import numpy as np

from benchmarks.pages.rows import Conditions, Row, contest, gigabytes, per_op
from stoker.core.units import KiB, MiB, format_bytes
from stoker.kernels.deltas import two_level_apply
from stoker.kernels.native import native_kernels
from stoker.kernels.plain_deltas import two_level_bound
from stoker.pages import Store

PAGE = 4 * KiB
ROUNDS = 31
RING = 16 * MiB
FRAME = 128
"""No frame of a page that has changed at all is smaller."""
CHANGED = 0.01


def two_images(count: int, ratio: float = CHANGED) -> list[np.ndarray]:
    """Return two sets of images, uint8 of shape (count, PAGE), of which a share of the bytes differs, in any place."""
    chance = np.random.default_rng(1)
    first = chance.integers(0, 256, (count, PAGE), np.uint8)
    second = first.copy()
    second[chance.random(first.shape) < ratio] ^= 1
    return [first, second]


def read_all(*images: np.ndarray) -> None:
    """Read bytes and do nothing else with them: the largest of them is asked for at the speed of memory."""
    for image in images:
        image.max()


def allocation(conditions: Conditions) -> Row:
    """Measure allocate_id and free_id together, of a page of 1 KiB that was there before."""
    operations = conditions.choose(2000, 10_000)
    with Store.open() as store:

        def work() -> None:
            for _ in range(operations):
                store.free_id(store.allocate_id(1024))

        def nothing() -> None:
            for _ in range(operations):
                abs(abs(1 << 40))

        row = Row("hot/allocation", "Allocate and free a page of 1 KiB, from a warmed pool", "ns")
        ways = {
            "stoker allocate_id + free_id": per_op(work, operations),
            "two calls of C that do nothing": per_op(nothing, operations),
        }
        return contest(row, ways, ROUNDS)


def updates(conditions: Conditions) -> Row:
    """Measure a page written whole of which 1 % changed: compared, framed in the log, summed, applied."""
    operations = conditions.choose(2000, 10_000)
    arrays = [image[0] for image in two_images(1)]
    texts = [array.tobytes() for array in arrays]
    with Store.open() as store:
        page, out = store.allocate(PAGE).id, np.empty(PAGE, np.uint8)

        def write(images: list[object]) -> None:
            for turn in range(operations):
                store.write(page, images[turn & 1])  # type: ignore[arg-type]

        def write_at() -> None:
            for turn in range(operations):
                store.write_at(page, 64, texts[turn & 1][64:128])

        def read() -> None:
            for _ in range(operations):
                store.read(page, out)

        row = Row("hot/update", "One page of 4 KiB, 1 % of its bytes change; and a copy of it read", "ns")
        ways = {
            "stoker write, array": per_op(lambda: write(list(arrays)), operations),
            "stoker write, bytes": per_op(lambda: write(list(texts)), operations),
            "stoker write_at, 64 bytes": per_op(write_at, operations),
            "stoker read, into an array": per_op(read, operations),
        }
        return contest(row, ways, ROUNDS)


def many_updates(conditions: Conditions) -> list[Row]:
    """Measure the same for many pages in one commit, in the cache and beyond it."""
    rows = []
    for count in (64, 1024):
        images = two_images(count)
        calls = max(1, conditions.choose(2048, 8192) // count)
        with Store.open(log_bytes=RING) as store:
            ids = store.allocate_many([PAGE] * count)
            turns = iter(range(1 << 60))

            def work(store=store, ids=ids, images=images, calls=calls, turns=turns) -> None:
                for _ in range(calls):
                    store.update_many(ids, images[next(turns) & 1])

            # A ring that has gone round once, as any is after a moment: fresh memory costs more than the commits.
            for _ in range(RING // (count * FRAME) + 1):
                work(calls=1)
            row = Row(
                f"hot/update_many {count}",
                f"update_many: {count} pages of 4 KiB ({format_bytes(count * PAGE)}) in one commit, 1 % of the bytes "
                "change; a page",
                "ns",
            )

            def reading(images=images, calls=calls) -> None:
                for _ in range(calls):
                    read_all(*images)

            ways = {
                "stoker update_many": per_op(work, calls * count),
                "page and image read, nothing else": per_op(reading, calls * count),
            }
            rows.append(contest(row, ways, ROUNDS))
    return rows


def compares(conditions: Conditions) -> list[Row]:
    """Measure compare and compact of pages from memory, beside memcpy of the same bytes."""
    size = conditions.choose(32, 128) * MiB
    count = size // PAGE
    rows = []
    for ratio in (0.0, 0.01):
        first, second = two_images(count, ratio)
        out = np.empty_like(first)
        room, offsets, changed = (
            np.zeros(count * two_level_bound(PAGE), np.uint8),
            np.zeros(count + 1, np.int64),
            np.zeros(count, np.int64),
        )
        row = Row(
            f"hot/compare {ratio:g}",
            f"Compare and compact {format_bytes(size)} of pages from memory, {ratio:.0%} of the bytes change",
            "GB/s",
        )
        ways = {
            "memcpy": gigabytes(lambda out=out, second=second: np.copyto(out, second), size),
            "both images read, nothing else": gigabytes(lambda a=first, b=second: read_all(a, b), size),
        }
        if (native := native_kernels()) is None:
            row.missing["stoker compare and compact"] = "native kernels are not installed"
        else:
            ways["stoker compare and compact"] = gigabytes(
                lambda a=first, b=second, r=room, o=offsets, c=changed: native.two_level_diff_many(a, b, r, o, c), size
            )
            native.two_level_diff_many(first, second, room, offsets, changed)
            if offsets[-1]:
                payloads = [room[offsets[i] : offsets[i + 1]] for i in range(count)]
                target = first.copy()
                ways["stoker expand and apply, a call a page"] = gigabytes(
                    lambda t=target, p=payloads: [two_level_apply(t[i], p[i]) for i in range(count)], size
                )
        rows.append(contest(row, ways, 11))
    return rows


def snapshots(conditions: Conditions) -> Row:
    """Measure opening and closing a snapshot of some thousand pages."""
    count = conditions.choose(1000, 10_000)
    with Store.open(pages_max=1 << 15) as store:
        store.allocate_many([64] * count)
        row = Row("hot/snapshot", f"Open and close a snapshot of {count:,} pages", "ns")
        return contest(row, {"stoker snapshot": per_op(lambda: store.snapshot().close(), 1)}, ROUNDS)


def rows(conditions: Conditions) -> list[Row]:
    """Measure all of them."""
    return [
        allocation(conditions),
        updates(conditions),
        *many_updates(conditions),
        *compares(conditions),
        snapshots(conditions),
    ]
