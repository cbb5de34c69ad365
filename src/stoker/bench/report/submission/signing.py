"""A detached Ed25519 signature over the root of a hash tree: who stands for these results.

What is signed is a text of four lines: the schema, the root, the number of files and of bytes. Keys are PEM files;
the password of a private one is given by the caller, who reads it from a file or the environment.
"""

import base64
import binascii
import hashlib
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.bench.report.submission.bundle import SIGNATURE_FILE, read_plain
from stoker.bench.rules.mlperf.outputs import Bundle, BundleSignature
from stoker.core import clock
from stoker.core.errors import CorruptError, DeniedError, MissingExtraError, NotFoundError, UsageError
from stoker.core.files import write_atomic

SCHEMA: Final = "stoker-bundle-signature/1"
KEY_BYTES_MAX: Final = 1 << 16
_SIGNATURE_BYTES_MAX: Final = 1 << 16


class Signed(msgspec.Struct, frozen=True):
    """What became of a signature: `state` is missing, wrong or right; `why` says what is wrong.

    `key` is the fingerprint of the key that signed; `pinned` tells that it is the one that was asked for.
    """

    state: str
    why: str = ""
    key: str = ""
    pinned: bool = False


def statement(bundle: Bundle) -> bytes:
    """Return the bytes that are signed."""
    return f"{bundle.schema}\n{bundle.root}\n{len(bundle.files)}\n{bundle.total_bytes}\n".encode()


def sign_bundle(folder: Path, bundle: Bundle, private_key: Path, password: bytes | None = None) -> str:
    """Sign the hash tree of `folder` with a private key in a PEM file and return the key's fingerprint.

    Raises MissingExtraError without the package, NotFoundError and DeniedError for a key that cannot be had,
    UsageError for one that is not Ed25519.
    """
    ed25519, serialization = _library()
    data = _key_bytes(private_key)
    try:
        key = serialization.load_pem_private_key(data, password=password)
    except TypeError as error:  # a password too many, or one too few
        told = "it is encrypted" if password is None else "it is not encrypted"
        remedy = "give its password" if password is None else "leave the password out"
        raise DeniedError("private key cannot be opened", where=str(private_key), got=told, remedy=remedy) from error
    except ValueError as error:
        what = "private key cannot be opened: not PEM, or another password"
        raise DeniedError(what, where=str(private_key)) from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _not_ed25519(private_key)
    public = key.public_key().public_bytes_raw()
    document = BundleSignature(
        schema=SCHEMA,
        algorithm="ed25519",
        root=bundle.root,
        public_key=base64.b64encode(public).decode(),
        fingerprint=fingerprint(public),
        signature=base64.b64encode(key.sign(statement(bundle))).decode(),
        signed_at=clock.utc_text(),
    )
    write_atomic(folder / SIGNATURE_FILE, msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")
    return document.fingerprint


def check_signature(folder: Path, bundle: Bundle, public_key: Path | None = None) -> Signed:
    """Return whether the hash tree is signed, and by whom; with a public key in a PEM file, whether by that one.

    Raises MissingExtraError when there is a signature and no package to check it, UsageError for no Ed25519 key.
    """
    pinned = None if public_key is None else _public_bytes(public_key)
    try:
        data = read_plain(folder / SIGNATURE_FILE, _SIGNATURE_BYTES_MAX)
        document = msgspec.json.decode(data, type=BundleSignature)
        key, signature = (base64.b64decode(text, validate=True) for text in (document.public_key, document.signature))
    except FileNotFoundError:
        return Signed("missing", "there is no signature")
    except (msgspec.DecodeError, binascii.Error, ValueError, CorruptError) as error:
        return Signed("wrong", f"the signature cannot be read: {error}")
    wrong = _wrong(document, bundle, key, signature)
    print_ = fingerprint(key)
    if not wrong and pinned is not None and key != pinned:
        wrong = f"signed with {print_}, not with the key that was asked for, {fingerprint(pinned)}"
    return Signed("wrong" if wrong else "right", wrong, print_, pinned is not None and not wrong)


def _wrong(document: BundleSignature, bundle: Bundle, key: bytes, signature: bytes) -> str:
    """Return why a signature does not hold, nothing when it does."""
    from cryptography.exceptions import InvalidSignature

    ed25519, _ = _library()
    if document.root != bundle.root:
        return "it was made for another hash tree"
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(key).verify(signature, statement(bundle))
    except InvalidSignature:
        return "it does not hold for this hash tree"
    except ValueError:
        return "its key is none of Ed25519"
    return ""


def fingerprint(public: bytes) -> str:
    """Return the SHA-256 of a raw public key, as `SHA256:` and hex digits."""
    return f"SHA256:{hashlib.sha256(public).hexdigest()}"


def _public_bytes(path: Path) -> bytes:
    ed25519, serialization = _library()
    try:
        key = serialization.load_pem_public_key(_key_bytes(path))
    except ValueError as error:
        raise UsageError("not a public key in PEM", where=str(path)) from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise _not_ed25519(path)
    found: bytes = key.public_bytes_raw()
    return found


def _not_ed25519(path: Path) -> UsageError:
    remedy = "make one with: openssl genpkey -algorithm ed25519"
    return UsageError("not a key of Ed25519", where=str(path), remedy=remedy)


def _key_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(KEY_BYTES_MAX + 1)
    except FileNotFoundError as error:
        raise NotFoundError("no key", where=str(path)) from error
    if len(data) > KEY_BYTES_MAX:
        raise UsageError("too large for a key", where=str(path), expected=f"at most {KEY_BYTES_MAX:,} bytes")
    return data


def _library() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingExtraError(
            "signatures need the package cryptography", remedy="pip install 'stoker[sign]'"
        ) from error
    return ed25519, serialization
