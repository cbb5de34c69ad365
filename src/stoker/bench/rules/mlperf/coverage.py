"""Which rules a check decides, and how the catalogue stands to a text of the rules in Markdown.

A rule's mention is its id and, right behind it, its name in camel case, however both are set off: a heading, a list,
a cell of a table. Numbers without such a name are sections.
"""

import re
from pathlib import Path
from typing import Final

import msgspec

from stoker.bench.rules.mlperf.catalogue import RULES
from stoker.bench.rules.mlperf.judging import CHECKS
from stoker.core.errors import CorruptError, NotFoundError

TEXT_BYTES_MAX: Final = 8 << 20
_BETWEEN: Final = r"[\s.:|*_`)\]–—-]{1,12}"
_MENTION: Final = re.compile(
    r"(?<![\w.-])(\d{1,2}(?:\.\d{1,2}){1,4}(?:\.?[a-z])?|[A-Z]{2,6}-\d{2})"
    + _BETWEEN
    + r"([a-z][a-z0-9]*(?:[A-Z][A-Za-z0-9]*)+)\b"
)


class Coverage(msgspec.Struct, frozen=True):
    """The catalogue held against a text: what the text names and a check decides, names and no check decides, names
    and the catalogue has not; and what the catalogue has and the text does not name. `renamed` has (id, name in the
    text, ours)."""

    checked: tuple[str, ...]
    unchecked: tuple[str, ...]
    unknown: tuple[tuple[str, str], ...]
    renamed: tuple[tuple[str, str, str], ...]
    unnamed: tuple[str, ...]


def read_text(path: Path) -> str:
    """Return a text of the rules. Raises NotFoundError, and CorruptError for one that is no text or too long."""
    try:
        with path.open("rb") as file:
            data = file.read(TEXT_BYTES_MAX + 1)
        if len(data) > TEXT_BYTES_MAX:
            raise CorruptError(
                "too long for a text of rules", where=str(path), expected=f"at most {TEXT_BYTES_MAX:,} B"
            )
        return data.decode()
    except UnicodeDecodeError as error:
        raise CorruptError("not a text in UTF-8", where=str(path), got=str(error)) from error
    except OSError as error:
        raise NotFoundError("no text of rules can be read", where=str(path), got=error.strerror or "") from error


def mentions(text: str) -> dict[str, str]:
    """Return the names of the rules that a text mentions, by their ids, in order; the first mention counts."""
    found: dict[str, str] = {}
    for match in _MENTION.finditer(text):
        found.setdefault(match[1], match[2])
    return found


def coverage(text: str, edition: str = "") -> Coverage:
    """Return how the catalogue (of an edition, if named) stands to a text of the rules."""
    named = mentions(text)
    rules = {rule.id: rule for rule in RULES.values() if not edition or edition in rule.editions}
    known = [each for each in named if each in rules]
    return Coverage(
        checked=tuple(each for each in known if each in CHECKS),
        unchecked=tuple(each for each in known if each not in CHECKS),
        unknown=tuple((each, name) for each, name in named.items() if each not in rules),
        renamed=tuple((each, named[each], rules[each].name) for each in known if named[each] != rules[each].name),
        unnamed=tuple(each for each in rules if each not in named),
    )
