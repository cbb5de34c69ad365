"""From the object-store client's errors to ours.

The client's own text is never shown nor chained: it may hold a signed URL. Only the status, the service's
error code and words from a fixed list go into a message.
"""

import re
from collections.abc import Callable
from typing import Final, TypeVar

from obstore.exceptions import (
    AlreadyExistsError as ClientAlreadyExists,
)
from obstore.exceptions import BaseError, PermissionDeniedError, PreconditionError, UnauthenticatedError

from stoker.core.errors import (
    AlreadyExistsError,
    DeniedError,
    NoSpaceError,
    NotFoundError,
    ShortReadError,
    StoreError,
    TransientError,
)

T = TypeVar("T")

NO_BUCKET: Final = "no such bucket or container"

_STATUS: Final = re.compile(r"(?:status code|\(code): (\d{3})")
_CODE: Final = re.compile(r"<Code>([A-Za-z]{1,64})</Code>")
_MISSING_BUCKET: Final = re.compile(r"NoSuchBucket|ContainerNotFound|container does not exist|bucket does not exist")
_TRANSIENT_STATUS: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
_TRANSIENT_CODES: Final = frozenset({"RequestTimeout", "SlowDown", "OperationTimedOut", "ServerBusy", "InternalError"})
_DENIED_CODES: Final = frozenset({"ExpiredToken", "InvalidToken", "AuthenticationFailed", "TokenRefreshRequired"})
_REASONS: Final = (
    "Connection refused",
    "Connection reset",
    "connection closed",
    "timed out",
    "TimedOut",
    "dns error",
    "certificate",
    "Network is unreachable",
    "No route to host",
    "end of file",
    "IncompleteMessage",
)
_CREDENTIAL_SOURCES: Final = ("169.254.169.254", "metadata.google.internal", "oauth2")
_WHATS: Final[dict[type[StoreError], tuple[str, str]]] = {
    NotFoundError: ("no such object", ""),
    AlreadyExistsError: ("object already exists", ""),
    DeniedError: ("service refuses the credentials", "check the credential variables and the rights of the account"),
    ShortReadError: ("range goes beyond the object's end", ""),
    TransientError: ("the service failed or did not answer", ""),
    NoSpaceError: ("service has no space left", ""),
    StoreError: ("service refused the request", ""),
}


def guarded(where: str, action: Callable[[], T]) -> T:
    """Return what `action` returns; its failures become ours, without the client's text."""
    try:
        return action()
    except (BaseError, FileNotFoundError, NotImplementedError) as error:
        failure = store_error(error, where)
    raise failure


def store_error(error: Exception, where: str) -> StoreError:
    """Return the error to raise for a failed request about the object `where`."""
    text = str(error)
    match = _STATUS.search(text)
    status = int(match.group(1)) if match else 0
    found = _CODE.search(text)
    code = found.group(1) if found else ""
    if _MISSING_BUCKET.search(text):
        return NotFoundError(NO_BUCKET, where=where, remedy="create it, or check its name")
    kind = _kind(error, status, code, text)
    what, remedy = _WHATS[kind]
    return kind(what, where=where, got=_facts(status, code, text), remedy=remedy)


def _kind(error: Exception, status: int, code: str, text: str) -> type[StoreError]:
    if isinstance(error, FileNotFoundError) or status == 404:
        return NotFoundError
    if isinstance(error, (ClientAlreadyExists, PreconditionError)) or status == 412:
        return AlreadyExistsError
    if _is_denied(error, status, code, text):
        return DeniedError
    if status == 416 or "Wanted range starting at" in text:
        return ShortReadError
    if status == 507:
        return NoSpaceError
    if status in _TRANSIENT_STATUS or code in _TRANSIENT_CODES or (status == 0 and _is_network(text)):
        return TransientError
    return StoreError


def _is_denied(error: Exception, status: int, code: str, text: str) -> bool:
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or status in (401, 403):
        return True
    return code in _DENIED_CODES or any(source in text for source in _CREDENTIAL_SOURCES)


def _is_network(text: str) -> bool:
    """Tell whether the request died on its way; a URL that cannot be requested at all will not heal by itself."""
    return ("HTTP error" in text or "reqwest" in text or "HttpError" in text) and "builder error" not in text


def _facts(status: int, code: str, text: str) -> str:
    if status:
        return f"status {status}" + (f" {code}" if code else "")
    return next((reason for reason in _REASONS if reason in text), "")
