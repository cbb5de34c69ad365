"""Azurite's well-known account, and making a container there without our own client."""

import base64
import hashlib
import hmac
import urllib.request
from datetime import UTC, datetime

# The account that every Azurite knows; its key is public and the same everywhere.
AZURITE_ACCOUNT = "devstoreaccount1"
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


def make_container(url: str, name: str) -> None:
    """Make a container in the Azurite at `url` with a request signed by hand."""
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    resource = f"/{AZURITE_ACCOUNT}/{AZURITE_ACCOUNT}/{name}\nrestype:container"
    text = "PUT" + "\n" * 12 + "".join(f"{key}:{value}\n" for key, value in headers.items()) + resource
    digest = hmac.new(base64.b64decode(AZURITE_KEY), text.encode(), hashlib.sha256).digest()
    headers["Authorization"] = f"SharedKey {AZURITE_ACCOUNT}:{base64.b64encode(digest).decode()}"
    headers["Content-Type"] = ""
    request = urllib.request.Request(f"{url}/{name}?restype=container", method="PUT", headers=headers, data=b"")
    urllib.request.urlopen(request, timeout=10).close()
