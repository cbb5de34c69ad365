"""What the tests of capture share."""

import os
from pathlib import Path

import pytest

from stoker.pages.capture.userfault import probe_userfault


@pytest.fixture
def userfault() -> None:
    """Skip where the kernel does not track writes."""
    reason = probe_userfault()
    if reason:
        pytest.skip(f"userfaultfd: {reason}")


@pytest.fixture
def open_descriptors() -> object:
    """Return a function that lists the open descriptors of userfaultfd and pagemap."""

    def listed() -> list[str]:
        found = []
        for entry in Path("/proc/self/fd").iterdir():
            try:
                target = os.readlink(entry)
            except FileNotFoundError:
                continue
            if "userfaultfd" in target or "pagemap" in target:
                found.append(target)
        return found

    return listed
