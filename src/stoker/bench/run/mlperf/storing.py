"""Where the data of a command lie: a folder, or a prefix in a bucket; as words of DLIO and for people."""

import os
import re
from collections.abc import Mapping
from typing import Final

import msgspec

from stoker.bench.run.mlperf.endpoints import endpoint_variables
from stoker.bench.run.mlperf.resolving import Invocation
from stoker.bench.run.mlperf.rows import CHECKPOINTING, OBJECT
from stoker.core.errors import UsageError
from stoker.core.files import is_secret_name, redact_url

SCHEMES: Final = {"s3": "s3", "az": "az", "gs": "gs", "file": "file", "direct": "file"}
_CLIENTS: Final = ("AWS_", "AZURE_", "GOOGLE_", "S3_")
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class DataPlace(msgspec.Struct, frozen=True):
    """Where the data lie. `url` is for people and stores, `folder` is set for a folder of this host's, `bucket` and
    `prefix` for an object store. `variables` go into the engine's environment."""

    url: str
    folder: str = ""
    scheme: str = "file"
    bucket: str = ""
    prefix: str = ""
    variables: dict[str, str] = {}

    @property
    def is_object(self) -> bool:
        """Tell whether it is an object store."""
        return bool(self.bucket)


def data_place(invocation: Invocation, environment: Mapping[str, str]) -> DataPlace:
    """Return where the command's dataset, or its checkpoints, lie; `<model>` is appended where it is not the end.

    Raises UsageError for an address that does not go with `file` or `object`.
    """
    place = invocation.place
    checkpoints = place.family == CHECKPOINTING
    option = "checkpoint_folder" if checkpoints else "data_dir"
    told = str(invocation.value(option) or "")
    flag = "--" + option.replace("_", "-")
    if not told:
        raise UsageError(f"E201: {flag} is missing", remedy="give it, or set its environment variable")
    if place.access == OBJECT:
        own = environment.get("MLPSTORAGE_CHECKPOINT_URI_SCHEME") if checkpoints else ""
        return _object(told, place.model, environment, flag, own or "")
    return _file(told, place.model, flag)


def _file(told: str, model: str, flag: str) -> DataPlace:
    scheme, mark, rest = told.partition("://")
    if mark and SCHEMES.get(scheme) != "file":
        raise UsageError(
            f"{flag} is no folder",
            where=redact_url(told),
            expected="a path",
            remedy=f"say object, or give {flag} a path",
        )
    folder = os.path.abspath(rest if mark else told)  # noqa: PTH100 - Path.absolute keeps `..`
    folder = folder if folder.rpartition("/")[2] == model else f"{folder.rstrip('/')}/{model}"
    return DataPlace(folder, folder)


def _object(told: str, model: str, environment: Mapping[str, str], flag: str, own_scheme: str) -> DataPlace:
    scheme, mark, rest = told.partition("://")
    if not mark:
        scheme, rest = own_scheme or environment.get("STORAGE_URI_SCHEME") or "s3", told
    if scheme not in SCHEMES or SCHEMES[scheme] == "file":
        legal = ", ".join(name for name, kind in SCHEMES.items() if kind != "file")
        raise UsageError(f"{flag}: not a scheme of an object store", where=scheme, expected=legal)
    if mark and rest.startswith("/"):
        raise UsageError(f"{flag} names no bucket", where=redact_url(told), expected=f"{scheme}://bucket/prefix")
    bucket = "" if mark else environment.get("BUCKET", "")
    parts = [part for part in rest.split("/") if part not in ("", ".")]
    if not bucket:
        if not parts:
            raise UsageError(f"{flag} names no bucket", where=redact_url(told), expected="bucket/prefix, or BUCKET set")
        bucket, parts = parts[0], parts[1:]
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{flag} names no bucket", where=redact_url(told), expected="letters, digits, '.', '_', '-'")
    if parts[-1:] != [model]:
        parts.append(model)
    prefix = "/".join(parts)
    return DataPlace(f"{scheme}://{bucket}/{prefix}", "", scheme, bucket, prefix, endpoint_variables(environment))


def store_notes(place: DataPlace, environment: Mapping[str, str]) -> list[str]:
    """Return what to say of variables that change nothing here."""
    if not place.is_object:
        return []
    library = environment.get("STORAGE_LIBRARY")
    told = [f"STORAGE_LIBRARY={library} has no effect: objects are read by our own client"] if library else []
    tuning = [name for name in sorted(environment) if name.startswith(_CLIENTS) and not is_secret_name(name)]
    if tuning:
        told.append(f"rule 1.2: declare in the system's description what tunes the object client: {', '.join(tuning)}")
    return told
