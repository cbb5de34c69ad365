"""The value grammar of an override: what stands right of the `=`, as Hydra reads it.

`8` `1e-3` `true` `null` `text/with-signs` `"quoted"` `[a,b]` `{k:v}`, and `a,b` for a sweep. Functions such as
`range(1,3)` are refused: a sweep lists its values.
"""

import re
from typing import Any, Final

from stoker.core.errors import UsageError

TEXT_MAX: Final = 1 << 20
DEPTH_MAX: Final = 16

_INTEGER: Final = re.compile(r"[+-]?(?:0|[1-9](?:_?[0-9])*)")
_UNSIGNED: Final = r"(?:0|[1-9](?:_?[0-9])*)"
_FRACTION: Final = rf"(?:{_UNSIGNED}\.|(?:{_UNSIGNED})?\.[0-9](?:_?[0-9])*)"
_NUMBER: Final = re.compile(
    rf"[+-]?(?:(?:{_UNSIGNED}|{_FRACTION})[eE][+-]?[0-9](?:_?[0-9])*|{_FRACTION}|[iI][nN][fF]|[nN][aA][nN])"
)
_FUNCTION: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*\s*\(")
_WORDS: Final = {"true": True, "false": False, "null": None}
_ESCAPED: Final = frozenset("\\()[]{}:=, \t")


def parse_value(text: str) -> Any:
    """Return the value that `text` means. Raises UsageError for what is no value, and for a sweep."""
    values = split_choices(text)
    if len(values) > 1:
        raise UsageError(
            "several values for one key", where=text, remedy="add --multirun to run each, or write a list: [a,b]"
        )
    return _Parser(text).whole()


def split_choices(text: str) -> list[str]:
    """Return the values of a sweep `a,b,c` as text; one value is a list of one. Raises UsageError for no value."""
    if len(text) > TEXT_MAX:
        raise UsageError("value is too long", where=text[:40], expected=f"at most {TEXT_MAX} characters")
    parser = _Parser(text)
    parts = []
    while True:
        start = parser.position
        parser.element(0)
        parts.append(text[start : parser.position].strip())
        if parser.done:
            return parts
        parser.expect(",")


class _Parser:
    """Reads one value from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.position = 0

    @property
    def done(self) -> bool:
        """Tell whether all text was read."""
        return self.position >= len(self._text)

    def whole(self) -> Any:
        """Return the only value of the text."""
        value = self.element(0)
        assert self.done
        return value

    def expect(self, sign: str) -> None:
        """Step over `sign`. Raises UsageError when something else comes."""
        if self._peek() != sign:
            got = repr(self._peek()) if not self.done else "the end"
            raise UsageError("value cannot be read", where=self._text, expected=repr(sign), got=got)
        self.position += 1

    def element(self, depth: int) -> Any:
        """Return the next value, up to a separator that is not its own."""
        if depth > DEPTH_MAX:
            raise UsageError(
                "value is nested too deeply", where=self._text[:40], expected=f"at most {DEPTH_MAX} levels"
            )
        self._skip_blanks()
        sign = self._peek()
        if sign == "[":
            value: Any = self._list(depth)
        elif sign == "{":
            value = self._mapping(depth)
        elif sign in ("'", '"'):
            value = self._quoted(sign)
        else:
            return _converted(self._bare(",]}" if depth else ","), self._text)
        self._skip_blanks()
        return value

    def _list(self, depth: int) -> list[Any]:
        self.expect("[")
        items: list[Any] = []
        self._skip_blanks()
        while self._peek() != "]":
            if items:
                self.expect(",")
            items.append(self._element_given(depth))
        self.expect("]")
        return items

    def _mapping(self, depth: int) -> dict[str, Any]:
        self.expect("{")
        items: dict[str, Any] = {}
        self._skip_blanks()
        while self._peek() != "}":
            if items:
                self.expect(",")
            key = self._key()
            self.expect(":")
            if key in items:
                raise UsageError(f"key {key!r} is given twice", where=self._text)
            items[key] = self._element_given(depth)
        self.expect("}")
        return items

    def _element_given(self, depth: int) -> Any:
        """Return the next value inside brackets; an empty one is an error."""
        before = self.position
        value = self.element(depth + 1)
        if not self._text[before : self.position].strip():
            raise UsageError("value is missing", where=self._text, got=f"nothing at character {before + 1}")
        return value

    def _key(self) -> str:
        self._skip_blanks()
        sign = self._peek()
        if sign in ("'", '"'):
            key = self._quoted(sign)
            self._skip_blanks()
            return key
        key = "".join(sign for sign, _ in self._bare(":,]}")).strip()
        if not key:
            raise UsageError("key is missing", where=self._text, expected="{key: value}")
        return key

    def _quoted(self, quote: str) -> str:
        """Return the text between quotes: before a quote two backslashes are one, and one makes it part of the text."""
        self.position += 1
        out = []
        backslashes = 0
        while not self.done:
            sign = self._peek()
            self.position += 1
            if sign == "\\":
                backslashes += 1
                continue
            if sign != quote:
                out.append("\\" * backslashes + sign)
            else:
                out.append("\\" * (backslashes // 2))
                if backslashes % 2 == 0:
                    return "".join(out)
                out.append(quote)
            backslashes = 0
        raise UsageError("quote is not closed", where=self._text[:80], expected=quote)

    def _bare(self, stops: str) -> list[tuple[str, bool]]:
        """Return the characters up to one of `stops`, each with whether it was escaped."""
        if _FUNCTION.match(self._text, self.position):
            raise UsageError("functions are not supported in a value", where=self._text, remedy="write the values out")
        signs: list[tuple[str, bool]] = []
        while not self.done:
            if self._text.startswith("${", self.position):
                end = self._text.find("}", self.position)
                if end < 0:
                    raise UsageError("interpolation is not closed", where=self._text, expected="}")
                signs += [(sign, False) for sign in self._text[self.position : end + 1]]
                self.position = end + 1
                continue
            sign = self._peek()
            following = self._text[self.position + 1 : self.position + 2]
            if sign == "\\" and following in _ESCAPED:
                signs.append((following, True))
                self.position += 2
                continue
            if sign in stops:
                break
            if sign in "[]{}()":
                raise UsageError("value cannot be read", where=self._text, got=repr(sign), remedy="put it into quotes")
            signs.append((sign, False))
            self.position += 1
        return signs

    def _peek(self) -> str:
        return self._text[self.position : self.position + 1]

    def _skip_blanks(self) -> None:
        while self._peek() in (" ", "\t"):
            self.position += 1


def _converted(signs: list[tuple[str, bool]], where: str) -> Any:
    """Return an unquoted value: a number, a truth value or null when it reads like one, else text."""
    while signs and signs[-1] in ((" ", False), ("\t", False)):
        signs.pop()
    text = "".join(sign for sign, _ in signs)
    if any(escaped for _, escaped in signs):
        return text
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    try:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _NUMBER.fullmatch(text):
            return float(text)
    except ValueError as error:
        raise UsageError("number is too long", where=where[:40], got=f"{len(text)} digits") from error
    return text
