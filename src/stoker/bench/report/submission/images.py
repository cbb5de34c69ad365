"""The pool of code images: a copy of the code that ran, once for each digest of it.

    code-images/.mlps-image-pool                 the mark of a tool's pool
    code-images/code-<hash8>/…                   the installed package, without hidden files, tests and caches
    code-images/code-<hash8>/.code-hash.json     MD5 of the copy, when it was taken, by which version

What the digest is over, `rules.mlperf.code_images` tells.
"""

import os
import shutil
from pathlib import Path
from typing import Any, Final

import msgspec

import stoker
from stoker.bench.report.submission.provenance import tool
from stoker.bench.rules.mlperf.code_images import code_files, image_digest
from stoker.bench.rules.mlperf.provenance_checks import DIGEST, MARKER
from stoker.core import clock
from stoker.core.errors import CorruptError
from stoker.core.files import sync_folder, write_atomic

POOL: Final = "code-images"
_DIGEST_BYTES_MAX: Final = 1 << 16


def capture_image(results_dir: Path) -> str:
    """Copy the installed package into the pool of `results_dir` and return the image's name, `code-<hash8>`.

    An image that is there is kept. Several processes may do this at once. Raises CorruptError when the image of this
    name no longer holds what its digest says.
    """
    package = Path(stoker.__file__).parent
    pool = results_dir / POOL
    pool.mkdir(parents=True, exist_ok=True)
    if not (pool / MARKER).exists():
        write_atomic(pool / MARKER, b"")
    digest = image_digest(package)
    image = pool / f"code-{digest[:8]}"
    if not image.exists():
        _copy(package, image, digest)
    check_image(image, digest)
    return image.name


def check_image(image: Path, digest: str = "") -> None:
    """Raise CorruptError unless the image holds what its digest says, and that is `digest` where one is given."""
    path = image / DIGEST
    try:
        with path.open("rb") as file:
            told = msgspec.json.decode(file.read(_DIGEST_BYTES_MAX), type=dict[str, Any]).get("hash")
    except (OSError, msgspec.DecodeError) as error:
        raise CorruptError("code image without a readable digest", where=str(path), got=str(error)) from error
    found = image_digest(image)
    if told != found or digest not in ("", found):
        raise CorruptError(
            "code image does not hold what its digest says",
            where=str(image),
            expected=str(digest or told),
            got=found,
            remedy="remove the image when no leaf needs it, or restore it",
        )


def _copy(package: Path, image: Path, digest: str) -> None:
    """Make the image under a name of our own first, so that nobody ever sees half of it."""
    scratch = image.with_name(f".{image.name}.{os.getpid()}.{clock.monotonic_ns()}.tmp")
    try:
        for path in code_files(package):
            target = scratch / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(package / path, target)
            _sync(target)
        made_by, _ = tool(image.name)
        facts = {"hash": digest, "algorithm": "md5", "captured_at": clock.utc_text()}
        facts |= {"mlpstorage_version": made_by.version, "git_sha": made_by.git_sha, "tool": made_by.name}
        write_atomic(scratch / DIGEST, msgspec.json.format(msgspec.json.encode(facts), indent=1) + b"\n")
        _publish(scratch, image)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _publish(scratch: Path, image: Path) -> None:
    try:
        scratch.rename(image)
    except OSError:
        if not image.is_dir():  # another process was faster; what it made is checked like our own
            raise
    sync_folder(image.parent)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
