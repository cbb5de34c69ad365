"""Store URLs: `scheme://host/path?option=value`, and nothing secret in them."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from stoker.core.errors import UsageError
from stoker.core.files import redact_url
from stoker.core.options import Option, refuse_unknown


class UrlOption(Option):
    """An option that is spelled in a URL's query."""

    __slots__ = ()

    @property
    def flag(self) -> str:
        """Return the spelling people see in a message, `?fsync=`."""
        return f"?{self.name}="


LAYER_OPTIONS: Final = (
    UrlOption("prefix", "text", "a folder below the root that all keys are put under", default=""),
    UrlOption("retry_attempts", "int", "how often a call is tried in all when it fails for a passing reason", low=1),
    UrlOption("retry_deadline", "seconds", "no further try after this long", default=30.0, low=0),
    UrlOption("in_flight", "int", "how many calls may be under way at once", low=1),
    UrlOption("read_bytes_per_second", "bytes", "a ceiling for reading", low=1),
    UrlOption("open_delay", "seconds", "waited before each object is opened", default=0.0, low=0),
    UrlOption("read_delay", "seconds", "waited before each piece is read", default=0.0, low=0),
    UrlOption("fail_ratio", "float", "the share of calls that fail for a passing reason", default=0.0, low=0, high=1),
    UrlOption("short_ratio", "float", "the share of reads that end early", default=0.0, low=0, high=1),
    UrlOption("fault_seed", "int", "chooses which calls fail", default=0),
)


@dataclass(frozen=True, slots=True)
class StoreURL:
    """A parsed URL.

    `path` is decoded; `query` holds the backend's own options, as text; `redacted` is safe to print; `create`
    tells whether a missing root may be made.
    """

    scheme: str
    host: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    redacted: str = ""
    create: bool = False

    @property
    def location(self) -> str:
        """Return the URL without its query, to name objects below it."""
        return f"{self.scheme}://{self.host}{self.path.rstrip('/')}"

    def settings(self, options: Sequence[Option]) -> dict[str, Any]:
        """Return the values of `options`, converted and checked.

        Raises UsageError, with the nearest neighbour, for an option that neither the backend nor a layer has.
        """
        refuse_unknown(self.query, [option.name for option in (*options, *LAYER_OPTIONS)])
        return {o.name: o.convert(self.query[o.name]) if o.name in self.query else o.default for o in options}

    def without(self, names: Sequence[str]) -> "StoreURL":
        """Return the same URL whose query lacks `names`."""
        return replace(self, query={name: value for name, value in self.query.items() if name not in names})


def parse_url(url: str, *, create: bool = False) -> StoreURL:
    """Return the parts of `url`; a text without `://` is a local path, taken literally.

    Raises UsageError for credentials inside the URL, an option given twice, or an empty path.
    """
    if "://" not in url:
        return _local_path(url, create=create)
    try:
        parts = urlsplit(url, allow_fragments=False)
    except ValueError as error:
        raise UsageError(f"URL cannot be read ({error})", where=url.partition("://")[0]) from None
    if "@" in parts.netloc:
        raise UsageError(
            "URL holds credentials",
            where=redact_url(url),
            remedy="put them into the environment variables of the storage service",
        )
    query: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name in query:
            raise UsageError("option is given twice in the URL", where=name)
        query[name] = value
    return StoreURL(parts.scheme, parts.netloc, unquote(parts.path), query, redact_url(url), create)


def _local_path(text: str, *, create: bool) -> StoreURL:
    if not text or "\0" in text:
        raise UsageError("store needs a path or a URL", where=text, expected="for example /data or s3://bucket/prefix")
    path = os.path.abspath(text)  # noqa: PTH100 - Path.absolute keeps `..`
    return StoreURL("file", "", path, {}, path, create)
