"""Ids of pages: a chain over the tokens, so that equal prefixes have equal pages and nothing else has.

root    = BLAKE2b-128 of everything that decides the bytes: model, type, layout, tokens a page, parallel degrees
page    = BLAKE2b-128 of the id before it and of the page's own tokens
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from stoker.core.kvcache import KvPlan

ID_BYTES: Final = 16


def root_id(plan: KvPlan) -> bytes:
    """Return the root of all chains of a run: caches of another layout share nothing with it."""
    told = {
        "model": msgspec.to_builtins(plan.model),
        "dtype": plan.dtype,
        "layout": plan.layout,
        "page_tokens": plan.page_tokens,
        "tensor_parallel": plan.tensor_parallel,
    }
    return hashlib.blake2b(msgspec.json.encode(told, order="sorted"), digest_size=ID_BYTES).digest()


def chained(parent: bytes, pages: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the id of each page, of its tokens as bytes (or of what stands for them), behind `parent`."""
    for page in pages:
        parent = hashlib.blake2b(parent + page, digest_size=ID_BYTES).digest()
        yield parent


def page_key(page: bytes) -> str:
    """Return the entry's key of a page."""
    return f"page_{page.hex()}"
