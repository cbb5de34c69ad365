"""Credentials that came another way than by the environment: they go there, and nowhere else."""

import os
from collections.abc import Mapping, MutableMapping


def apply_credentials(variables: Mapping[str, str], environment: MutableMapping[str, str] | None = None) -> list[str]:
    """Set what the environment lacks; return the names of the variables that were set, never their values.

    An access key and its secret belong together: when either is in the environment, neither is taken from the file.
    """
    environment = os.environ if environment is None else environment
    pair = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    has_own = any(environment.get(name) for name in pair)
    names = [name for name in variables if not environment.get(name) and not (has_own and name in pair)]
    for name in names:
        environment[name] = variables[name]
    return names
