"""How local stores ask the kernel to read and write."""

from typing import Final

from stoker.kernels.write_engines import WRITE_KINDS
from stoker.storage.url import UrlOption

IO: Final = UrlOption(
    "io", "text", "how the kernel is asked to read and write", default=WRITE_KINDS[0], choices=WRITE_KINDS
)
