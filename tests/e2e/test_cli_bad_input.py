"""Bad input gets one clear sentence (what, where, expected, got, remedy), its exit code, and nothing is touched."""

import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_place import COSMOFLOW, QUICK, Place, obey_modes

TARGET_COMMANDS = ["feed", "feed --dry-run", "run training", "run training --dry-run", "plan"]
TRAIN = ("run", "training")


def asked(command: str, target: str) -> list[str]:
    """The words of a command for a target, with a model."""
    return [*command.split(), target, *COSMOFLOW]


@pytest.mark.parametrize("command", TARGET_COMMANDS)
def test_missing_target(command: str, place: Place) -> None:
    place.stoker(*asked(command, "missing")).refused(5, "no such folder", "missing", "create it")
    assert place.tree() == {}


@pytest.mark.parametrize("command", [*TARGET_COMMANDS, "gen"])
def test_target_is_a_file(command: str, place: Place) -> None:
    (place / "file").write_text("precious")
    more = ["--accelerator", "a100", "--files", "2"] if command == "gen" else []
    before = place.tree()
    place.stoker(*asked(command, "file"), *more).refused(5, "no such folder", "file", "got a file in its place")
    assert place.tree() == before


@pytest.mark.parametrize("command", ["feed", "gen"])
def test_unwritable_folder(command: str, place: Place) -> None:
    folder = place / "data"
    folder.mkdir()
    folder.chmod(0o555)
    words = ["--budget", "5s"] if command == "feed" else ["--files", "2"]
    done = place.stoker(*asked(command, "data"), *words, prepare=obey_modes)
    done.refused(5, "permissions forbid it", "data", "check owner and mode")
    assert place.tree() == {str(folder): "folder"}


def test_unreadable_dataset(data: Path, place: Place) -> None:
    (data / "train").chmod(0)
    done = place.stoker(*TRAIN, "data", *COSMOFLOW, *QUICK, prepare=obey_modes)
    (data / "train").chmod(0o755)
    assert done.code == 1
    assert "permissions forbid it" in done.out
    assert "Traceback" not in done.out + done.errors


def test_results_folder_cannot_be_made(made: Path, place: Place) -> None:
    (place / "file").write_text("precious")
    done = place.stoker(*TRAIN, str(made), *COSMOFLOW, *QUICK, "--results", "file")
    done.refused(5, "results folder cannot be made", "file/", "choose another place")


def test_empty_folder_holds_no_dataset(place: Place) -> None:
    (place / "empty").mkdir()
    place.stoker(*TRAIN, "empty", *COSMOFLOW).refused(5, "holds no training dataset", "empty", "stoker gen")


def test_gen_refuses_a_folder_with_files_of_others(place: Place) -> None:
    (place / "mine" / "train").mkdir(parents=True)
    (place / "mine" / "train" / "notes.txt").write_text("precious")
    before = place.tree()
    for more in ((), ("--force",), ("--remove",)):
        done = place.stoker("gen", "mine", "--format", "npz", "--files", "2", *more)
        assert done.code == 2
        assert "mine" in done.sentence
        assert place.tree() == before


def test_gen_refuses_a_dataset_made_otherwise_and_leaves_it(data: Path, place: Place) -> None:
    before = place.tree()
    done = place.stoker("gen", "data", "--format", "npz", "--files", "17", "--record-length", "16KiB")
    done.refused(2, "another spec", "expected files 17", "got files 16", "--force")
    assert place.tree() == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("feed . --model cosmofow --accelerator a100", ["no training model 'cosmofow'", "did you mean 'cosmoflow'?"]),
        ("feed . --model cosmoflow --accelerator a10", ["'a10'", "did you mean 'a100'?", "known: a100, h100"]),
        ("feed . --model cosmoflow --accelerator a100:0", ["bad count 'a100:0'", "expected KIND:COUNT"]),
        ("feed . --model cosmoflow --accelerator a100:two", ["bad count 'a100:two'", "expected KIND:COUNT"]),
        ("feed . --model cosmoflow --accelerator a100:-1", ["bad count 'a100:-1'"]),
        ("feed . --model cosmoflow", ["--accelerator is missing", "a100, h100"]),
        ("feed . --accelerator a100", ["--model is missing", "cosmoflow"]),
        ("feed flie:///x --model cosmoflow --accelerator a100", ["no store scheme 'flie'", "did you mean 'file'?"]),
        ("feed file://x/y --model cosmoflow --accelerator a100", ["absolute path", "file:///absolute/path"]),
        ("feed file:///x?fsnc=none --model cosmoflow --accelerator a100", ["unknown key 'fsnc'", "mean 'fsync'?"]),
        ("feed mem://x --model cosmoflow --accelerator a100", ["memory of one process", "'mem://x'"]),
        ("feed null://x --model cosmoflow --accelerator a100", ["keeps nothing", "'null://x'"]),
        ("feed . --model cosmoflow --accelerator a100 --budget soon", ["--budget", "'soon' is not a duration"]),
        ("feed . --model cosmoflow --accelerator a100 --budget 1s", ["--budget: out of range", "at least 5", "got 1"]),
        ("feed . --model cosmoflow --accelerator a100 --batch-size two", ["--batch-size: a whole number", "got 'two'"]),
        ("feed . --model cosmoflow --accelerator a100 --verify most", ["--verify: a number is needed", "got 'most'"]),
        ("feed . --model cosmoflow --accelerator a100 --order shufled", ["'shufled'", "did you mean 'shuffled'?"]),
        ("feed . --model cosmoflow --accelerator a100 --budgt 9s", ["No such option '--budgt'", "--budget"]),
        (
            "feed . --model cosmoflow --accelerator a100 --size-max 4MiB",
            ["too little space", "16.18 MiB", "--size-max"],
        ),
        ("feed . --model unet3d --accelerator h100:64 --budget 5s --size-max 4GiB", ["too little space", "expected"]),
        ("feed . --model cosmoflow --accelerator a100 --launcher mpi", ["no MPI launcher", "mpirun"]),
        ("gen new --format npzz --files 2", ["no format 'npzz'", "did you mean 'npz'?"]),
        ("gen new --format npz", ["how much to make", "--files or --size"]),
        ("gen new", ["what to make", "--model with --accelerator, or --format"]),
        ("gen new --format npz --files 2 --size 1MiB", ["contradict each other"]),
        ("gen new --format npz --files 2 --dims 4xy", ["--dims: not a shape", "128x128x3", "got 4xy"]),
        ("gen new --format npz --files 2 --accelerator h100", ["--accelerator has no effect without --model"]),
        ("gen new --format npz --files 0", ["--files: out of range", "at least 1"]),
        ("gen new --format png --files 2 --dims 4x4x4x4", ["png"]),
        ("gen new --format csv --files 2 --element-type float99", ["float99"]),
        ("fed data", ["no command of stoker 'fed'", "did you mean 'feed'?"]),
        ("run trainig data", ["no command of stoker run 'trainig'", "did you mean 'training'?"]),
        ("report nowhere", ["no result here 'nowhere'", "folder of a run"]),
        ("plan --model cosmoflow --accelerator a100:1000000000", ["bad count 'a100:1000000000'", "at most 1048576"]),
        ("feed . --model cosmoflow --accelerator a100:1000000", ["this host has memory for", "got 1000000", "mpirun"]),
    ],
)
def test_wrong_words(words: str, told: list[str], place: Place) -> None:
    place.stoker(*words.split()).refused(2, *told)
    assert place.tree() == {}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('model = ["', ["is not TOML", "run.toml"]),
        ('modle = "cosmoflow"', ["unknown key 'modle'", "did you mean 'model'?"]),
        ("epochs = 'many'", ["--epochs", "'many'"]),
        ("epochs = 1.5", ["--epochs", "whole number", "1.5"]),
        ("evict = 'perhaps'", ["--evict", "true or false", "'perhaps'"]),
        ("\udcff", ["is not TOML"]),
    ],
)
def test_bad_configuration(content: str, told: list[str], place: Place) -> None:
    (place / "run.toml").write_bytes(content.encode(errors="surrogateescape"))
    place.stoker("plan", *COSMOFLOW, "--config", "run.toml").refused(2, *told)


def test_missing_huge_or_unreadable_configuration(place: Place) -> None:
    place.stoker("plan", "--config", "run.toml").refused(2, "no such configuration file 'run.toml'")
    (place / "run.toml").write_bytes(b"#" * (2 << 20))
    place.stoker("plan", "--config", "run.toml").refused(2, "too large", "at most 1 MiB")
    (place / "run.toml").write_text("epochs = 1")
    (place / "run.toml").chmod(0)
    done = place.stoker("plan", "--config", "run.toml", prepare=obey_modes)
    done.refused(2, "cannot be read 'run.toml'", "Permission denied")


def test_too_few_samples_for_one_step(made: Path, place: Place) -> None:
    done = place.stoker(*TRAIN, str(made), *COSMOFLOW, "--batch-size", "17")
    done.refused(2, "too small for one step", "expected 17 samples", "got 16 samples", "lower the batch size")
    assert place.tree() == {}


def spoilt(data: Path, kind: str) -> Path:
    """Spoil one file of the dataset and return it."""
    file = data / "train" / "img_07_of_16.npz"
    whole = file.read_bytes()
    if kind == "truncated":
        file.write_bytes(whole[:100])
    elif kind == "foreign":
        file.write_bytes(b"not a zip archive".ljust(len(whole), b"."))
    elif kind == "grown":
        file.write_bytes(whole + b"more")
    elif kind == "gone":
        file.unlink()
    else:
        file.unlink()
        file.mkdir()
    return file


@pytest.mark.parametrize("kind", ["truncated", "foreign", "gone", "folder"])
def test_a_spoilt_file_fails_the_run_by_name(kind: str, data: Path, place: Place) -> None:
    file = spoilt(data, kind)
    done = place.stoker(*TRAIN, "data", *COSMOFLOW, *QUICK, "--epochs", "1", "--json")
    told = done.document
    assert (done.code, told["status"], told["answer"], done.errors) == (1, "failed", "invalid", "")
    assert file.name in told["headline"]
    assert "Traceback" not in told["headline"]
    assert (place.folder / told["report"]).is_file()


def test_a_file_that_grew_is_told(data: Path, place: Place) -> None:
    file = spoilt(data, "grown")
    done = place.stoker(*TRAIN, "data", *COSMOFLOW, *QUICK, "--epochs", "1", "--json")
    assert done.code == 1
    assert file.name in done.document["headline"]


@pytest.mark.parametrize("kind", ["truncated", "foreign", "gone"])
def test_gen_verify_names_or_mends_what_is_spoilt(kind: str, data: Path, place: Place) -> None:
    file = spoilt(data, kind)
    words = ("gen", "data", "--format", "npz", "--files", "16", "--record-length", "16KiB", "--verify")
    done = place.stoker(*words)
    if kind == "foreign":
        done.refused(1, "damaged", file.name, "run the same again")
        file.unlink()
        done = place.stoker(*words)
    assert done.code == 0, done.errors
    assert "1 files made, 15 were there" in done.out
    assert "verified: 16 files" in done.out


def test_corrupt_manifest(data: Path, place: Place) -> None:
    (data / ".stoker" / "train.manifest").write_bytes(b"garbage")
    done = place.stoker(*TRAIN, "data", *COSMOFLOW, *QUICK)
    assert done.code == 1
    assert "manifest is damaged" in done.sentence
    assert "generate the dataset again" in done.sentence
    words = ("gen", "data", "--format", "npz", "--files", "16", "--record-length", "16KiB")
    assert place.stoker(*words).code == 0
    assert place.stoker("plan", "data", *COSMOFLOW).code == 0


def test_unfinished_dataset(data: Path, place: Place) -> None:
    (data / ".stoker" / "train.manifest").unlink()
    done = place.stoker(*TRAIN, "data", *COSMOFLOW, *QUICK)
    done.refused(5, "was not completed", "data", "run the generation again")


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"hello": "world"}', b"\x00\xff" * 1000, b"[" * 100_000], ids=lambda content: content[:9]
)
def test_foreign_result(content: bytes, place: Place) -> None:
    (place / "run").mkdir()
    (place / "run" / "result.json").write_bytes(content)
    place.stoker("report", "run").refused(1, "not a result", "run/result.json", "expected stoker-result/1")
    assert [path.name for path in (place / "run").iterdir()] == ["result.json"]


def test_result_of_another_schema(saved: Path, place: Place) -> None:
    file = saved / "result.json"
    file.write_text(file.read_text().replace("stoker-result/1", "stoker-result/99"))
    place.stoker("report", "saved").refused(1, "another schema", "expected stoker-result/1", "got stoker-result/99")


def test_report_cannot_be_written(saved: Path, place: Place) -> None:
    place.stoker("report", "saved", "--out", "no/such/page.html").refused(1, "report cannot be written", "no/such/page")


def test_no_credentials(place: Place) -> None:
    for url, variable in (("s3://bucket/x", "AWS_ACCESS_KEY_ID"), ("az://box/x", "AZURE_STORAGE_ACCOUNT")):
        place.stoker("feed", url, *COSMOFLOW).refused(5, "no credentials", url, variable, "?credentials=")


@pytest.mark.parametrize("command", ["feed", "gen", "plan"])
def test_endpoint_down(command: str, place: Place) -> None:
    variables = {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "canary",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }
    more = ["--files", "2"] if command == "gen" else []
    done = place.stoker(*asked(command, "s3://bucket/x"), *more, **variables)
    done.refused(5, "s3://bucket/x", "Connection refused", "check that the service is up")
    assert "canary" not in done.errors


def file_size_limit(limit_bytes: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, limit_bytes))


def test_file_size_limit_stops_gen_and_nothing_half_written_is_left(place: Place) -> None:
    words = ("gen", "new", "--format", "npz", "--files", "4", "--record-length", "1MiB")
    done = place.stoker(*words, prepare=lambda: file_size_limit(200_000))
    done.refused(1, "larger than the limit", "img_", "ulimit -f", "finished files are kept")
    assert {path.name for path in (place / "new").rglob("*") if path.is_file()} == {"train.marker"}
    assert place.stoker(*words).code == 0


def test_file_size_limit_on_the_results_is_told(made: Path, place: Place) -> None:
    words = (*TRAIN, str(made), *COSMOFLOW, *QUICK, "--epochs", "1")
    done = place.stoker(*words, prepare=lambda: file_size_limit(4096))
    done.refused(1, "results cannot be kept", "stoker-results/", "free some space")


@pytest.fixture
def small_disk(place: Place) -> Iterator[Path]:
    """A file system of 4 MiB."""
    folder = place / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    if os.geteuid() != 0 or mount is None:
        pytest.skip("only the superuser can mount a small file system")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_full_disk(small_disk: Path, made: Path, place: Place) -> None:
    words = ("gen", "small/data", "--format", "npz", "--files", "10", "--record-length", "1MiB")
    place.stoker(*words).refused(5, "does not fit", "10.00 MiB", "4.00 MiB", "free space")
    (small_disk / "data").rmdir()
    place.stoker("feed", "small", *COSMOFLOW).refused(2, "too little space", "16.18 MiB", "free space")
    (small_disk / "filler").write_bytes(bytes((4 << 20) - (24 << 10)))
    done = place.stoker(*TRAIN, str(made), *COSMOFLOW, *QUICK, "--epochs", "1", "--results", "small/results")
    done.refused(1, "results cannot be kept", "small/results", "No space left")


DLIO_FILES = {
    "broken": ("model: {name: [x", "not YAML"),
    "bomb": (
        "a: &a [x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{n}: &{n} [{','.join([f'*{m}'] * 9)}]\n" for m, n in zip("abcdefg", "bcdefgh", strict=True)),
        "out of proportion",
    ),
    "tag": ("model: !!python/object/apply:os.system ['touch PWNED']", "tags are not allowed"),
    "type": (
        "framework: pytorch\ndataset: {format: npz, num_files_train: many}",
        "expected a whole number, got 'many'",
    ),
    "list": ("- a\n- b\n", "list.yaml"),
    "binary": ("\udc80\udcff", "binary.yaml"),
}


@pytest.mark.parametrize("name", DLIO_FILES)
def test_bad_dlio_file(name: str, place: Place) -> None:
    content, told = DLIO_FILES[name]
    (place / "conf" / "workload").mkdir(parents=True)
    (place / "conf" / "workload" / f"{name}.yaml").write_bytes(content.encode(errors="surrogateescape"))
    before = place.tree()
    place.stoker("dlio", f"workload={name}", "--config-dir", "conf").refused(2, told, f"{name}.yaml")
    assert place.tree() == before


def test_unknown_dlio_workload_and_flag(place: Place) -> None:
    place.stoker("dlio", "workload=unet3d_h10").refused(2, "no workload 'unet3d_h10'", "did you mean 'unet3d_h100'?")
    place.stoker("dlio", "--config-dri", "conf").refused(2, "unknown flag '--config-dri'", "did you mean --config-dir?")
    place.stoker("dlio", "workload=default", "train.epochs=2").refused(
        2, "'train.epochs'", "write workload.train.epochs"
    )
    assert place.tree() == {}


def test_unknown_dlio_key_is_a_warning_and_strictly_an_error(place: Place) -> None:
    words = ("dlio", "workload=unet3d_h100", "++workload.reader.batch_sz=4", "--dry-run")
    done = place.stoker(*words)
    assert done.code == 0
    assert "unknown key 'reader.batch_sz'" in done.errors
    assert "did you mean 'reader.batch_size'?" in done.errors
    place.stoker(*words, "--strict").refused(2, "reader.batch_sz", "did you mean 'reader.batch_size'?")


def test_dlio_dataset_that_is_not_there_or_too_small(data: Path, place: Place) -> None:
    base = ("dlio", "workload=default", "++workload.workflow.generate_data=False", "++workload.workflow.train=True")
    place.stoker(*base, "++workload.dataset.data_folder=missing").refused(5, "no such folder", "missing")
    words = (*base, "++workload.dataset.data_folder=data", "++workload.dataset.format=npz")
    before = place.tree()
    done = place.stoker(*words, "++workload.dataset.num_files_train=17", "++workload.dataset.keep_files=False")
    done.refused(5, "fewer files than are needed", "expected 17 files", "got 16 files")
    assert place.tree() == before
