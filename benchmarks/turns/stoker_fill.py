"""Ours: the bytes of content, made in one thread. Arguments: block_bytes, blocks."""

import numpy as np
from window import Window, arguments

from stoker.loader.dataset.content import fill


def main():
    """Fill one block again and again, as other parts of a stream."""
    asked = arguments()
    block_bytes, blocks = asked["block_bytes"], asked["blocks"]
    block = np.ones(block_bytes, np.uint8)
    fill(block.data, seed=1, stream=1)
    window = Window()
    window.start()
    for number in range(blocks):
        fill(block.data, seed=1, stream=1, offset_bytes=number * block_bytes)
    window.stop()
    window.report(blocks * block_bytes, blocks)


if __name__ == "__main__":
    main()
