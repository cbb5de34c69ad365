"""The file of hosts: small, exact, safe to read, and readable with zstd and JSON alone."""

import json
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.errors import CorruptError
from stoker.core.host_series import (
    HOSTS_FILE,
    ClockOffset,
    Header,
    HostSeries,
    decode_column,
    encode_column,
    load_hosts,
    save_hosts,
)

HEADER = Header(10.0, "2026-01-31T12:00:00.000000Z", 5)


@given(st.lists(st.none() | st.integers(-(2**62), 2**62), max_size=40))
def test_columns_come_back_as_they_were(values: list[int | None]) -> None:
    assert decode_column(encode_column(values), len(values)) == values


def test_the_documented_example() -> None:
    assert decode_column([5, 1, None, 2], 5) == [5, 6, None, 8, 8]
    assert encode_column([7, 7, 7, 7]) == [7]
    with pytest.raises(ValueError, match="3 entries for 2"):
        decode_column([1, 2, 3], 2)


def test_hosts_come_back_as_they_were(tmp_path: Path) -> None:
    hosts = [
        HostSeries("a", "mpi", ClockOffset(0.5, 0.001, 8), 3, {"at_us": [0, 10, 10]}, {"sda": ""}, {"eth0": ""}),
        HostSeries("b", "ssh", errors=["b: no answer within 5 s"]),
    ]
    save_hosts(tmp_path, HEADER, hosts)
    found = load_hosts(tmp_path)
    assert found is not None
    assert found[0] == HEADER
    assert list(found[1]) == hosts
    assert hosts[0].values("at_us") == [0, 10, 20]
    assert hosts[0].values("none of that name") == [None] * 3


@pytest.mark.skipif(shutil.which("zstd") is None, reason="the zstd command is not installed")
def test_it_can_be_read_without_our_code(tmp_path: Path) -> None:
    save_hosts(tmp_path, HEADER, [HostSeries("a", samples=1, columns={"at_us": [3]})])
    lines = subprocess.run(
        ["zstd", "-dc", str(tmp_path / HOSTS_FILE)], capture_output=True, check=True
    ).stdout.splitlines()
    assert json.loads(lines[0])["schema"] == "stoker-hosts/1"
    assert json.loads(lines[1])["columns"] == {"at_us": [3]}


def test_no_file_is_no_error(tmp_path: Path) -> None:
    assert load_hosts(tmp_path) is None


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"{}\n",
        b'{"interval_seconds":1,"started_utc":"","schema":"other/9"}\n',
        msgspec.json.encode(HEADER) + b"\nnot json\n",
        msgspec.json.encode(HEADER) + b'\n{"host":"a","samples":1,"columns":{"x":[1,2]}}\n',
        msgspec.json.encode(HEADER) + b'\n{"host":"a","samples":99999999999}\n',
        msgspec.json.encode(HEADER) + b'\n{"host":"a"',
    ],
    ids=["empty", "no-header", "other-schema", "no-json", "long-column", "many-samples", "cut"],
)
def test_files_of_another_kind_are_refused(tmp_path: Path, lines: bytes) -> None:
    (tmp_path / HOSTS_FILE).write_bytes(zstandard.compress(lines))
    with pytest.raises(CorruptError):
        list(load_hosts(tmp_path)[1])  # type: ignore[index]


def test_bytes_that_are_no_zstd_are_refused(tmp_path: Path) -> None:
    (tmp_path / HOSTS_FILE).write_bytes(b"PK\x03\x04 something else")
    with pytest.raises(CorruptError, match="zstd"):
        load_hosts(tmp_path)


@given(st.binary(max_size=200))
def test_flipped_bytes_never_do_anything_else(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    folder = tmp_path_factory.mktemp("noise")
    whole = save_hosts(folder, HEADER, [HostSeries("a", samples=1, columns={"at_us": [3]})]).read_bytes()
    (folder / HOSTS_FILE).write_bytes(whole[: len(whole) // 2] + noise)
    try:
        found = load_hosts(folder)
        assert found is not None
        list(found[1])
    except CorruptError:
        pass
