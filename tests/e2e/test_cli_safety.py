"""No secret leaves the environment, no link leads out of a dataset, and only what a marker says is ours is removed."""

import shutil
from pathlib import Path

from cli_place import COSMOFLOW, QUICK, Place

CANARY = "c4n4ry-s3cr3t"
SECRETS = {
    "AWS_ACCESS_KEY_ID": f"{CANARY}-id",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}-key",
    "AWS_SESSION_TOKEN": f"{CANARY}-session",
    "AZURE_STORAGE_ACCOUNT": "account",
    "AZURE_STORAGE_KEY": f"{CANARY}-azure",
    "AZURE_STORAGE_SAS_TOKEN": f"sig={CANARY}-sas",
    "GOOGLE_SERVICE_ACCOUNT_KEY": f"{CANARY}-google",
    "HTTPS_PROXY": f"http://user:{CANARY}-proxy@127.0.0.1:9",
    "MY_API_TOKEN": f"{CANARY}-own",
}
TRAIN = ("run", "training")


def holding_the_canary(folder: Path) -> list[Path]:
    """The files below the folder that hold the canary."""
    return [path for path in folder.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]


def test_secrets_of_the_environment_stay_there(made: Path, place: Place) -> None:
    words = (*TRAIN, str(made), "--model", "cosmoflow", "--accelerator", "a100:2", *QUICK, "--epochs", "0")
    running = place.start(*words, "--duration", "2s", "--label", f"token={CANARY}", **SECRETS)
    seen: set[str] = set()

    def ranks_are_seen() -> bool:
        for pid in running.children():
            try:
                line = Path(f"/proc/{pid}/cmdline").read_text()
            except OSError:
                continue
            if "rank_process" in line:  # before that a new process still shows our own words
                seen.add(line)
        return bool(seen)

    running.wait_until(ranks_are_seen)
    done = running.end()
    assert done.code in (0, 3), done.errors
    assert CANARY not in "".join(seen)
    assert CANARY not in done.out + done.errors
    (folder,) = place.runs()
    assert (folder / "report.html").is_file()
    assert holding_the_canary(place.folder) == []


def test_secrets_stay_out_of_errors(place: Place) -> None:
    variables = {**SECRETS, "AWS_ENDPOINT_URL": f"http://user:{CANARY}-endpoint@127.0.0.1:9"}
    for command in (["feed"], ["gen", "--files", "2"], ["doctor"]):
        more = [] if command == ["doctor"] else COSMOFLOW
        done = place.stoker(*command, "s3://bucket/x", *more, "--json", **variables)
        assert done.code == 5
        assert CANARY not in done.out + done.errors


def test_credentials_in_a_url_are_refused_without_being_repeated(place: Place) -> None:
    for url in (
        f"s3://user:{CANARY}@bucket/x",
        f"s3://bucket/x?secret_access_key={CANARY}",
        f"file:///x?token={CANARY}",
    ):
        for command in (["feed"], ["gen", "--files", "2"]):
            done = place.stoker(*command, url, *COSMOFLOW)
            assert (done.code, done.out) == (2, "")
            assert CANARY not in done.sentence
    assert place.tree() == {}


def test_links_are_not_followed_when_a_foreign_dataset_is_read(data: Path, place: Place) -> None:
    shutil.rmtree(data / ".stoker")
    (place / "outside").mkdir()
    for number in range(3):
        shutil.copy(data / "train" / "img_00_of_16.npz", place / "outside" / f"img_{number}.npz")
    (data / "train" / "linked.npz").symlink_to(place / "outside" / "img_0.npz")
    (data / "train" / "linked").symlink_to(place / "outside")
    plan = place.stoker("plan", "data", *COSMOFLOW, "--json").document
    assert plan["dataset"]["files"] == 16


def test_a_link_in_place_of_a_file_fails_the_run(data: Path, place: Place) -> None:
    file = data / "train" / "img_03_of_16.npz"
    file.rename(place / "outside.npz")
    file.symlink_to(place / "outside.npz")
    done = place.stoker(*TRAIN, "data", *COSMOFLOW, *QUICK, "--epochs", "1")
    assert done.code == 1
    assert file.name in done.out
    assert "symbolic link" in done.out


def test_removal_takes_what_is_ours_and_nothing_else(data: Path, place: Place) -> None:
    (place / "outside").mkdir()
    (place / "outside" / "img_05_of_16.npz").write_text("precious")
    taken = data / "train" / "img_05_of_16.npz"
    taken.unlink()
    taken.symlink_to(place / "outside" / "img_05_of_16.npz")
    (data / "train" / "linked").symlink_to(place / "outside")
    (data / "train" / "notes.txt").write_text("precious")
    (data / "train" / "img_99_of_99.npz").write_text("precious")
    (data / "valid").mkdir()
    (data / "valid" / "img_0_of_1.npz").write_text("precious")
    mine = ("notes.txt", "img_99_of_99.npz", "img_0_of_1.npz", "linked", "outside", "img_05_of_16.npz")
    expected = {path: text for path, text in place.tree().items() if Path(path).name in mine}
    report = place.stoker("gen", "data", "--remove", "--json").document
    assert report["files_removed"] == 15
    left = {path: text for path, text in place.tree().items() if text != "folder" or Path(path).name in mine}
    assert left == expected
    again = place.stoker("gen", "data", "--remove")
    assert again.code == 2
    assert "no split of ours is here" in again.sentence


def test_feed_does_not_follow_a_link_out_of_its_target(place: Place) -> None:
    (place / "target").mkdir()
    (place / "outside").mkdir()
    (place / "target" / "stoker-feed-cosmoflow").symlink_to(place / "outside")
    before = place.tree()
    done = place.stoker("feed", "target", *COSMOFLOW, "--keep", "--budget", "5s", "--size-max", "20MiB")
    done.refused(2, "symbolic link", "target/stoker-feed-cosmoflow")
    assert place.tree() == before


def test_the_file_names_of_a_dataset_cannot_colour_or_steer_a_terminal(data: Path, place: Place) -> None:
    target = place / "odd [bold red]:smile: \x1b[31m"
    data.rename(target)
    for words in (("plan",), (*TRAIN,)):
        done = place.stoker(*words, target.name, *COSMOFLOW, *QUICK, "--epochs", "1")
        assert done.code in (0, 3)
        assert "\x1b" not in done.out + done.errors
    doctor = place.stoker("doctor", target.name)
    assert "odd [bold red]:smile:" in doctor.out
    assert "\x1b" not in doctor.out
