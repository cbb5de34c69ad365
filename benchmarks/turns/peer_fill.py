"""Bytes by others, in one thread. Arguments: how (memcpy, sfc64, urandom, dgen), block_bytes, blocks."""

import os
from functools import partial

import numpy as np
from window import Window, arguments


def memcpy(block):
    """Copy a block of the same size: as fast as memory is read and written."""
    source = np.ones_like(block)
    return lambda: np.copyto(block, source)


def sfc64(block):
    """Draw 64-bit words with NumPy's fastest generator, and put them into the block."""
    generator = np.random.Generator(np.random.SFC64(1))
    words = block.view(np.uint64)

    def draw():
        words[:] = generator.integers(0, 2**64, len(words), np.uint64)

    return draw


def urandom(block):
    """Ask the kernel, and put what it gives into the block."""

    def draw():
        block[:] = np.frombuffer(os.urandom(block.nbytes), np.uint8)

    return draw


def dgen(block, blocks):
    """Let dgen-py fill the block, restricted to one thread."""
    import dgen_py

    generator = dgen_py.Generator(size=(blocks + 1) * block.nbytes, max_threads=1, seed=1)

    def draw():
        if generator.fill_chunk(block) != block.nbytes:
            raise OSError("dgen-py filled a part of the block")

    return draw


def main():
    """Fill one block again and again."""
    asked = arguments()
    block = np.ones(asked["block_bytes"], np.uint8)
    how = {"memcpy": memcpy, "sfc64": sfc64, "urandom": urandom, "dgen": partial(dgen, blocks=asked["blocks"])}
    draw = how[asked["how"]](block)
    draw()
    window = Window()
    window.start()
    for _ in range(asked["blocks"]):
        draw()
    window.stop()
    window.report(asked["blocks"] * block.nbytes, asked["blocks"])


if __name__ == "__main__":
    main()
