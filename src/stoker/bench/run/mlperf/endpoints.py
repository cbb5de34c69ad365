"""The addresses of an object service as the reference tool's variables name them: a list, a template, or a file."""

import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stoker.core.errors import UsageError
from stoker.storage.backends.object_endpoints import ENDPOINTS_MAX, VARIABLE, addresses_of

LIST: Final = "S3_ENDPOINT_URIS"
TEMPLATE: Final = "S3_ENDPOINT_TEMPLATE"
FILE: Final = "S3_ENDPOINT_FILE"
STRATEGY: Final = "S3_LOAD_BALANCE_STRATEGY"
ROUND_ROBIN: Final = "round_robin"
_SINGLE: Final = ("AWS_ENDPOINT_URL", "S3_ENDPOINT")
_RANGE: Final = re.compile(r"\{(\d{1,9})\.\.\.(\d{1,9})\}")
_FILE_BYTES_MAX: Final = 1 << 20


def endpoint_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that stores read for the addresses that the reference's name, in its order: the list, the
    template, the file, and a single address.

    Raises UsageError for what holds no addresses, and for a way to spread the requests that is not ours.
    """
    name = next((each for each in (LIST, TEMPLATE, FILE) if environment.get(each)), "")
    if not name:
        single = environment.get(_SINGLE[1], "") if not environment.get(_SINGLE[0]) else ""
        return {_SINGLE[0]: _with_scheme(single)} if single else {}
    found = _READERS[name](environment[name])
    if not found:
        raise UsageError(f"{name} holds no address", expected="http://host:port, several with commas between")
    addresses = addresses_of(",".join(dict.fromkeys(map(_with_scheme, found))), name)
    if len(addresses) == 1:
        return {_SINGLE[0]: addresses[0]}
    strategy = environment.get(STRATEGY) or ROUND_ROBIN
    if strategy.lower().replace("-", "_") != ROUND_ROBIN:
        raise UsageError(f"{STRATEGY} is not supported", expected=ROUND_ROBIN, got=strategy)
    return {VARIABLE: ",".join(addresses)}


def _with_scheme(address: str) -> str:
    return address if "://" in address else f"http://{address}"


def _listed(text: str) -> list[str]:
    return [word for word in re.split(r"[,\s]+", text) if word]


def _expanded(text: str) -> list[str]:
    """Return the addresses of a template: `http://10.0.0.{1...4}:9000` is four."""
    found = _RANGE.search(text)
    if found is None:
        return _listed(text)
    first, last = int(found[1]), int(found[2])
    if not first <= last < first + ENDPOINTS_MAX:
        expected = f"{{first...last}}, at most {ENDPOINTS_MAX} addresses"
        raise UsageError(f"{TEMPLATE} has a range that is none", expected=expected, got=found[0])
    return [f"{text[: found.start()]}{number}{text[found.end() :]}".strip() for number in range(first, last + 1)]


def _read(name: str) -> list[str]:
    """Return the addresses of a file, one a line; lines that begin with # are left out."""
    try:
        place = Path(name)
        if not stat.S_ISREG(place.stat().st_mode) or place.stat().st_size > _FILE_BYTES_MAX:
            raise UsageError(f"{FILE} names no file of addresses", where=name, expected="a plain file of at most 1 MiB")
        lines = place.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        told = getattr(error, "strerror", "") or "it is not text"
        raise UsageError(f"{FILE} cannot be read", where=name, got=told) from error
    return [word for line in lines if not line.lstrip().startswith("#") for word in _listed(line)]


_READERS: Final = {LIST: _listed, TEMPLATE: _expanded, FILE: _read}
