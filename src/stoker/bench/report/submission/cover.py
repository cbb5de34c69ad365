"""The cover of a system, `<system>.pdf`: what a reader needs to know it by, made from its description.

PDF 1.4 is written here by hand: a few objects, two of the fonts that every reader brings, no packages. Text outside
Latin-1 shows as `?`; a submitter who needs more replaces the file by one of their own, which is never written over.
"""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from stoker.bench.report.submission.power import read_description
from stoker.bench.rules.mlperf.reading import dig, words
from stoker.core.errors import CorruptError
from stoker.core.files import write_atomic

_WIDTH, _HEIGHT, _MARGIN = 595, 842, 56  # A4 in points
_SIZE: Final = 9
_LEADING: Final = 12
_TITLE_SIZE: Final = 20
_COLUMNS: Final = 92
_LINES_A_PAGE: Final = (_HEIGHT - 2 * _MARGIN) // _LEADING
_LINES_MAX: Final = 20_000
_VERSION: Final = "3.0"
_MARK: Final = b"/Producer (stoker)"
_OURS_BYTES_MAX: Final = 4096


def write_cover(description: Path, *, submitter: str, division: str, date: str) -> Path | None:
    """Write `<system>.pdf` beside the description; return its path, None where somebody else's file is kept.

    `date` is shown as it is given. Raises CorruptError for what is no description.
    """
    path = description.with_suffix(".pdf")
    if path.exists() and not _is_ours(path):
        return None
    system = dig(read_description(description), ["system_under_test"])
    if not isinstance(system, dict):
        raise CorruptError("not a system's description", where=str(description), expected="system_under_test")
    facts = {
        "System": words(system, "solution.submission_name") or description.stem,
        "Submitter": submitter,
        "Date": date,
        "Benchmark": f"MLPerf Storage {_VERSION}",
        "Solution type": _solution(system),
        "Division": division,
    }
    head = [f"{name}: {value}" for name, value in facts.items()]
    lines = [*head, "", "Description", "", *_outline(system)]
    write_atomic(path, pdf(facts["System"], lines))
    return path


def _is_ours(path: Path) -> bool:
    with path.open("rb") as file:
        return _MARK in file.read(_OURS_BYTES_MAX)


def _solution(system: dict[str, Any]) -> str:
    place = words(system, "solution.architecture.storage_location") or "not described"
    product = words(system, "solution.architecture.product_API") or "not described"
    return f"{place.replace('_', ' ')}, {product}, {words(system, 'deployment') or 'not described'}"


def _outline(value: Any, indent: int = 0) -> Iterator[str]:
    """Give the description as indented lines, a fact a line."""
    pad = "  " * indent
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, (dict, list)) and item:
                yield f"{pad}{key}:"
                yield from _outline(item, indent + 1)
            else:
                yield f"{pad}{key}: {_shown(item)}"
    elif isinstance(value, list):
        for at, item in enumerate(value, start=1):
            if isinstance(item, (dict, list)):
                yield f"{pad}{at}."
                yield from _outline(item, indent + 1)
            else:
                yield f"{pad}- {_shown(item)}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not told" if value in (None, "", [], {}) else str(value)


def pdf(title: str, lines: Iterable[str]) -> bytes:
    """Return a PDF of pages of text, `title` large on the first."""
    wrapped = [piece for line in lines for piece in _wrapped(line)][:_LINES_MAX]
    first = _LINES_A_PAGE - 4
    pages = [wrapped[:first], *(wrapped[at : at + _LINES_A_PAGE] for at in range(first, len(wrapped), _LINES_A_PAGE))]
    fonts = b"<< /Font << /F1 4 0 R /F2 5 0 R >> >>"
    kids = " ".join(f"{6 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>".encode(),
        b"<< /Title (" + _escaped(title) + b") " + _MARK + b" >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding >>",
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>",
    ]
    for number, page in enumerate(pages):
        content = _content(title if number == 0 else "", page)
        box = f"/MediaBox [0 0 {_WIDTH} {_HEIGHT}] /Contents {7 + 2 * number} 0 R".encode()
        objects.append(b"<< /Type /Page /Parent 2 0 R " + box + b" /Resources " + fonts + b" >>")
        objects.append(f"<< /Length {len(content)} >>\nstream\n".encode() + content + b"\nendstream")
    return _file(objects)


def _wrapped(line: str) -> list[str]:
    pad = line[: len(line) - len(line.lstrip())][:40]
    return textwrap.wrap(line.strip(), _COLUMNS, initial_indent=pad, subsequent_indent=f"{pad}  ") or [""]


def _content(title: str, lines: Sequence[str]) -> bytes:
    """Return the operators that show a page."""
    top = _HEIGHT - _MARGIN
    parts = []
    if title:
        shown = title if len(title) <= 40 else f"{title[:39]}…"
        parts.append(b"BT /F1 %d Tf %d %d Td (" % (_TITLE_SIZE, _MARGIN, top) + _escaped(shown) + b") Tj ET")
        top -= 4 * _LEADING
    parts.append(b"BT /F2 %d Tf %d TL %d %d Td" % (_SIZE, _LEADING, _MARGIN, top))
    parts += [b"(" + _escaped(line) + b") Tj T*" for line in lines]
    return b"\n".join([*parts, b"ET"])


def _escaped(text: str) -> bytes:
    """Return text as the inside of a PDF string, in the encoding of the fonts."""
    plain = "".join(sign if sign.isprintable() else " " for sign in text)
    return plain.encode("cp1252", "replace").replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def _file(objects: Sequence[bytes]) -> bytes:
    """Return the file: objects numbered from 1, then the table of where each begins."""
    out = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    places = []
    for number, body in enumerate(objects, start=1):
        places.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    for place in places:
        out += b"%010d 00000 n \n" % place
    out += b"trailer\n<< /Size %d /Root 1 0 R /Info 3 0 R >>\n" % (len(objects) + 1)
    return bytes(out + b"startxref\n%d\n%%%%EOF\n" % start)
