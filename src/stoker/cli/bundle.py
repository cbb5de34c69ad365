"""`stoker bundle`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
from rich.text import Text

from stoker.cli.groups import NearestGroup
from stoker.cli.screen import emit_json, screen
from stoker.core.errors import EXIT_GOOD, EXIT_INVALID, EXIT_NEGATIVE, UsageError

if TYPE_CHECKING:
    from stoker.bench.report.submission.bundle import Comparison
    from stoker.bench.report.submission.signing import Signed

_PASSWORD_BYTES_MAX: Final = 4096
_TONES: Final = {EXIT_GOOD: "green", EXIT_NEGATIVE: "yellow", EXIT_INVALID: "red"}
_FOLDER = click.argument("path", type=click.Path(path_type=Path))
_KEY_FILE = click.Path(path_type=Path, dir_okay=False)


@click.group("bundle", cls=NearestGroup)
def command() -> None:
    """Seal a folder of results: a hash tree over its files, signed, checked offline.

    The tree lies in the folder as .stoker-bundle.json, the signature beside it as .stoker-bundle.sig.
    """


@command.command("make")
@_FOLDER
@click.option("--json", "as_json", is_flag=True, help="Print what was made as one JSON object.")
def make(path: Path, as_json: bool) -> int:
    """Write the hash tree of PATH: a submission, or the folder of one run."""
    from stoker.bench.report.submission.bundle import make_bundle

    bundle = make_bundle(path)
    told = {"path": str(path), "files": len(bundle.files), "bytes": bundle.total_bytes, "root": bundle.root}
    if as_json:
        emit_json(told)
    else:
        click.echo(f"{len(bundle.files):,} files, {bundle.total_bytes:,} bytes, root {bundle.root}")
    return EXIT_GOOD


@command.command("sign")
@_FOLDER
@click.option("--key", required=True, type=_KEY_FILE, help="The private key, Ed25519 in PEM.")
@click.option("--password-file", type=_KEY_FILE, help="The file whose first line is the key's password.")
@click.option("--password-env", metavar="NAME", help="The variable that holds the key's password.")
@click.option("--json", "as_json", is_flag=True, help="Print who signed what as one JSON object.")
def sign(path: Path, key: Path, password_file: Path | None, password_env: str | None, as_json: bool) -> int:
    """Sign the hash tree of PATH, which must be that of its files as they are."""
    from stoker.bench.report.submission.bundle import compare, read_bundle
    from stoker.bench.report.submission.signing import sign_bundle

    bundle = read_bundle(path)
    if not compare(path, bundle).intact:
        raise UsageError("the hash tree is not that of the files", where=str(path), remedy="make it anew, then sign it")
    signer = sign_bundle(path, bundle, key, _password(password_file, password_env))
    if as_json:
        emit_json({"path": str(path), "root": bundle.root, "key": signer})
    else:
        click.echo(f"signed root {bundle.root} with {signer}")
    return EXIT_GOOD


@command.command("verify")
@_FOLDER
@click.option("--public-key", type=_KEY_FILE, help="The key that must have signed, Ed25519 in PEM.")
@click.option("--unsigned", is_flag=True, help="Files alone are asked about; who signed is not.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as one JSON object.")
def verify(path: Path, public_key: Path | None, unsigned: bool, as_json: bool) -> int:
    """Hold the files of PATH against their hash tree, and the tree against its signature; nothing else is asked.

    Names every file that was changed, is missing or was added. Exit codes: 0 intact and signed with --public-key (with
    --unsigned: intact), 3 intact but nobody that you named stands for it, 4 not intact or wrongly signed.
    """
    from stoker.bench.report.submission.bundle import compare, read_bundle
    from stoker.bench.report.submission.signing import Signed, check_signature

    if unsigned and public_key is not None:
        raise UsageError("--unsigned asks for no signature", remedy="leave out --unsigned or --public-key")
    bundle = read_bundle(path)
    found = compare(path, bundle)
    signed = Signed("missing", "not asked for") if unsigned else check_signature(path, bundle, public_key)
    code = _code(found, signed, unsigned=unsigned, asked=public_key is not None)
    if as_json:
        emit_json(_document(path, found, signed, code))
    else:
        _print(found, signed, code, unsigned=unsigned)
    return code


def _password(file: Path | None, name: str | None) -> bytes | None:
    """Return the password from where it was said to be: never from the command line, which others can see."""
    if file is not None and name is not None:
        raise UsageError("the password is given twice", remedy="leave out --password-file or --password-env")
    if name is not None:
        if name not in os.environ:
            raise UsageError("no such variable for the password", where=name)
        return os.environ[name].encode()
    if file is None:
        return None
    with file.open("rb") as opened:
        return opened.readline(_PASSWORD_BYTES_MAX).rstrip(b"\r\n")


def _code(found: "Comparison", signed: "Signed", *, unsigned: bool, asked: bool) -> int:
    if not found.intact or signed.state == "wrong" or (asked and signed.state == "missing"):
        return EXIT_INVALID
    return EXIT_GOOD if unsigned or signed.pinned else EXIT_NEGATIVE


def _document(path: Path, found: "Comparison", signed: "Signed", code: int) -> dict[str, object]:
    lists = {name: [_utf8(each) for each in getattr(found, name)] for name in ("changed", "missing", "added", "odd")}
    facts = {"path": str(path), "root": found.root, "files": found.files, "bytes": found.total_bytes}
    signature = {"state": signed.state, "why": signed.why, "key": signed.key, "pinned": signed.pinned}
    return {**facts, "intact": found.intact, **lists, "signature": signature, "exit_code": code}


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _print(found: "Comparison", signed: "Signed", code: int, *, unsigned: bool) -> None:
    from stoker.bench.report.text import plain

    words = {"changed": "changed", "missing": "missing", "added": "added", "odd": "not a plain file"}
    with screen() as console:
        for name, told in words.items():
            for path in getattr(found, name):
                console.print(Text(f"{told}: {plain(_utf8(path), 4096)}", style="red"), soft_wrap=True)
        state = "intact" if found.intact else "NOT INTACT"
        head = f"{state}: {found.files:,} files, {found.total_bytes:,} bytes, root {found.root}"
        console.print(Text(head, style=f"bold {_TONES[code]}"), soft_wrap=True)
        if not unsigned:
            console.print(Text(plain(_signature(signed), 600), style=_TONES[code]), soft_wrap=True)


def _signature(signed: "Signed") -> str:
    if signed.state != "right":
        return f"signature {signed.state}: {signed.why}"
    pinned = "the key that was asked for" if signed.pinned else "compare it, or name the key with --public-key"
    return f"signed with {signed.key}: {pinned}"
