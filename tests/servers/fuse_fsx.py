"""Random reads, writes, truncations, holes, copies and maps of one file, beside the same in memory: after each read the
bytes must be equal. One step is on one of several mounts; a change of mounts closes the file here and opens it there.
"""

import ctypes
import mmap
import os
import random
from pathlib import Path

FILE_BYTES_MAX = 256 << 10
STEP_BYTES_MAX = 64 << 10
PUNCH_HOLE, ZERO_RANGE, KEEP_SIZE = 2, 16, 1
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]


class Differs(AssertionError):
    """The file is not what it was made to be."""


class Exercise:
    """A file on several mounts, and what it must hold."""

    def __init__(self, folders: list[Path], seed: int) -> None:
        self.random = random.Random(seed)
        self.folders = folders
        self.model = bytearray()
        self.step = 0
        self.told = ""
        self.handle = -1
        self.here = 0
        (folders[0] / "fsx").write_bytes(b"")
        self.open()

    def open(self) -> None:
        """Open the file where it is worked on now."""
        self.handle = os.open(self.folders[self.here] / "fsx", os.O_RDWR)

    def close(self) -> None:
        """Close the file."""
        os.close(self.handle)

    def run(self, steps: int) -> None:
        """Do so many steps, then compare the whole file on every mount."""
        actions = (
            [self.read] * 5 + [self.write] * 5 + [self.map_read] * 2 + [self.map_write] * 2 + [self.truncate]
            + [self.punch] + [self.zero] + [self.allocate] + [self.copy] + [self.append] + [self.reopen]
        )  # fmt: skip
        for _ in range(steps):
            self.step += 1
            if len(self.folders) > 1 and self.random.random() < 0.3:
                self.move()
            action = self.random.choice(actions)
            self.told = action.__name__
            action()
        self.close()
        for folder in self.folders:
            self.compare(0, (folder / "fsx").read_bytes(), len(self.model))
        self.open()

    # -- steps

    def move(self) -> None:
        """Go on on another mount."""
        self.close()
        self.here = self.random.randrange(len(self.folders))
        self.open()

    def reopen(self) -> None:
        """Close the file and open it again."""
        self.close()
        self.open()
        if os.fstat(self.handle).st_size != len(self.model):
            raise Differs(f"step {self.step}: size {os.fstat(self.handle).st_size}, expected {len(self.model)}")

    def place(self, end_max: int) -> tuple[int, int]:
        """Return an offset and a length."""
        start = self.random.randrange(max(end_max, 1))
        return start, self.random.randint(1, min(STEP_BYTES_MAX, max(end_max - start, 1)))

    def data(self, length: int) -> bytes:
        """Return bytes that tell of the step that wrote them."""
        return (b"%08d" % self.step * (length // 8 + 1))[:length]

    def put(self, start: int, data: bytes) -> None:
        """Write into the model."""
        if start > len(self.model):
            self.model.extend(bytes(start - len(self.model)))
        self.model[start : start + len(data)] = data

    def compare(self, start: int, got: bytes, length: int) -> None:
        """Compare what was read with the model."""
        expected = self.model[start : start + length]
        if got != expected:
            first = next((i for i, (a, b) in enumerate(zip(got, expected, strict=False)) if a != b), -1)
            wrong, right = bytes(got[first : first + 16]), bytes(expected[first : first + 16])
            lengths = f"{len(got)} bytes at {start}, expected {len(expected)}"
            raise Differs(f"step {self.step} {self.told}: {lengths}; at {start + first} {wrong!r}, not {right!r}")

    def read(self) -> None:
        """Read some."""
        start, length = self.place(FILE_BYTES_MAX)
        self.compare(start, os.pread(self.handle, length, start), length)

    def write(self) -> None:
        """Write some."""
        start, length = self.place(FILE_BYTES_MAX)
        data = self.data(length)
        assert os.pwrite(self.handle, data, start) == length
        self.put(start, data)

    def append(self) -> None:
        """Write at the end, through a descriptor that appends."""
        data = self.data(self.random.randint(1, 4000))
        if len(self.model) + len(data) > FILE_BYTES_MAX:
            return
        handle = os.open(self.folders[self.here] / "fsx", os.O_WRONLY | os.O_APPEND)
        try:
            assert os.write(handle, data) == len(data)
        finally:
            os.close(handle)
        self.put(len(self.model), data)

    def truncate(self) -> None:
        """Set the size."""
        size = self.random.randrange(FILE_BYTES_MAX)
        os.ftruncate(self.handle, size)
        del self.model[size:]
        self.model.extend(bytes(size - len(self.model)))

    def fallocate(self, mode: int, start: int, length: int) -> None:
        """Call fallocate(2)."""
        if _libc.fallocate(self.handle, mode, start, length):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def punch(self) -> None:
        """Make a hole."""
        start, length = self.place(FILE_BYTES_MAX)
        self.fallocate(PUNCH_HOLE | KEEP_SIZE, start, length)
        end = min(start + length, len(self.model))
        self.model[start:end] = bytes(max(end - start, 0))

    def zero(self) -> None:
        """Write zeros by telling so."""
        start, length = self.place(FILE_BYTES_MAX)
        self.fallocate(ZERO_RANGE, start, length)
        self.put(start, bytes(length))

    def allocate(self) -> None:
        """Lengthen the file without writing."""
        start, length = self.place(FILE_BYTES_MAX)
        self.fallocate(0, start, length)
        self.model.extend(bytes(max(start + length - len(self.model), 0)))

    def copy(self) -> None:
        """Show one part of the file in another, not overlapping."""
        if len(self.model) < 2:
            return
        half = len(self.model) // 2
        length = self.random.randint(1, min(half, STEP_BYTES_MAX))
        source = self.random.randrange(half - length + 1)
        target = self.random.randrange(half, FILE_BYTES_MAX - length + 1)
        os.fstat(self.handle)  # as cp does: the kernel bounds a copy by the size that it believes, and asks for none
        done = os.copy_file_range(self.handle, self.handle, length, source, target)
        self.put(target, bytes(self.model[source : source + done]))
        assert done == length

    def map_read(self) -> None:
        """Read through a map."""
        if not self.model:
            return
        start, length = self.place(len(self.model))
        with mmap.mmap(self.handle, len(self.model), prot=mmap.PROT_READ) as mapped:
            self.compare(start, mapped[start : start + length], length)

    def map_write(self) -> None:
        """Write through a map."""
        if not self.model:
            return
        start, length = self.place(len(self.model))
        data = self.data(min(length, len(self.model) - start))
        with mmap.mmap(self.handle, len(self.model)) as mapped:
            mapped[start : start + len(data)] = data
            mapped.flush()
        self.put(start, data)
