"""Where the dataset lies: DLIO's storage section and data folder as one of our URLs.

Credentials never enter a URL: what a file gives goes into the environment of this process, and what is already there
counts more, as everywhere (a shipped file holds placeholders).
"""

import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from stoker.bench.run.dlio.config import DlioConfig
from stoker.core.errors import UsageError
from stoker.storage.url import parse_url

_SCHEMES: Final[Mapping[str, str]] = {
    "file": "file",
    "direct": "direct",
    "directio": "direct",
    "s3": "s3",
    "az": "az",
    "gs": "gs",
}
_LOCAL: Final = ("file", "direct")
_VARIABLES: Final[Mapping[str, str]] = {
    "access_key_id": "AWS_ACCESS_KEY_ID",
    "secret_access_key": "AWS_SECRET_ACCESS_KEY",
    "session_token": "AWS_SESSION_TOKEN",
    "endpoint_url": "AWS_ENDPOINT_URL",
    "region": "AWS_REGION",
}


def data_url(config: DlioConfig) -> str:
    """Return the URL of the folder that holds `train/` and `valid/`: file://, direct://, s3://, az:// or gs://.

    Raises UsageError for a storage type or scheme that is not supported, and for credentials in a URL.
    """
    return folder_url(config, "dataset.data_folder")


def folder_url(config: DlioConfig, key: str) -> str:
    """Return the URL of the folder that `key` names. Raises UsageError as `data_url` does."""
    folder = config.text(key)
    scheme, mark, rest = folder.partition("://")
    url = _with_scheme(config, key, scheme, rest) if mark else _without_scheme(config, folder)
    parse_url(url)
    return url


def _with_scheme(config: DlioConfig, key: str, scheme: str, rest: str) -> str:
    known = _SCHEMES.get(scheme)
    if known is None:
        raise UsageError(
            f"{key.rpartition('.')[2]} has a scheme that is not supported",
            where=config.where(key),
            expected=", ".join(_SCHEMES),
            got=f"{scheme}://",
        )
    if known == "file" and _wants_direct(config):
        known = "direct"
    path, question, query = rest.partition("?")
    return f"{known}://{path.rstrip('/') or '/'}{question}{query}{_attempts(config, known, bool(question))}"


def _without_scheme(config: DlioConfig, folder: str) -> str:
    kind = config.text("storage.storage_type")
    root = config.text("storage.storage_root")
    if kind == "aistore":
        raise UsageError(
            "storage_type aistore is not supported",
            where=config.where("storage.storage_type"),
            remedy="use its S3 endpoint: storage_type s3 and storage_options.endpoint_url",
        )
    if kind == "s3":
        scheme = _uri_scheme(config)
        if scheme in _LOCAL:
            return _local(scheme, root, folder)
        path = "/".join(part for part in (_key(root), _key(folder)) if part)
        return f"{scheme}://{quote(path)}{_attempts(config, scheme, False)}"
    return _local("direct" if _wants_direct(config) else "file", root, folder)


def _key(folder: str) -> str:
    """Return a folder as part of a key: `./data/` is `data`, `.` is nothing."""
    return "/".join(part for part in folder.split("/") if part not in ("", "."))


def _local(scheme: str, root: str, folder: str) -> str:
    return f"{scheme}://{quote(os.path.abspath(os.path.join(root, folder)))}"  # noqa: PTH100 - Path keeps `..`


def _wants_direct(config: DlioConfig) -> bool:
    library = _options(config).get("storage_library") or config.text("storage.storage_library")
    kind = config.text("storage.storage_type")
    return config.flag("reader.odirect") or kind == "direct_fs" or library == "direct"


def _uri_scheme(config: DlioConfig) -> str:
    """Return the scheme of a bucket; the storage options may name it too, and then count."""
    scheme = str(_options(config).get("uri_scheme") or config.text("storage.uri_scheme"))
    if scheme not in _SCHEMES:
        raise UsageError("uri_scheme is not supported", where=scheme, expected=", ".join(_SCHEMES))
    return _SCHEMES[scheme]


def _attempts(config: DlioConfig, scheme: str, has_query: bool) -> str:
    """Return the query that bounds the tries of a call, as `s3_max_attempts` asks."""
    attempts = _options(config).get("s3_max_attempts")
    if attempts is None or scheme in _LOCAL:
        return ""
    if isinstance(attempts, bool) or not isinstance(attempts, int) or attempts < 1:
        raise UsageError("s3_max_attempts is no good", expected="a whole number of at least 1", got=repr(attempts))
    return f"{'&' if has_query else '?'}retry_attempts={attempts}"


def _options(config: DlioConfig) -> dict[str, Any]:
    value = config.value("storage.storage_options")
    return dict(value) if isinstance(value, dict) else {}


def credentials(config: DlioConfig) -> dict[str, str]:
    """Return the environment variables that the storage options stand for. They may hold secrets: never log them."""
    options = _options(config)
    return {variable: str(options[name]) for name, variable in _VARIABLES.items() if options.get(name) is not None}
