"""The driver of fsspec, held against fsspec's own for local files and against what reads through it."""

import errno
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stoker.fs.meta import Volume

fsspec = pytest.importorskip("fsspec", reason="needs the extra fsspec")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    Volume.format(f"sqlite://{tmp_path}/volume.db?sync=off").close()
    return tmp_path / "volume.db"


@pytest.fixture
def fs(volume: Path) -> Iterator[Any]:
    made = fsspec.filesystem("stoker", volume=str(volume), sync="off", skip_instance_cache=True)
    yield made
    made._finalizer()


@pytest.fixture
def both(fs: Any, tmp_path: Path) -> list[tuple[Any, str]]:
    """Our driver and fsspec's own, each with the folder it works in."""
    (tmp_path / "plain").mkdir()
    return [(fs, ""), (fsspec.filesystem("file", skip_instance_cache=True), str(tmp_path / "plain"))]


def fill(system: Any, root: str) -> None:
    system.makedirs(f"{root}/a/b")
    for name, data in (("/f", b"0123456789"), ("/a/g", b"gg"), ("/a/b/h.txt", b"hhh"), ("/a/b/i.txt", b"")):
        system.pipe_file(root + name, data)


def errors(call: Any, *arguments: Any, **named: Any) -> Any:
    try:
        return call(*arguments, **named)
    except OSError as error:
        return type(error).__name__


def test_what_is_seen_is_what_the_driver_of_local_files_shows(both: list[tuple[Any, str]]) -> None:
    told = []
    for system, root in both:
        fill(system, root)
        cut = len(root)
        names = lambda found, cut=cut: sorted(str(one)[cut:] for one in found)  # noqa: E731
        told.append(
            [
                names(system.ls(root + "/", detail=False)),
                names(system.ls(root + "/f", detail=False)),
                sorted((one["name"][cut:], one["type"]) for one in system.ls(root + "/a", detail=True)),
                [system.info(root + path)["type"] for path in ("/a", "/f")],
                system.info(root + "/f")["size"],
                names(system.find(root + "/")),
                names(system.glob(root + "/a/**/*.txt")),
                names(system.glob(root + "/*")),
                sorted(
                    (str(folder)[cut:], sorted(dirs), sorted(files)) for folder, dirs, files in system.walk(root + "/a")
                ),
                system.du(root + "/a"),
                [system.exists(root + path) for path in ("/f", "/none", "/f/x")],
                [system.isdir(root + "/a"), system.isfile(root + "/a"), system.isfile(root + "/f")],
                [errors(system.info, root + "/none"), errors(system.ls, root + "/none")],
                [system.cat_file(root + "/f", *bounds) for bounds in ((), (2,), (2, 5), (-3,), (-3, -1), (4, 99))],
                system.cat_ranges([root + "/f", root + "/a/g", root + "/f"], [1, 0, 5], [3, 1, 9]),
                {name[cut:]: data for name, data in system.cat([root + "/f", root + "/a/g"]).items()},
                system.cat(root + "/f"),
                [type(one).__name__ for one in system.cat_ranges([root + "/none"], [0], [1], on_error="return")],
            ]
        )
    assert told[0] == told[1]


def test_what_is_changed_is_what_the_driver_of_local_files_changes(both: list[tuple[Any, str]]) -> None:
    told = []
    for system, root in both:
        fill(system, root)
        system.mv(root + "/f", root + "/moved")
        system.cp_file(root + "/moved", root + "/copy")
        system.copy(root + "/a", root + "/c", recursive=True)
        with system.open(root + "/new", "wb") as file:
            file.write(b"ab")
            file.write(b"cd")
        with system.open(root + "/new", "ab") as file:
            file.write(b"e")
        with system.open(root + "/new", "rb") as file:
            pieces = [file.read(2), file.tell(), file.seek(-1, io.SEEK_END), file.read(), file.seek(0), file.readline()]
        system.touch(root + "/t")
        refused = [
            errors(system.mkdir, root + "/a"),
            errors(system.makedirs, root + "/a"),
            errors(system.rmdir, root + "/a"),
            errors(system.rm_file, root + "/none"),
            errors(system.open, root + "/none", "rb"),
            errors(system.cat_file, root + "/none"),
        ]
        system.rm(root + "/a", recursive=True)
        system.rm(root + "/copy")
        system.makedirs(root + "/a", exist_ok=True)
        system.rmdir(root + "/a")
        left = sorted(str(one)[len(root) :] for one in system.find(root + "/"))
        told.append([pieces, refused, left, system.cat_file(root + "/new"), system.cat_file(root + "/c/g")])
    assert told[0] == told[1]


def test_a_url_names_the_volume_and_the_file(volume: Path) -> None:
    url = f"stoker://{volume}!/x/y"
    with fsspec.open(f"stoker://{volume}!/z?sync=off", "wb") as file:
        file.write(b"z")
    system, path = fsspec.core.url_to_fs(f"stoker://{volume}!/z?sync=off")
    try:
        assert path == "/z"
        assert system.cat_file(path) == b"z"
        assert system.unstrip_protocol("/x/y") == url
        system.mkdir("/x")
        assert fsspec.get_mapper(f"stoker://{volume}!/x?sync=off").fs is system
        with pytest.raises(ValueError, match="no volume"):
            fsspec.filesystem("stoker")
        with pytest.raises(OSError, match="refused") as caught:
            system.open("/x", "wb")
        assert caught.value.errno == errno.EISDIR
    finally:
        system._finalizer()
        type(system).clear_instance_cache()


def test_a_copy_moves_no_byte(fs: Any) -> None:
    fs.pipe_file("/f", b"x" * 1_000_000)
    stored = fs.tree.client.counters()["stored_bytes"]
    fs.cp_file("/f", "/g")
    assert fs.cat_file("/g") == b"x" * 1_000_000
    assert fs.tree.client.counters()["stored_bytes"] == stored
    assert fs.ukey("/f") != fs.ukey("/g")
    assert fs.modified("/g") >= fs.created("/f")


@pytest.mark.slow
def test_tables_are_written_and_read_through_it(fs: Any) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    arrow = pytest.importorskip("pyarrow", reason="needs pyarrow")
    table = arrow.table({"n": list(range(1000)), "t": [str(n) for n in range(1000)]})
    fs.mkdir("/tables")
    with fs.open("/tables/one.parquet", "wb") as file:
        parquet.write_table(table, file)
    assert parquet.read_table("/tables/one.parquet", filesystem=fs).equals(table)
    parquet.write_to_dataset(table, "/tables/parts", filesystem=fs)
    assert parquet.read_table("/tables/parts", filesystem=fs).num_rows == 1000
    with fs.open("/tables/one.parquet") as file:
        assert parquet.read_table(file, columns=["n"]).equals(table.select(["n"]))
