"""Hash trees and signatures: whatever changes is named, and a bundle of a stranger can do no harm."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st

from stoker.bench.report.submission.bundle import (
    BUNDLE_FILE,
    SIGNATURE_FILE,
    Comparison,
    compare,
    make_bundle,
    read_bundle,
    root_of,
)
from stoker.bench.report.submission.signing import check_signature, fingerprint, sign_bundle
from stoker.bench.rules.mlperf.documents import shipped_schema
from stoker.bench.rules.mlperf.outputs import BundleFile
from stoker.bench.rules.mlperf.validator import faults
from stoker.core.errors import CorruptError, DeniedError, NotFoundError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of three files, bundled."""
    here = tmp_path / "results"
    (here / "a/b").mkdir(parents=True)
    for name in ("one", "a/two", "a/b/three", ".hidden"):
        (here / name).write_text(name)
    make_bundle(here)
    return here


def keys(folder: Path, password: bytes | None = None, name: str = "key") -> tuple[Path, Path]:
    """A pair of keys in PEM files: private, public."""
    key = ed25519.Ed25519PrivateKey.generate()
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))
    public.write_bytes(
        key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )
    return private, public


def found(folder: Path) -> Comparison:
    return compare(folder, read_bundle(folder))


def test_untouched_folder_is_intact(folder: Path) -> None:
    told = found(folder)
    assert told.intact and told.files == 4 and told.total_bytes == 24
    document = json.loads((folder / BUNDLE_FILE).read_text())
    assert faults(document, shipped_schema("bundle")) == []
    assert [each["path"] for each in document["files"]] == [".hidden", "a/b/three", "a/two", "one"]


def test_every_changed_missing_and_added_file_is_named(folder: Path) -> None:
    (folder / "one").write_text("ONE")  # the same size
    (folder / "a/two").write_text("longer")
    (folder / "a/b/three").unlink()
    (folder / "a/new").write_text("")
    os.symlink("one", folder / "link")
    told = found(folder)
    assert not told.intact
    assert (told.changed, told.missing, told.added, told.odd) == (
        ("a/two", "one"),
        ("a/b/three",),
        ("a/new",),
        ("link",),
    )


def test_file_replaced_by_a_link_to_the_same_bytes_is_not_intact(folder: Path) -> None:
    (folder / "one").rename(folder.parent / "one")
    os.symlink(folder.parent / "one", folder / "one")
    told = found(folder)
    assert told.missing == ("one",) and told.odd == ("one",)


def test_folder_replaced_by_a_link_is_not_followed(folder: Path) -> None:
    (folder / "a").rename(folder.parent / "a")
    os.symlink(folder.parent / "a", folder / "a")
    assert found(folder).missing == ("a/b/three", "a/two")


def test_journal_and_trash_do_not_count(folder: Path) -> None:
    for name in (".mlps/history", ".mlps/runs.jsonl", ".mlps/trash/x"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("more")
    assert found(folder).intact
    (folder / ".mlps/evidence").mkdir()
    (folder / ".mlps/evidence/x").write_text("")
    assert found(folder).added == (".mlps/evidence/x",)


@pytest.mark.parametrize("make", [lambda p: os.symlink("/etc/passwd", p), os.mkfifo])
def test_what_is_no_plain_file_is_not_bundled(tmp_path: Path, make: Callable[[Path], None]) -> None:
    (tmp_path / "file").write_text("x")
    make(tmp_path / "odd")
    with pytest.raises(UsageError, match="odd"):
        make_bundle(tmp_path)
    assert not (tmp_path / BUNDLE_FILE).exists()


def test_nothing_and_nowhere_cannot_be_bundled(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to bundle"):
        make_bundle(tmp_path)
    with pytest.raises(NotFoundError):
        make_bundle(tmp_path / "none")
    with pytest.raises(NotFoundError, match="stoker bundle make"):
        read_bundle(tmp_path)


def spoiled(folder: Path, change: Callable[[dict[str, Any]], None], *, mend: bool = True) -> None:
    """Change the bundle as a stranger would, root and sum mended so that only the change itself is wrong."""
    document = json.loads((folder / BUNDLE_FILE).read_text())
    change(document)
    if mend:
        files = [BundleFile(**each) for each in document["files"]]
        document["root"] = root_of(files)
        document["total_bytes"] = sum(each.bytes for each in files)
    (folder / BUNDLE_FILE).write_text(json.dumps(document))


def renamed(path: str, at: int = 3) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["files"][at]["path"] = path

    return change


@pytest.mark.parametrize(
    "path", ["../one", "/etc/passwd", "z/../../one", "z//a", "z/./a", "", "z\0", "z" * 5000, "/".join("z" * 70)]
)
def test_path_that_leaves_the_folder_is_refused(folder: Path, path: str) -> None:
    spoiled(folder, renamed(path))
    with pytest.raises(CorruptError, match="does not hold together"):
        read_bundle(folder)


@pytest.mark.parametrize("path", ["a/two", "a/b/three", BUNDLE_FILE, ".mlps/trash/x"])
def test_path_that_repeats_or_cannot_be_there_is_refused(folder: Path, path: str) -> None:
    spoiled(folder, renamed(path))
    with pytest.raises(CorruptError, match=r"out of order, or there twice|cannot be part"):
        read_bundle(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["files"][0].update(sha256="0" * 64),
        lambda d: d["files"][0].update(bytes=d["files"][0]["bytes"] + 1),
        lambda d: d["files"].pop(),
        lambda d: d.update(root="0" * 64),
        lambda d: d.update(total_bytes=1),
        lambda d: d["files"][0].update(bytes=-1),
        lambda d: d["files"][0].update(sha256="short"),
        lambda d: d.update(schema="other/1"),
        lambda d: d.update(extra=1),
        lambda d: d["files"][0].update(bytes=1e300),
    ],
)
def test_list_that_was_edited_is_refused(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    spoiled(folder, change, mend=False)
    with pytest.raises(CorruptError):
        read_bundle(folder)


@pytest.mark.parametrize(
    ("old", "new"), [('"path": "one"', '"path": "\\ud800"'), ('"bytes": 3', '"bytes": ' + "9" * 400), ("[", "[" * 5000)]
)
def test_text_that_no_tree_could_have_is_refused(folder: Path, old: str, new: str) -> None:
    text = (folder / BUNDLE_FILE).read_text()
    assert old in text
    (folder / BUNDLE_FILE).write_text(text.replace(old, new))
    with pytest.raises(CorruptError):
        read_bundle(folder)


def test_bundle_that_is_a_link_or_a_pipe_is_refused(folder: Path) -> None:
    (folder / BUNDLE_FILE).rename(folder.parent / "b")
    os.symlink(folder.parent / "b", folder / BUNDLE_FILE)
    with pytest.raises(CorruptError):
        read_bundle(folder)
    (folder / BUNDLE_FILE).unlink()
    os.mkfifo(folder / BUNDLE_FILE)
    with pytest.raises(CorruptError, match="not a plain file"):
        read_bundle(folder)


def rfc6962(leaves: list[bytes]) -> bytes:
    """The hash tree as RFC 6962 words it: split at the largest power of two below the length."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\x00" + leaves[0]).digest()
    split = 1 << (len(leaves) - 1).bit_length() - 1
    return hashlib.sha256(b"\x01" + rfc6962(leaves[:split]) + rfc6962(leaves[split:])).digest()


@given(st.lists(st.integers(0, 1 << 40), max_size=70))
def test_root_is_that_of_rfc_6962(sizes: list[int]) -> None:
    files = [BundleFile(path=f"{at:03}", bytes=size, sha256="ab" * 32) for at, size in enumerate(sizes)]
    lines = [f"{each.bytes}\0{each.path}\0{each.sha256}".encode() for each in files]
    assert root_of(files) == rfc6962(lines).hex()


def test_signature_holds_for_the_key_that_made_it(folder: Path) -> None:
    private, public = keys(folder.parent)
    bundle = read_bundle(folder)
    signer = sign_bundle(folder, bundle, private)
    assert faults(json.loads((folder / SIGNATURE_FILE).read_text()), shipped_schema("bundle_signature")) == []
    told = check_signature(folder, bundle, public)
    assert (told.state, told.key, told.pinned) == ("right", signer, True)
    told = check_signature(folder, bundle)
    assert (told.state, told.pinned) == ("right", False)
    assert found(folder).intact
    raw = serialization.load_pem_public_key(public.read_bytes())
    assert isinstance(raw, ed25519.Ed25519PublicKey) and signer == fingerprint(raw.public_bytes_raw())


def test_signature_of_another_key_tree_or_text_is_wrong(folder: Path) -> None:
    private, public = keys(folder.parent)
    _, other = keys(folder.parent, name="other")
    bundle = read_bundle(folder)
    assert check_signature(folder, bundle, public).state == "missing"
    sign_bundle(folder, bundle, private)
    assert "not with the key that was asked for" in check_signature(folder, bundle, other).why
    good = json.loads((folder / SIGNATURE_FILE).read_text())
    for name, value, why in (
        ("root", "0" * 64, "another hash tree"),
        ("signature", good["signature"][:-8] + "AAAAAA==", "does not hold"),
        ("public_key", "AAAA", "none of Ed25519"),
        ("signature", "?", "cannot be read"),
        ("schema", "x", "cannot be read"),
    ):
        (folder / SIGNATURE_FILE).write_text(json.dumps({**good, name: value}))
        told = check_signature(folder, bundle, public)
        assert told.state == "wrong" and why in told.why, told


def test_tree_that_is_made_anew_is_unsigned(folder: Path) -> None:
    private, _ = keys(folder.parent)
    sign_bundle(folder, read_bundle(folder), private)
    old = (folder / SIGNATURE_FILE).read_bytes()
    (folder / "one").write_text("changed")
    make_bundle(folder)
    assert not (folder / SIGNATURE_FILE).exists()
    (folder / SIGNATURE_FILE).write_bytes(old)
    assert check_signature(folder, read_bundle(folder)).why == "it was made for another hash tree"


def test_encrypted_key_wants_its_password(folder: Path) -> None:
    private, public = keys(folder.parent, b"hunter2")
    bundle = read_bundle(folder)
    for password, told in ((None, "it is encrypted"), (b"wrong", "another password")):
        with pytest.raises(DeniedError, match=told):
            sign_bundle(folder, bundle, private, password)
    sign_bundle(folder, bundle, private, b"hunter2")
    assert check_signature(folder, bundle, public).pinned


def test_other_keys_are_refused(folder: Path) -> None:
    bundle = read_bundle(folder)
    path = folder.parent / "ec.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    with pytest.raises(UsageError, match="Ed25519"):
        sign_bundle(folder, bundle, path)
    with pytest.raises(UsageError, match="not a public key"):
        check_signature(folder, bundle, path)
    with pytest.raises(NotFoundError, match="no key"):
        sign_bundle(folder, bundle, folder.parent / "none.pem")
    private, _ = keys(folder.parent)
    with pytest.raises(DeniedError, match="not encrypted"):
        sign_bundle(folder, bundle, private, b"needless")
