"""From a URL to a store with its layers."""

import subprocess
import sys
from pathlib import Path

import pytest

from stoker.core.errors import NotFoundError, UnknownNameError, UsageError
from stoker.storage.api import SupportsCache, SupportsRetryCount
from stoker.storage.layers.faulty import FaultyStore
from stoker.storage.layers.limits import LimitedStore
from stoker.storage.layers.prefix import PrefixStore
from stoker.storage.layers.retry import RetryStore
from stoker.storage.opening import STORES, open_store


def test_our_own_schemes_are_registered() -> None:
    assert {"az", "direct", "file", "gs", "mem", "null", "s3"} <= set(STORES.names())


def test_an_unknown_scheme_is_refused_with_its_neighbour() -> None:
    with pytest.raises(UnknownNameError, match=r"no store scheme 'flie'.*did you mean 'file'"):
        open_store("flie:///tmp")


@pytest.mark.parametrize(
    "url", ["file://{}?prefxi=a", "null://?objectbytes=1", "mem://x?fsync=full", "direct://{}?fall=1"]
)
def test_an_unknown_option_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown key"):
        open_store(url.format(tmp_path))


@pytest.mark.parametrize(
    "query", ["retry_attempts=0", "fail_ratio=1.5", "open_delay=soon", "in_flight=-1", "read_bytes_per_second=0"]
)
def test_a_value_out_of_range_is_refused(query: str) -> None:
    with pytest.raises(UsageError, match=query.partition("=")[0]):
        open_store(f"mem://x?{query}")


@pytest.mark.parametrize("query", ["fault_seed=3", "retry_deadline=5", "retry_attempts=1&retry_deadline=5"])
def test_an_option_without_effect_is_refused(query: str) -> None:
    with pytest.raises(UsageError, match="no effect"):
        open_store(f"mem://x?{query}")


@pytest.mark.parametrize("scheme", ["file", "direct"])
def test_a_missing_root_is_not_found_unless_it_may_be_created(scheme: str, tmp_path: Path) -> None:
    root = tmp_path / "absent" / "below"
    with pytest.raises(NotFoundError, match="no such folder"):
        open_store(f"{scheme}://{root}")
    assert not root.exists()
    open_store(f"file://{root}", create=True).close()
    assert root.is_dir()


def test_a_root_that_is_a_file_is_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    for create in (False, True):
        with pytest.raises(NotFoundError, match="no such folder"):
            open_store(f"file://{tmp_path}/file", create=create)


def test_a_relative_path_in_a_url_is_refused() -> None:
    with pytest.raises(UsageError, match="absolute path"):
        open_store("file://data/set")


def test_a_bare_path_opens_a_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("object", b"abc")
    assert (tmp_path / "object").read_bytes() == b"abc"


def test_layers_stand_in_their_order(tmp_path: Path) -> None:
    url = f"file://{tmp_path}?prefix=a/b&fail_ratio=0.1&fault_seed=2&in_flight=3&retry_attempts=5&fsync=none"
    store = open_store(url)
    kinds = []
    layer = store
    while hasattr(layer, "inner"):
        kinds.append(type(layer).__name__)
        layer = layer.inner
    assert kinds == [kind.__name__ for kind in (RetryStore, PrefixStore, LimitedStore, FaultyStore)]
    assert store.url == url
    assert isinstance(store, SupportsRetryCount)
    assert isinstance(store, SupportsCache)
    assert store.capabilities.in_flight == 3
    assert "faults injected" in store.capabilities.notes[0]


def test_without_options_there_is_no_layer(tmp_path: Path) -> None:
    assert type(open_store(f"file://{tmp_path}")).__name__ == "PosixStore"


def test_prefix_keeps_keys_below_a_folder(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}?prefix=/a/b/")
    store.put("object", b"abc")
    assert (tmp_path / "a/b/object").read_bytes() == b"abc"
    assert [info.key for info in store.list()] == ["object"]
    with pytest.raises(UsageError):
        open_store(f"file://{tmp_path}?prefix=../x")


def test_a_missing_client_names_the_install_command() -> None:
    program = (
        "import sys; sys.modules['obstore'] = None\n"
        "from stoker.core.errors import MissingExtraError\n"
        "from stoker.storage.opening import open_store\n"
        "for scheme in ('s3', 'az', 'gs'):\n"
        "    try: open_store(scheme + '://bucket')\n"
        "    except MissingExtraError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert [line.rpartition("run: ")[2] for line in done.stdout.splitlines()] == [
        "pip install 'stoker[s3]'",
        "pip install 'stoker[azure]'",
        "pip install 'stoker[s3]'",
    ]
