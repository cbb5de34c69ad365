"""The stores without a device: what serves as ceiling, and what keeps bytes in memory."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from stoker.core.errors import NotFoundError, ShortReadError, UsageError
from stoker.storage.api import SupportsCache, SupportsLocalPath, SupportsRename
from stoker.storage.buffers import aligned_view
from stoker.storage.opening import open_store


def test_null_serves_any_key_in_the_size_told() -> None:
    store = open_store("null://?object_bytes=128KiB")
    with store.open_read("any/key", offset_bytes=100) as reader:
        assert (reader.object_bytes, reader.range_bytes) == (131_072, 130_972)
    assert store.stat("other").size_bytes == 131_072
    assert list(store.list()) == []


def test_null_leaves_the_buffer_as_it_is() -> None:
    into = aligned_view(100)
    into[:] = b"x" * 100
    open_store("null://?object_bytes=100").get_into("key", 0, into)
    assert bytes(into) == b"x" * 100


def test_null_keeps_the_sizes_that_were_put() -> None:
    store = open_store("null://?object_bytes=5")
    store.put("b", bytes(7))
    store.put("a", bytes(3))
    assert [(info.key, info.size_bytes) for info in store.list()] == [("a", 3), ("b", 7)]
    with pytest.raises(ShortReadError):
        store.get_range("a", 0, 4)


def test_null_without_a_size_has_nothing() -> None:
    with pytest.raises(NotFoundError, match=r"object_bytes="):
        open_store("null://").stat("key")


def test_null_says_what_it_is() -> None:
    facts = open_store("null://").capabilities
    assert facts.io_mode == "null"
    assert facts.notes == ("null:// moved no bytes",)
    store = open_store("null://")
    for capability in (SupportsCache, SupportsLocalPath, SupportsRename):
        assert not isinstance(store, capability)


def test_a_template_is_served_for_every_key(tmp_path: Path) -> None:
    np.savez(tmp_path / "sample.npz", x=np.arange(1000, dtype=np.uint8))
    store = open_store(f"null://?template={tmp_path}/sample.npz")
    data = (tmp_path / "sample.npz").read_bytes()
    assert bytes(store.get_range("train/a")) == data
    assert bytes(store.get_range("train/b", 10, 20)) == data[10:30]
    assert store.capabilities.io_mode == "memory"


def test_a_template_wins_over_what_was_put(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    store = open_store(f"null://?template={tmp_path}/file")
    store.put("key", bytes(100))
    assert store.stat("key").size_bytes == 3
    assert [(info.key, info.size_bytes) for info in store.list()] == [("key", 3)]


def test_a_template_is_read_once_a_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"first")
    url = f"null://?template={tmp_path}/file"
    open_store(url)
    (tmp_path / "file").write_bytes(b"second")
    assert bytes(open_store(url).get_range("key")) == b"first"


def test_other_processes_read_the_template_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")
    program = (
        "import sys\n"
        "from stoker.storage.opening import open_store\n"
        "print(bytes(open_store(sys.argv[1]).get_range('k')))\n"
    )
    url = f"null://?template={tmp_path}/file"
    done = subprocess.run([sys.executable, "-c", program, url], capture_output=True, text=True, check=True)
    assert done.stdout == "b'abc'\n"


def test_a_missing_template_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        open_store(f"null://?template={tmp_path}/absent")


def test_two_sources_of_sizes_are_refused() -> None:
    with pytest.raises(UsageError, match="not both"):
        open_store("null://?template=/x&object_bytes=3")


def test_memory_is_shared_by_name_and_split_by_prefix() -> None:
    store = open_store("mem://shared-by-name")
    store.put("a/object", b"abc")
    assert bytes(open_store("mem://shared-by-name").get_range("a/object")) == b"abc"
    assert bytes(open_store("mem://shared-by-name/a").get_range("object")) == b"abc"
    assert list(open_store("mem://another-name").list()) == []


def test_memory_keeps_its_own_copy() -> None:
    data = bytearray(b"abc")
    store = open_store("mem://own-copy")
    store.put("object", data)
    data[:] = b"xyz"
    assert bytes(store.get_range("object")) == b"abc"


def test_memory_survives_a_fork_in_the_child() -> None:
    store = open_store("mem://forked")
    store.put("object", b"abc")
    child = os.fork()
    if child == 0:
        store.put("object", b"child")
        os._exit(0 if bytes(store.get_range("object")) == b"child" else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert bytes(store.get_range("object")) == b"abc"
