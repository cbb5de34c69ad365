"""A plain loop over files in worker processes that hand nothing on. Arguments: paths_file, samples (of an epoch),
format, columns (Parquet), workers, epochs. The format `read` reads bytes in threads and decodes nothing: the ceiling.
"""

import os
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

from window import arguments, measure_epochs, paths

BUFFER_BYTES_MAX = 256 << 20
THREAD = threading.local()


def read_files(files, _):
    """Read files one after the other into one buffer, the thread's own."""
    if not hasattr(THREAD, "buffer"):
        THREAD.buffer = bytearray(min(BUFFER_BYTES_MAX, max(Path(path).stat().st_size for path in files) + 1))
    buffer, total = THREAD.buffer, 0
    for path in files:
        file = os.open(path, os.O_RDONLY)
        while got := os.readv(file, [buffer]):
            total += got
        os.close(file)
    return total


def npz_files(files, _):
    """Load files with np.load."""
    import numpy as np

    total = 0
    for path in files:
        with np.load(path, allow_pickle=False) as archive:
            total += archive["x"].nbytes
    return total


def hdf5_files(files, _):
    """Load files with h5py."""
    import h5py

    total = 0
    for path in files:
        with h5py.File(path) as file:
            total += file["records_0"][:].nbytes
    return total


def parquet_files(files, columns):
    """Load row groups with PyArrow, into its own arrays; counted are the bytes of the values."""
    import pyarrow.parquet as pq

    total = 0
    for path in files:
        file = pq.ParquetFile(path)
        for group in range(file.num_row_groups):
            table = file.read_row_group(group, columns=columns, use_threads=False)
            total += table.nbytes
    return total


WORK = {"read": read_files, "npz": npz_files, "hdf5": hdf5_files, "parquet": parquet_files}


def epoch(pool, asked, files):
    """Return the bytes that all workers had in one epoch."""
    workers, columns = asked["workers"], asked.get("columns")
    shares = [files[number::workers] for number in range(workers)]
    return sum(pool.map(WORK[asked["format"]], [share for share in shares if share], [columns] * workers))


def main():
    """Deliver the epochs asked for."""
    asked = arguments()
    files = paths(asked)
    kind = ThreadPoolExecutor if asked["format"] == "read" else ProcessPoolExecutor
    with kind(asked["workers"]) as pool:
        measure_epochs(lambda: (epoch(pool, asked, files), asked["samples"]), asked["epochs"])


if __name__ == "__main__":
    main()
