"""Our own file system as contenders."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

OURS: dict[str, Callable[[Path], AbstractContextManager[Path]]] = {}
