"""Small file duties every room shares: atomic writes, paths that stay under their root, redaction."""

import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from stoker.core.errors import UsageError

_SECRET_KEY: Final = re.compile(
    r"(?i)(secret|token|passw|signature|credential|access_?key|account_?key|api_?key|^sas$|^sig$)"
)
REDACTED: Final = "[redacted]"


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path` whole or not at all: temporary name, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's entries durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_key(key: str) -> str:
    """Return `key` when it names something strictly below a root: relative, no `..`, no empty part, no NUL.

    Raises UsageError otherwise.
    """
    parts = key.split("/")
    if not key or "\0" in key or any(part in ("", ".", "..") for part in parts):
        raise UsageError("key leaves its root", where=key, expected="a relative path without empty, '.' or '..' parts")
    return key


def redact_url(url: str) -> str:
    """Return `url` without user, password and the values of secret-looking query keys."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    netloc = f"{REDACTED}@{host}" if "@" in parts.netloc else host
    pairs = [pair.partition("=") for pair in parts.query.split("&")] if parts.query else []
    query = "&".join(f"{k}{eq}{REDACTED if eq and is_secret_name(k) else v}" for k, eq, v in pairs)
    return f"{parts.scheme}://{netloc}{parts.path}" + (f"?{query}" if query else "")


def is_secret_name(name: str) -> bool:
    """Tell whether a variable, header or query key of this name may hold a secret."""
    return bool(_SECRET_KEY.search(name))


def redact_arguments(arguments: list[str]) -> list[str]:
    """Return command-line words safe to store: URLs redacted, values of secret-looking `key=value` hidden."""
    return [_redact_word(word) for word in arguments]


def _redact_word(word: str) -> str:
    key, equals, value = word.partition("=")
    if not equals or "://" in key:
        return redact_url(word)
    # `options={secret_key:x}` holds names of its own: a value that names a secret is hidden whole.
    if is_secret_name(key) or ("://" not in value and is_secret_name(value)):
        return f"{key}={REDACTED}"
    return f"{key}={redact_url(value)}"
