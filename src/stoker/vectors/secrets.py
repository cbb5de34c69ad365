"""Who we are to a database: from the environment alone, so that it stands on no command line and in no result."""

import os
from typing import Final

_VARIABLES: Final = {
    "user": "STOKER_VECTOR_USER",
    "password": "STOKER_VECTOR_PASSWORD",
    "token": "STOKER_VECTOR_TOKEN",
}


def secret(name: str) -> str:
    """Return the user, password or token of the environment, empty where none is set."""
    return os.environ.get(_VARIABLES[name], "")
