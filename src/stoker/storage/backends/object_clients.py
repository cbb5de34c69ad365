"""Clients for S3, Azure Blob Storage and Google Cloud Storage, from the standard environment variables.

Credentials never come from a URL. `?credentials=` tells where else they may come from: `environment` (default)
fails at once when no variable is set, `instance` also asks the cloud's metadata service, `anonymous` signs nothing.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from stoker.core.errors import DeniedError, UsageError
from stoker.core.units import KiB, MiB
from stoker.storage.url import StoreURL, UrlOption

OPTIONS: Final = (
    UrlOption(
        "credentials",
        "text",
        "where credentials may come from",
        default="environment",
        choices=("environment", "instance", "anonymous"),
    ),
    UrlOption("endpoint", "text", "addresses of the service, with commas between: requests go to them in turn"),
    UrlOption("request_timeout", "seconds", "how long the service may stay silent", default=30.0, low=0.1),
    UrlOption("queue_depth", "int", "how many requests one reader has under way", default=16, low=1, high=256),
    UrlOption("request_bytes", "bytes", "a longer range is fetched in parts of this size", default=8 * MiB, low=KiB),
    UrlOption("coalesce_bytes", "bytes", "ranges this close share a request", default=64 * KiB, low=0, high=MiB),
    UrlOption("part_bytes", "bytes", "the size of a part of a multipart upload", default=16 * MiB, low=5 * MiB),
    UrlOption("part_concurrency", "int", "how many parts of one object travel at once", default=4, low=1, high=64),
)
# A refused or silent endpoint must be told within 10 s: four tries of at most 2 s each, and the waits between.
_CONNECT_SECONDS: Final = 2.0
# The client's limit for a whole request, body included, would cut large objects off; silence is what we bound.
_REQUEST_SECONDS: Final = 86_400.0

_AWS_ROLES: Final = (
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_AZURE_KEYS: Final = ("AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY")
_AZURE_SAS: Final = ("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_SAS_KEY")
_AZURE_ROLES: Final = (
    "AZURE_STORAGE_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_STORAGE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
)
_GOOGLE_KEYS: Final = (
    "GOOGLE_APPLICATION_CREDENTIALS",
    "GOOGLE_SERVICE_ACCOUNT",
    "GOOGLE_SERVICE_ACCOUNT_PATH",
    "GOOGLE_SERVICE_ACCOUNT_KEY",
    "GOOGLE_BEARER_TOKEN",
)

Client = S3Store | AzureStore | GCSStore


@dataclass(frozen=True, slots=True)
class Request:
    """What a client is built from: the URL, its settings, and the environment at the time of opening.

    `retries` are those of the client itself, which nobody sees; where they can be, they are ours, and counted.
    `endpoint` goes before the environment's.
    """

    parsed: StoreURL
    settings: Mapping[str, Any]
    environment: Mapping[str, str]
    retries: int = 0
    endpoint: str = ""

    @classmethod
    def of(cls, parsed: StoreURL) -> "Request":
        """Return the request for a URL. Raises UsageError for a missing bucket or an unknown option."""
        settings = parsed.settings(OPTIONS)
        if not parsed.host:
            raise UsageError("URL names no bucket", where=parsed.redacted, expected=f"{parsed.scheme}://bucket/prefix")
        return cls(parsed, settings, dict(os.environ))

    def first(self, *names: str) -> str:
        """Return the first of these environment variables that is set, an empty text when none is."""
        return next((self.environment[name] for name in names if self.environment.get(name)), "")

    @property
    def anonymous(self) -> bool:
        """Tell whether requests are not to be signed."""
        return bool(self.settings["credentials"] == "anonymous")

    def refuse_without(self, present: bool, needed: str) -> None:
        """Raise DeniedError, naming the variables, when credentials must be in the environment and are not."""
        if self.settings["credentials"] == "environment" and not present:
            raise DeniedError(
                "no credentials in the environment",
                where=self.parsed.location,
                expected=needed,
                remedy="set them, or add ?credentials=instance (metadata service) or ?credentials=anonymous",
            )


def s3_client(request: Request) -> Client:
    """Return a client for the bucket. Raises DeniedError without credentials."""
    key, secret = request.first("AWS_ACCESS_KEY_ID"), request.first("AWS_SECRET_ACCESS_KEY")
    request.refuse_without(
        bool(key and secret) or bool(request.first(*_AWS_ROLES)), "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )
    endpoint = request.endpoint or request.first("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
    config = _present(
        access_key_id=key,
        secret_access_key=secret,
        session_token=request.first("AWS_SESSION_TOKEN"),
        region=request.first("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1",
        endpoint=endpoint,
        skip_signature=request.anonymous,
    )
    return _built(request, endpoint, S3Store, config)


def azure_client(request: Request) -> Client:
    """Return a client for the container. Raises DeniedError without an account or credentials."""
    given = _connection_string(request.first("AZURE_STORAGE_CONNECTION_STRING"))
    account = request.first("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME") or given.get("accountname", "")
    key = request.first(*_AZURE_KEYS) or given.get("accountkey", "")
    signature = request.first(*_AZURE_SAS) or given.get("sharedaccesssignature", "")
    endpoint = request.endpoint or request.first("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
    endpoint = endpoint or given.get("blobendpoint", "")
    request.refuse_without(
        bool(account) and bool(key or signature or request.first(*_AZURE_ROLES)),
        "AZURE_STORAGE_ACCOUNT with AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN, or AZURE_STORAGE_CONNECTION_STRING",
    )
    config = _present(
        account_name=account,
        account_key=key,
        sas_key=signature.lstrip("?"),
        endpoint=endpoint.rstrip("/"),
        skip_signature=request.anonymous,
    )
    return _built(request, endpoint, AzureStore, config)


def google_client(request: Request) -> Client:
    """Return a client for the bucket. Raises DeniedError without credentials."""
    emulator = request.first("STORAGE_EMULATOR_HOST")
    endpoint = f"http://{emulator}" if emulator and "://" not in emulator else emulator
    endpoint = request.endpoint or endpoint
    request.refuse_without(
        bool(emulator or request.first(*_GOOGLE_KEYS)), "GOOGLE_APPLICATION_CREDENTIALS or STORAGE_EMULATOR_HOST"
    )
    config = _present(
        application_credentials=request.first("GOOGLE_APPLICATION_CREDENTIALS"),
        base_url=endpoint,
        skip_signature=request.anonymous or bool(emulator),
    )
    return _built(request, endpoint, GCSStore, config)


def _present(**values: str | bool) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _built(request: Request, endpoint: str, kind: Any, config: dict[str, Any]) -> Client:
    """Return the client; plain HTTP only where the endpoint's own URL says so."""
    seconds = request.settings["request_timeout"]
    options = {
        "allow_http": endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=_CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=seconds),
        "timeout": timedelta(seconds=_REQUEST_SECONDS),
    }
    try:
        client: Client = kind(
            request.parsed.host, config=config, client_options=options, retry_config={"max_retries": request.retries}
        )
    except (BaseError, ValueError, OSError) as error:
        reason = type(error).__name__
    else:
        return client
    raise DeniedError(  # outside the `except`: the client's text may quote a credential
        "credentials or endpoint in the environment cannot be used",
        where=request.parsed.location,
        got=reason,
        remedy="check the variables of the storage service",
    )


def _connection_string(text: str) -> dict[str, str]:
    """Return the fields of an Azure connection string, names in lower case."""
    fields = (field.partition("=") for field in text.split(";") if field)
    return {name.strip().lower(): value.strip() for name, _, value in fields}
