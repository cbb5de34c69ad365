"""Written pages: what the kernel tells equals what a compare finds, and nothing is left behind."""

import gc
import mmap
import os
import threading

import numpy as np
import pytest

from stoker.core.errors import UsageError
from stoker.pages.capture.tracking import TrackedMemory, tracking_kind
from stoker.pages.capture.userfault import PAGE_BYTES, probe_userfault

PAGES = 64


def anonymous(pages: int = PAGES) -> mmap.mmap:
    return mmap.mmap(-1, pages * PAGE_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


def pages_of(ranges: np.ndarray) -> list[tuple[int, int]]:
    return [(offset // PAGE_BYTES, length // PAGE_BYTES) for offset, length in ranges.tolist()]


def test_kind_tells_why_it_compares() -> None:
    assert tracking_kind(lambda: "userfaultfd: Operation not permitted").kind == "compare"
    assert "not permitted" in tracking_kind(lambda: "userfaultfd: Operation not permitted").reason
    assert tracking_kind(lambda: "").kind == "userfaultfd"
    assert tracking_kind().reason == probe_userfault()


@pytest.mark.usefixtures("userfault")
def test_first_write_to_a_page_is_told_once() -> None:
    memory = anonymous()
    with TrackedMemory(memory) as tracked:
        assert tracked.tracking.kind == "userfaultfd"
        assert pages_of(tracked.dirty_ranges()) == []
        memory[0] = 1
        memory[5 * PAGE_BYTES] = 1
        memory[6 * PAGE_BYTES + 9] = 1
        assert memory[20 * PAGE_BYTES] == 0
        assert pages_of(tracked.dirty_ranges(reset=False)) == [(0, 1), (5, 2)]
        assert pages_of(tracked.dirty_ranges()) == [(0, 1), (5, 2)]
        assert pages_of(tracked.dirty_ranges()) == []
        memory[5 * PAGE_BYTES] = 2
        assert pages_of(tracked.dirty_ranges()) == [(5, 1)]


@pytest.mark.usefixtures("userfault")
def test_more_regions_than_one_scan_holds_are_all_told() -> None:
    memory = anonymous(5000)
    with TrackedMemory(memory) as tracked:
        for page in range(0, 5000, 2):
            memory[page * PAGE_BYTES] = 1
        assert pages_of(tracked.dirty_ranges()) == [(page, 1) for page in range(0, 5000, 2)]
        assert len(tracked.dirty_ranges()) == 0


@pytest.mark.usefixtures("userfault")
def test_writes_of_the_kernel_are_noticed() -> None:
    memory = anonymous()
    reader, writer = os.pipe()
    with TrackedMemory(memory) as tracked:
        os.write(writer, b"abc")
        with memoryview(memory) as view, view[3 * PAGE_BYTES :] as part:
            assert os.readv(reader, [part]) == 3
        assert pages_of(tracked.dirty_ranges()) == [(3, 1)]
    os.close(reader)
    os.close(writer)


@pytest.mark.usefixtures("userfault")
def test_writes_of_another_thread_are_noticed() -> None:
    memory = anonymous()
    with TrackedMemory(memory) as tracked:
        thread = threading.Thread(target=memory.__setitem__, args=(7 * PAGE_BYTES, 1))
        thread.start()
        thread.join()
        assert pages_of(tracked.dirty_ranges()) == [(7, 1)]


@pytest.mark.usefixtures("userfault")
def test_first_and_last_bytes_that_share_a_page_always_count_as_written() -> None:
    memory = anonymous()
    whole = np.frombuffer(memory, np.uint8)
    inside = whole[100 : 3 * PAGE_BYTES + 50]
    with TrackedMemory(inside) as tracked:
        assert tracked.dirty_ranges().tolist() == [[0, PAGE_BYTES - 100], [3 * PAGE_BYTES - 100, 50]]
        inside[PAGE_BYTES] = 1
        assert tracked.dirty_ranges().tolist() == [[0, 2 * PAGE_BYTES - 100], [3 * PAGE_BYTES - 100, 50]]
        whole[3 * PAGE_BYTES + 60] = 1


def test_memory_without_a_whole_page_is_compared() -> None:
    with TrackedMemory(bytearray(100)) as tracked:
        assert tracked.tracking.kind == "compare"
        assert tracked.dirty_ranges().tolist() == [[0, 100]]
    with TrackedMemory(bytearray()) as empty:
        assert len(empty.dirty_ranges()) == 0


@pytest.mark.parametrize("what", ["ENOSYS", "EPERM", "old kernel"])
def test_refused_tracking_falls_back_to_compare(what: str, open_descriptors: object) -> None:
    with TrackedMemory(anonymous(), probe=lambda: what) as tracked:
        assert tracked.tracking.kind == "compare"
        assert tracked.tracking.reason == what
        assert pages_of(tracked.dirty_ranges()) == [(0, PAGES)]
        assert open_descriptors() == []


@pytest.mark.usefixtures("userfault")
def test_memory_tracked_twice_is_compared_the_second_time(open_descriptors: object) -> None:
    memory = anonymous()
    with TrackedMemory(memory) as first, TrackedMemory(memory) as second:
        assert first.tracking.kind == "userfaultfd"
        assert second.tracking.kind == "compare"
        assert "does not track this memory" in second.tracking.reason
        assert len(open_descriptors()) == 2


@pytest.mark.usefixtures("userfault")
def test_mapped_file_on_disk_falls_back_or_is_tracked(tmp_path: object) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(4 * PAGE_BYTES))
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), 0)
    with TrackedMemory(memory) as tracked:
        memory[PAGE_BYTES] = 1
        assert [PAGE_BYTES, PAGE_BYTES] in tracked.dirty_ranges().tolist() or tracked.tracking.kind == "compare"


@pytest.mark.usefixtures("userfault")
def test_memfd_written_through_two_mappings_tells_of_one_alone() -> None:
    descriptor = os.memfd_create("pages", os.MFD_CLOEXEC)
    os.ftruncate(descriptor, PAGES * PAGE_BYTES)
    ours, other = mmap.mmap(descriptor, 0), mmap.mmap(descriptor, 0)
    os.close(descriptor)
    with TrackedMemory(ours) as tracked:
        assert tracked.tracking.kind == "userfaultfd"
        ours[2 * PAGE_BYTES] = 1
        other[9 * PAGE_BYTES] = 1
        assert pages_of(tracked.dirty_ranges()) == [(2, 1)]
        assert ours[9 * PAGE_BYTES] == 1
    with TrackedMemory(ours, probe=lambda: "forced") as compared:
        other[9 * PAGE_BYTES] = 2
        assert pages_of(compared.dirty_ranges()) == [(0, PAGES)]


@pytest.mark.usefixtures("userfault")
def test_stop_releases_the_descriptors_and_the_memory(open_descriptors: object) -> None:
    memory = anonymous()
    for _ in range(3):
        tracked = TrackedMemory(memory)
        tracked.start()
        assert len(open_descriptors()) == 2
        tracked.stop()
        tracked.stop()
        assert open_descriptors() == []
    with pytest.raises(UsageError, match="not tracked"):
        tracked.dirty_ranges()
    memory[0] = 1


@pytest.mark.usefixtures("userfault")
def test_forgotten_tracking_is_released_with_its_object(open_descriptors: object) -> None:
    tracked = TrackedMemory(anonymous())
    tracked.start()
    del tracked
    gc.collect()
    assert open_descriptors() == []


def test_starting_twice_is_refused() -> None:
    with TrackedMemory(bytearray(10)) as tracked, pytest.raises(UsageError, match="already"):
        tracked.start()


@pytest.mark.parametrize("memory", [bytes(10), np.zeros((4, 4))[:, 1]])
def test_memory_that_is_read_only_or_strided_is_refused(memory: object) -> None:
    with pytest.raises(UsageError, match="writable and C-contiguous"):
        TrackedMemory(memory)


@pytest.mark.usefixtures("userfault")
def test_forked_child_compares_and_the_parent_goes_on(open_descriptors: object) -> None:
    memory = anonymous()
    with TrackedMemory(memory) as tracked:
        memory[PAGE_BYTES] = 1
        child = os.fork()
        if child == 0:
            memory[3 * PAGE_BYTES] = 1
            good = (
                open_descriptors() == []
                and tracked.tracking.kind == "compare"
                and "forked" in tracked.tracking.reason
                and pages_of(tracked.dirty_ranges()) == [(0, PAGES)]
            )
            tracked.stop()
            tracked.start()
            memory[5 * PAGE_BYTES] = 1
            good = good and pages_of(tracked.dirty_ranges()) == [(5, 1)]
            os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        memory[40 * PAGE_BYTES] = 1
        assert pages_of(tracked.dirty_ranges()) == [(1, 1), (40, 1)]
        memory[1 * PAGE_BYTES] = 3
        assert pages_of(tracked.dirty_ranges()) == [(1, 1)]


@pytest.mark.usefixtures("userfault")
def test_huge_pages_are_tracked() -> None:
    memory = anonymous(4096)
    memory.madvise(mmap.MADV_HUGEPAGE)
    memory[:] = b"x" * len(memory)
    with TrackedMemory(memory) as tracked:
        assert len(tracked.dirty_ranges()) == 0
        memory[2000 * PAGE_BYTES] = 1
        assert pages_of(tracked.dirty_ranges()) == [(2000, 1)]
        memory[2001 * PAGE_BYTES] = 1
        assert pages_of(tracked.dirty_ranges()) == [(2001, 1)]
