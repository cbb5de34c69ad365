"""A client of our own to look around the buckets of the SeaweedFS server."""

from typing import Any

import obstore
from obstore.store import S3Store


def client_of(endpoint: Any, bucket: str) -> S3Store:
    """Return a client of a bucket that is there: the server makes it when something is put."""
    client = S3Store(
        bucket,
        endpoint=endpoint.url,
        access_key_id=endpoint.variables["AWS_ACCESS_KEY_ID"],
        secret_access_key=endpoint.variables["AWS_SECRET_ACCESS_KEY"],
        region="us-east-1",
        client_options={"allow_http": True},
    )
    obstore.put(client, "beside", b"the bucket is there")
    return client
