"""From a URL to the metadata of a volume: over the network, or in this process."""

from stoker.fs.master.remote import RemoteMetadata
from stoker.fs.meta import Volume
from stoker.fs.meta.service import Metadata


def open_metadata(url: str, *, token: str | None = None) -> Metadata:
    """Open `master://host:port,…/VOLUME`, or the volume of any engine: `sqlite:///x.db`, `etcd://…/VOLUME`.

    Raises UsageError, UnavailableError, DeniedError, CorruptError.
    """
    if url.startswith("master://"):
        return RemoteMetadata.open(url, token=token)
    return Volume.open(url)
