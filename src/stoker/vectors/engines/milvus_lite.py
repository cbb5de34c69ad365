"""Milvus Lite: Milvus' interface over a local folder, by a server of our own that ends with us.

Its indexes lie in memory: what a load costs exercises the storage, a search does not. For trying things out and for
tests; it is no Milvus in the sense of the rules.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import milvus_lite  # noqa: F401 - absent, the one sentence tells what to install
import msgspec

from stoker.core.errors import UnavailableError
from stoker.vectors.engine import Address, VectorEngine
from stoker.vectors.engines.milvus import MilvusEngine

_STOP_SECONDS: Final = 20.0


class MilvusLiteKind:
    """How Milvus Lite is opened. The address's `uri` is its folder."""

    default_port = 0
    indexes = ("HNSW", "IVF_FLAT", "IVF_SQ8", "FLAT")
    metrics = ("COSINE", "L2", "IP")
    single_writer = True

    def open(self, address: Address) -> VectorEngine:
        """Connect to a server that `serve` has started."""
        return MilvusEngine(address, data_folder=address.uri)

    def serve(self, address: Address) -> AbstractContextManager[Address]:
        """Start the server of a folder, as long as the context lasts."""
        return _served(address)


@contextmanager
def _served(address: Address) -> Iterator[Address]:
    if address.port:  # it runs already: we are one of its ranks
        yield address
        return
    folder = Path(address.uri)
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module, and a folder
        [sys.executable, "-P", "-m", "stoker.vectors.engines.lite_server", str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        process_group=0,  # the terminal's Ctrl-C is for us: we end it when the ranks are done
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip().isdigit():
            process.wait(_STOP_SECONDS)
            reason = line.decode("utf-8", "replace").strip() or f"exit code {process.returncode}"
            raise UnavailableError("Milvus Lite does not start", where=str(folder), got=reason)
        yield msgspec.structs.replace(address, host="127.0.0.1", port=int(line))
    finally:
        _stop(process)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the server by closing what it listens to, so that it writes down what it holds."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


open_milvus_lite: Final = MilvusLiteKind()
