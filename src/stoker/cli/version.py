"""`stoker version`."""

import platform
from importlib.metadata import PackageNotFoundError, version

import click

from stoker import __version__
from stoker.cli.screen import emit_json, emit_pairs

PACKAGES = ("numpy", "click", "msgspec", "crc32c", "xxhash", "obstore", "h5py", "pyarrow", "pillow", "mpi4py")


def versions() -> dict[str, str]:
    """Return the versions of ours, of Python, of the kernel, and of the packages that matter, by name."""
    found = {"stoker": __version__, "python": platform.python_version(), "kernel": platform.release()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@click.command("version")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> None:
    """Print the version, and those of what it stands on."""
    found = versions()
    if as_json:
        emit_json(found)
        return
    emit_pairs(found)
