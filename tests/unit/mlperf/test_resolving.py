"""Flag beats environment beats file beats default, for options and for each overridden key; limits are the rules'."""

from pathlib import Path
from typing import Any

import pytest

from stoker.bench.run.mlperf.resolving import Invocation, Place, resolve_invocation
from stoker.bench.run.mlperf.storing import data_place
from stoker.cli.mlperf import spelled_out
from stoker.core.errors import UsageError
from stoker.core.options import Setting

RUN = Place("open", "training", "unet3d", "run", "file")
NEEDED = {
    "systemname": "sysA",
    "client_host_memory_in_gb": "64",
    "num_accelerators": "2",
    "accelerator_type": "b200",
    "data_dir": "/data",
}


def resolved(place: Place = RUN, environment: dict[str, str] | None = None, **flags: Any) -> Invocation:
    return resolve_invocation(place, {**NEEDED, **flags}, environment or {})


def config(tmp_path: Path, text: str) -> str:
    file = tmp_path / "args.yaml"
    file.write_text(text)
    return str(file)


@pytest.mark.parametrize(
    ("flag", "variable", "in_file", "expected"),
    [
        ("/flag", "/env", "/file", Setting("/flag", "flag")),
        (None, "/env", "/file", Setting("/env", "env")),
        (None, "", "/file", Setting("/file", "file")),
        (None, "/env", None, Setting("/env", "env")),
    ],
)
def test_the_nearest_layer_wins(flag, variable, in_file, expected, tmp_path: Path) -> None:
    file = config(tmp_path, f"data-dir: {in_file}\n" if in_file else "loops: 2\n")
    found = resolved(environment={"MLPSTORAGE_DATA_DIR": variable}, data_dir=flag, config_file=file)
    assert found.settings["data_dir"] == expected
    layers = [each.origin for each in found.found["data_dir"]]
    assert layers == sorted(layers, key=["flag", "env", "file", "default"].index)


def test_a_file_tells_the_line_of_each_value(tmp_path: Path) -> None:
    file = config(tmp_path, "loops: 3\n\nhosts: [a, b]\nparams:\n  reader:\n    read_threads: 8\n")
    found = resolved(config_file=file)
    assert found.found["hosts"][0].where == f"{file}:3"
    assert found.params["reader.read_threads"][0].where == f"{file}:6"
    assert [host.name for host in found.hosts] == ["a", "b"]
    assert found.overrides == {"reader.read_threads": "8"}


def test_overridden_keys_follow_the_rule_one_by_one(tmp_path: Path) -> None:
    file = config(tmp_path, "params: [reader.read_threads=8, reader.prefetch_size=1]\n")
    found = resolved(config_file=file, params=("reader.read_threads=16", "++workload.dataset.num_files_train=9"))
    assert found.overrides == {
        "reader.read_threads": "16",
        "dataset.num_files_train": "9",
        "reader.prefetch_size": "1",
    }
    assert [each.origin for each in found.params["reader.read_threads"]] == ["flag", "file"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_acelerators: 3\n", "did you mean 'num_accelerators'"),
        ("num_processes: 3\n", "unknown key"),  # an option of datagen
        ("loops: many\n", r"args\.yaml:1.*'many'"),
        ("data_dir: {a: 1}\n", "a value is needed"),
        ("- 1\n", "mapping"),
        ("data_dir: !!python/object:os.system x\n", "tag"),
    ],
)
def test_a_bad_file_is_one_sentence_with_its_place(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=words):
        resolved(config_file=config(tmp_path, text))


def test_a_key_that_the_division_has_not_is_unknown_in_a_file_too(tmp_path: Path) -> None:
    place = Place("closed", "training", "unet3d", "run", "file")
    with pytest.raises(UsageError, match="unknown key 'loops'"):
        resolved(place, config_file=config(tmp_path, "loops: 6\n"))


@pytest.mark.parametrize("name", sorted(NEEDED))
def test_what_is_needed_is_asked_for(name: str) -> None:
    with pytest.raises(UsageError, match=f"E201: --{name.replace('_', '-')}"):
        resolved(**{name: None})


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"exec_type": "docker"}, "docker starts no ranks"),
        ({"hosts": ("a b",), "mpi_btl": "tcp"}, "single host"),
        ({"hosts": ("a,b",), "num_client_hosts": "3"}, "disagree"),
        ({"accelerator_type": "h100"}, "known: b200"),
        ({"params": ("reader.read_threads",)}, "KEY=VALUE"),
        ({"num_accelerators": "0"}, "at least 1"),
        ({"client_host_memory_in_gb": "nan"}, "finite"),
    ],
)
def test_what_cannot_be_is_refused(flags: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        resolved(**flags)


def checkpointing(division: str, **flags: Any) -> Invocation:
    needed = {
        "systemname": "sysA",
        "client_host_memory_in_gb": "64",
        "num_processes": "8",
        "accelerator_type": "b200",
        "checkpoint_folder": "/c",
    }
    place = Place(division, "checkpointing", "llama3-8b", "run", "file")
    return resolve_invocation(place, {**needed, **flags}, {})


@pytest.mark.parametrize(("writes", "reads"), [("10", "10"), ("10", "0"), ("0", "10")])
def test_closed_checkpoint_counts_of_the_rules_are_taken(writes: str, reads: str) -> None:
    found = checkpointing("closed", num_checkpoints_write=writes, num_checkpoints_read=reads)
    assert (found.value("num_checkpoints_write"), found.value("num_checkpoints_read")) == (int(writes), int(reads))


@pytest.mark.parametrize(("writes", "reads"), [("5", "10"), ("10", "1"), ("0", "0")])
def test_closed_checkpoint_counts_beyond_the_rules_are_refused(writes: str, reads: str) -> None:
    with pytest.raises(UsageError, match=r"checkpoint"):
        checkpointing("closed", num_checkpoints_write=writes, num_checkpoints_read=reads)


def test_open_takes_other_counts_but_not_none_at_all() -> None:
    assert checkpointing("open", num_checkpoints_write="3").value("num_checkpoints_write") == 3
    with pytest.raises(UsageError, match="neither a checkpoint to write nor one to read"):
        checkpointing("open", num_checkpoints_write="0", num_checkpoints_read="0")


def test_direct_reads_of_an_object_store_are_refused() -> None:
    with pytest.raises(UsageError, match="--o-direct does not go with object"):
        resolved(Place("open", "training", "unet3d", "run", "object"), o_direct=True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--hosts", "a", "b", "--quiet"], ["--hosts", "a", "--hosts", "b", "--quiet"]),
        (["-p", "a=1", "b=2", "-p", "c=3"], ["-p", "a=1", "-p", "b=2", "-p", "c=3"]),
        (["--params=a=1", "b=2"], ["--params=a=1", "--params", "b=2"]),
        (["file", "-na", "8"], ["file", "-na", "8"]),
    ],
)
def test_an_option_takes_several_words(words: list[str], told: list[str]) -> None:
    assert spelled_out(words, ("--hosts", "-s", "--params", "--param", "-p")) == told


def test_an_option_without_its_word_is_refused() -> None:
    with pytest.raises(UsageError, match="--hosts needs a value"):
        spelled_out(["--hosts", "--quiet"], ("--hosts",))


@pytest.mark.parametrize(
    ("data_dir", "environment", "url"),
    [
        ("s3://bucket/pre", {}, "s3://bucket/pre/unet3d"),
        ("bucket/pre", {}, "s3://bucket/pre/unet3d"),
        ("pre", {"BUCKET": "b"}, "s3://b/pre/unet3d"),
        ("bucket/unet3d", {"STORAGE_URI_SCHEME": "gs"}, "gs://bucket/unet3d"),
    ],
)
def test_where_objects_lie(data_dir: str, environment: dict[str, str], url: str) -> None:
    found = resolved(Place("open", "training", "unet3d", "run", "object"), data_dir=data_dir)
    assert data_place(found, environment).url == url


@pytest.mark.parametrize(
    ("access", "data_dir", "environment", "words"),
    [
        ("file", "s3://bucket/pre", {}, "say object"),
        ("object", "file:///data", {}, "not a scheme of an object store"),
        ("object", "s3:///pre", {}, "no bucket|names no bucket"),
        ("object", "b/p", {"S3_ENDPOINT_FILE": "/no/such/file"}, "S3_ENDPOINT_FILE cannot be read"),
        ("object", "b/p", {"S3_ENDPOINT_FILE": "/dev/zero"}, "names no file of addresses"),
        ("object", "b/p", {"S3_ENDPOINT_URIS": " , "}, "holds no address"),
        ("object", "b/p", {"S3_ENDPOINT_URIS": "http://user:secret@a,http://b"}, "does not hold addresses"),
        ("object", "b/p", {"S3_ENDPOINT_TEMPLATE": "http://a{8...1}"}, "a range that is none"),
        ("object", "b/p", {"S3_ENDPOINT_TEMPLATE": "http://a{1...900000000}"}, "a range that is none"),
        (
            "object",
            "b/p",
            {"S3_ENDPOINT_URIS": "http://a,http://b", "S3_LOAD_BALANCE_STRATEGY": "least_connections"},
            "S3_LOAD_BALANCE_STRATEGY is not supported: expected round_robin",
        ),
    ],
)
def test_addresses_that_do_not_fit_are_refused(access: str, data_dir: str, environment: Any, words: str) -> None:
    found = resolved(Place("open", "training", "unet3d", "run", access), data_dir=data_dir)
    with pytest.raises(UsageError, match=words):
        data_place(found, environment)


@pytest.mark.parametrize(
    ("environment", "wanted"),
    [
        ({"S3_ENDPOINT_URIS": "http://a:1, http://b:2/"}, {"STOKER_S3_ENDPOINTS": "http://a:1,http://b:2"}),
        (
            {"S3_ENDPOINT_TEMPLATE": "http://h{9...11}:1"},
            {"STOKER_S3_ENDPOINTS": "http://h9:1,http://h10:1,http://h11:1"},
        ),
        ({"S3_ENDPOINT_FILE": "FILE"}, {"STOKER_S3_ENDPOINTS": "http://a:1,https://b"}),
        ({"S3_ENDPOINT_TEMPLATE": "http://a:1"}, {"AWS_ENDPOINT_URL": "http://a:1"}),
        ({"S3_ENDPOINT_URIS": "a:1", "AWS_ENDPOINT_URL": "http://b:2"}, {"AWS_ENDPOINT_URL": "http://a:1"}),
        ({"S3_ENDPOINT": "a:1"}, {"AWS_ENDPOINT_URL": "http://a:1"}),
        ({"S3_ENDPOINT": "a:1", "AWS_ENDPOINT_URL": "http://b:2"}, {}),
        (
            {"S3_ENDPOINT_URIS": "a:1,b:2", "S3_LOAD_BALANCE_STRATEGY": "round_robin"},
            {"STOKER_S3_ENDPOINTS": "http://a:1,http://b:2"},
        ),
    ],
)
def test_endpoints_are_passed_on_in_the_order_of_the_reference(
    environment: dict[str, str], wanted: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "addresses").write_text("# two\na:1\n\n  https://b\na:1\n")
    told = {name: str(tmp_path / "addresses") if text == "FILE" else text for name, text in environment.items()}
    found = resolved(Place("open", "training", "unet3d", "run", "object"), data_dir="b/p")
    assert data_place(found, told).variables == wanted


def test_one_endpoint_is_passed_on() -> None:
    found = resolved(Place("open", "training", "unet3d", "run", "object"), data_dir="b/p")
    assert data_place(found, {"S3_ENDPOINT_URIS": "http://a:9000"}).variables == {"AWS_ENDPOINT_URL": "http://a:9000"}
