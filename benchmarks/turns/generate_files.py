"""Files of new bytes, written through the page cache. Arguments: how (stoker, dgen, numpy, constant), folder, files,
file_bytes.

`stoker` is our generator as `stoker gen` runs it: NPZ files, their checksums, a journal and a manifest. The others
write the same number of bytes and keep no record.
"""

from pathlib import Path

from window import Window, arguments

PIECE_BYTES = 8 << 20


def by_stoker(folder, asked):
    """Generate an NPZ split."""
    from stoker.core.plan import DatasetSpec
    from stoker.loader.dataset.generate import generate
    from stoker.storage.opening import open_store

    store = open_store(f"file://{folder}/ours?fsync=none", create=True)

    def work():
        generate(store, DatasetSpec("npz", asked["files"], record_length_bytes=asked["file_bytes"]))
        store.close()

    return work


def by_pieces(folder, asked, filled):
    """Write files in pieces that `filled` makes."""

    def work():
        for number in range(asked["files"]):
            with (folder / f"{number}.bin").open("wb", buffering=0) as file:
                left = asked["file_bytes"]
                while left:
                    piece = filled()[: min(left, PIECE_BYTES)]
                    left -= file.write(piece)

    return work


def by_dgen(folder, asked):
    """Write what dgen-py makes, with all the threads it likes."""
    import dgen_py

    generator, piece = (
        dgen_py.Generator(size=asked["files"] * (asked["file_bytes"] + PIECE_BYTES), seed=1),
        bytearray(PIECE_BYTES),
    )

    def filled():
        generator.fill_chunk(piece)
        return memoryview(piece)

    return by_pieces(folder, asked, filled)


def by_constant(folder, asked):
    """Write the same piece again and again: what the page cache takes at most."""
    piece = memoryview(bytes(range(256)) * (PIECE_BYTES // 256))
    return by_pieces(folder, asked, lambda: piece)


def by_numpy(folder, asked):
    """Write NPZ files as DLIO does: NumPy makes the array, np.savez packs it with its CRC-32."""
    import numpy as np

    generator = np.random.default_rng(1)

    def work():
        for number in range(asked["files"]):
            array = generator.integers(0, 255, asked["file_bytes"], np.uint8)
            np.savez(folder / f"{number}.npz", x=array, y=[0])

    return work


HOW = {"stoker": by_stoker, "dgen": by_dgen, "numpy": by_numpy, "constant": by_constant}


def main():
    """Write the files once."""
    asked = arguments()
    work = HOW[asked["how"]](Path(asked["folder"]), asked)
    window = Window()
    window.start()
    work()
    window.stop()
    window.report(asked["files"] * asked["file_bytes"], asked["files"])


if __name__ == "__main__":
    main()
