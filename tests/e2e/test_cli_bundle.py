"""`stoker bundle` as it is typed: make, sign, verify, exit codes, passwords that nobody sees, hostile trees."""

import json
import os
import re
from pathlib import Path

import pytest
from cli_place import Place
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SCRIPTS_PAGE = (Path(__file__).resolve().parents[2] / "docs" / "guide" / "scripts.md").read_text()
PASSWORD = "hunter2"


def keys_of(command: str) -> set[str]:
    """Return the keys that the page for scripts lists beside a command."""
    (line,) = [line for line in SCRIPTS_PAGE.splitlines() if line.startswith(f"| `{command}` |")]
    return set(re.findall(r"`([a-z_]+)`", line.split("|")[2]))


@pytest.fixture
def tree(place: Place) -> Path:
    """A folder with two files and its hash tree, and a pair of keys beside it."""
    (place / "tree/a").mkdir(parents=True)
    (place / "tree/a/one").write_text("one")
    (place / "tree/two").write_text("two")
    key = Ed25519PrivateKey.generate()
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    hidden = serialization.BestAvailableEncryption(PASSWORD.encode())
    (place / "key.pem").write_bytes(key.private_bytes(pem, form, hidden))
    public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
    (place / "key.pub.pem").write_bytes(public)
    (place / "password").write_text(f"{PASSWORD}\nnot this line\n")
    assert place.stoker("bundle", "make", "tree").code == 0
    return place / "tree"


def test_make_sign_and_verify(tree: Path, place: Place) -> None:
    signed = place.stoker("bundle", "sign", "tree", "--key", "key.pem", "--password-file", "password")
    assert (signed.code, signed.errors) == (0, "")
    before = place.tree()
    done = place.stoker("bundle", "verify", "tree", "--public-key", "key.pub.pem")
    assert (done.code, done.errors) == (0, "")
    lines = done.out.splitlines()
    assert lines[0].startswith("intact: 2 files, 6 bytes, root ")
    assert lines[1].endswith(": the key that was asked for") and len(lines) == 2
    assert place.stoker("bundle", "verify", "tree").code == 3
    assert place.stoker("bundle", "verify", "tree", "--unsigned").code == 0
    assert place.tree() == before


def test_whatever_is_not_as_it_was_is_named(tree: Path, place: Place) -> None:
    (tree / "two").write_text("TWO")
    (tree / "a/one").unlink()
    (tree / "new\x1b[31m").write_text("")
    done = place.stoker("bundle", "verify", "tree", "--unsigned")
    assert done.code == 4
    assert done.out.splitlines()[:3] == ["changed: two", "missing: a/one", "added: new�[31m"]
    assert done.out.splitlines()[3].startswith("NOT INTACT: ")
    place.stoker("bundle", "sign", "tree", "--key", "key.pem", "--password-file", "password").refused(2, "make it anew")


def test_json_has_the_documented_keys(tree: Path, place: Place) -> None:
    assert set(place.stoker("bundle", "make", "tree", "--json").document) == keys_of("bundle make")
    words = ("--key", "key.pem", "--password-env", "WORD", "--json")
    assert set(place.stoker("bundle", "sign", "tree", *words, WORD=PASSWORD).document) == keys_of("bundle sign")
    document = place.stoker("bundle", "verify", "tree", "--json").document
    assert set(document) == keys_of("bundle verify")
    assert document["signature"]["state"] == "right" and document["exit_code"] == 3


def test_missing_signature_is_wrong_only_where_one_was_asked_for(tree: Path, place: Place) -> None:
    asked = place.stoker("bundle", "verify", "tree", "--public-key", "key.pub.pem")
    assert asked.code == 4 and "signature missing" in asked.out
    assert place.stoker("bundle", "verify", "tree").code == 3


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--password-env", "NOBODY"), "no such variable"),
        (("--password-env", "A", "--password-file", "password"), "given twice"),
        ((), "it is encrypted"),
    ],
)
def test_password_that_cannot_be_had_is_told_and_never_shown(
    tree: Path, place: Place, words: tuple[str, ...], told: str
) -> None:
    done = place.stoker("bundle", "sign", "tree", "--key", "key.pem", *words, A="other")
    assert done.code != 0 and told in done.sentence and PASSWORD not in done.errors
    assert not (tree / ".stoker-bundle.sig").exists()


def test_wrong_use_is_refused(tree: Path, place: Place) -> None:
    words = ("bundle", "verify", "tree", "--unsigned", "--public-key", "key.pub.pem")
    place.stoker(*words).refused(2, "--unsigned asks for no signature")
    place.stoker("bundle", "make", "nowhere").refused(1, "no folder")
    place.stoker("bundle", "verify", "tree/a").refused(1, "stoker bundle make")
    place.stoker("bundle", "verity").refused(2, "verify")


def test_tree_of_a_stranger_opens_nothing_outside(tree: Path, place: Place) -> None:
    path = tree / ".stoker-bundle.json"
    document = json.loads(path.read_text())
    document["files"][0]["path"] = "../key.pem"
    path.write_text(json.dumps(document))
    place.stoker("bundle", "verify", "tree").refused(1, "does not hold together", "leaves the folder")
    path.write_text("[" * 100_000)
    place.stoker("bundle", "verify", "tree").refused(1, "not a hash tree")
    path.unlink()
    os.mkfifo(path)
    place.stoker("bundle", "verify", "tree").refused(1, "not a plain file")
