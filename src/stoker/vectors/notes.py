"""What a collection of ours carries in its description: the recipe of its vectors, so that a later run knows them."""

from typing import Final

import msgspec

from stoker.core.vectors import IndexSpec, Recipe

_MARK: Final = "stoker-vectors/1"
_NOTE_BYTES_MAX: Final = 1 << 12


class CollectionNote(msgspec.Struct, frozen=True):
    """The note of a collection; `copy_of` is the fingerprint of the one that an exact copy was made from."""

    recipe: Recipe
    index: IndexSpec
    schema: str = _MARK
    copy_of: str = ""


def note_of(recipe: Recipe, index: IndexSpec, *, copy_of: str = "") -> str:
    """Return the note as text."""
    return msgspec.json.encode(CollectionNote(recipe, index, _MARK, copy_of)).decode()


def read_note(text: str) -> CollectionNote | None:
    """Return the note in a description, None where it is none of ours."""
    if _MARK not in text or len(text) > _NOTE_BYTES_MAX:
        return None
    try:
        found = msgspec.json.decode(text, type=CollectionNote)
    except msgspec.DecodeError:
        return None
    return found if found.schema == _MARK else None


def fingerprint(recipe: Recipe, metric: str, count: int) -> str:
    """Return what tells a collection from any other: its recipe, its distance and how many vectors it holds."""
    return f"{recipe.distribution}-{recipe.seed}-{recipe.vectors}x{recipe.dimension}-{metric}-{count}"
