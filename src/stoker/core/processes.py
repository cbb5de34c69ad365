"""Whether a process that was noted down is still the one it was."""

from pathlib import Path
from typing import Final

_START_TICKS_FIELD: Final = 22


def start_ticks(pid: int) -> int:
    """Return when a process began, in clock ticks since boot; 0 where there is none. A pid alone may be used again."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return 0
    # The name in parentheses may hold anything; the fields count from behind it.
    fields = text.rpartition(")")[2].split()
    return 0 if fields[0] in {"Z", "X"} else int(fields[_START_TICKS_FIELD - 3])
