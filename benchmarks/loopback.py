"""Servers on loopback: free ports for them, and whether they answer. The tests with real servers use it, too."""

import os
import socket
import urllib.error
import urllib.request


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on, nor on those 10,000 above, which `weed` takes too."""
    found: list[int] = []
    candidate = 15_000 + os.getpid() % 20_000
    while len(found) < count:
        candidate = candidate + 7 if candidate < 45_000 else 15_000
        if all(map(_is_free, (candidate, candidate + 10_000))):
            found.append(candidate)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def answers(url: str) -> bool:
    """Tell whether an HTTP server answers at all, be it with an error of the caller's."""
    try:
        urllib.request.urlopen(url, timeout=2).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500
    except OSError:
        return False
    return True
