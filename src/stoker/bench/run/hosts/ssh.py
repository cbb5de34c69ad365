"""Connections over SSH, never with a question to a person: keys and agent only, unknown hosts accepted once and kept.

The user's ssh configuration (user, port, keys, jump hosts) holds as it does for `ssh`. A host whose key is not the one
that was kept is refused.
"""

import asyncio
import os
from pathlib import Path
from typing import Any, Final

from stoker.core.errors import MissingExtraError, StokerError

CONNECT_SECONDS: Final = 5.0
KEEPALIVE_SECONDS: Final = 5.0
KNOWN_HOSTS_VARIABLE: Final = "STOKER_SSH_KNOWN_HOSTS"
CONFIG_VARIABLE: Final = "STOKER_SSH_CONFIG"


def asyncssh() -> Any:
    """Return the library. Raises MissingExtraError without it."""
    try:
        import asyncssh as library
    except ImportError as error:
        raise MissingExtraError("SSH needs asyncssh", got=str(error), remedy="pip install 'stoker[ssh]'") from error
    return library


def known_hosts_file() -> Path:
    """Return the file of known hosts: the user's, or another that the environment names."""
    return Path(os.environ.get(KNOWN_HOSTS_VARIABLE) or "~/.ssh/known_hosts").expanduser()


def config_file() -> Path | None:
    """Return the user's ssh configuration, or another that the environment names; None where there is none."""
    path = Path(os.environ.get(CONFIG_VARIABLE) or "~/.ssh/config").expanduser()
    return path if path.is_file() else None


async def connect(host: str, *, timeout_seconds: float = CONNECT_SECONDS) -> Any:
    """Return an open connection to `host`. Raises StokerError with the reason, in words."""
    library = asyncssh()
    known, config = known_hosts_file(), config_file()
    options: dict[str, Any] = {
        "client_factory": _client(library, known),
        "known_hosts": str(known) if known.is_file() else ([], [], []),
        "config": [str(config)] if config is not None else None,
        "password_auth": False,
        "kbdint_auth": False,
        "keepalive_interval": KEEPALIVE_SECONDS,
        "keepalive_count_max": 3,
        "connect_timeout": timeout_seconds,
        "login_timeout": timeout_seconds,
    }
    try:
        return await asyncio.wait_for(library.connect(host, **options), timeout_seconds + KEEPALIVE_SECONDS)
    except (OSError, library.Error, TimeoutError, ValueError) as error:
        raise StokerError(
            "no SSH connection", where=host, got=_reason(error), remedy=_remedy(library, error, host)
        ) from error


def _reason(error: Exception) -> str:
    return str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


def _remedy(library: Any, error: Exception, host: str) -> str:
    if isinstance(error, library.PermissionDenied):
        return f"let this user in there by key: ssh-copy-id {host}"
    if isinstance(error, library.HostKeyNotVerifiable):
        return f"if its key was changed on purpose: ssh-keygen -R {host}"
    return f"try: ssh -o BatchMode=yes {host} true"


def _client(library: Any, known: Path) -> Any:
    """Return a client that keeps the key of a host nobody knew yet, and refuses another key of one that is known."""

    class Client(library.SSHClient):  # type: ignore[misc]
        """Accepts new hosts, as `StrictHostKeyChecking=accept-new` does."""

        def validate_host_public_key(self, host: str, addr: str, port: int, key: Any) -> bool:
            if known.is_file():
                trusted = library.match_known_hosts(str(known), host, addr, port)
                if trusted[0] or trusted[2]:
                    return False
            _keep_key(known, host if port == 22 else f"[{host}]:{port}", key)
            return True

    return Client


def _keep_key(known: Path, host: str, key: Any) -> None:
    known.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    line = f"{host} {key.export_public_key('openssh').decode('ascii').strip()}\n"
    descriptor = os.open(known, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, line.encode())
    finally:
        os.close(descriptor)
