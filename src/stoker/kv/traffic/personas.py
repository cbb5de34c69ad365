"""Drawn users: each has a persona, a class of service and a stream of chance of its own.

What a user asks for depends on the seed and the user's number alone: neither threads nor the storage's speed change
the list of requests, only how far into it a run comes.
"""

import random
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from typing import Final

from stoker.core import seed
from stoker.core.kvcache import BLOCK_LAYOUT, KvPlan
from stoker.kv.traffic.pages import chained, page_key, root_id
from stoker.kv.traffic.request import BOTH, PREFILL, Request

TURNS_MAX: Final = 50
KEEP_CONVERSATION: Final = 0.8
PREFILL_TOKENS: Final = 10_000
INTERACTIVE: Final = 0.15
RESPONSIVE: Final = 0.5
PREFIX_SHARE: Final = 0.2
PREFIX_TOKENS: Final = (64, 128, 256)
"""Tokens of the prompts that conversations share."""
RAG_SHARE: Final = 0.1
RAG_CHUNKS: Final = 5
RAG_CHUNK_TOKENS: Final = 512
RAG_CHUNK_BYTES_MAX: Final = 256 << 20
_THINK: Final = (0.8, 1.2)
_LARGE_HIDDEN: Final = 8192
_LARGE_LAYERS: Final = 64


def prefix_keys() -> list[tuple[str, int]]:
    """Return the shared prompts: key and tokens of each."""
    names = (f"system prompt {number}" for number in range(len(PREFIX_TOKENS)))
    digests = (blake2b(name.encode(), digest_size=8).hexdigest() for name in names)
    return [(f"kv_system_{digest}", tokens) for digest, tokens in zip(digests, PREFIX_TOKENS, strict=True)]


def rag_documents(plan: KvPlan) -> list[list[tuple[str, int]]]:
    """Return the documents as their chunks: key and tokens of each."""
    large = plan.model.hidden >= _LARGE_HIDDEN or plan.model.layers >= _LARGE_LAYERS
    low, high = (1024, 4096) if large else (4000, 12_000)
    chunk = max(1, min(RAG_CHUNK_TOKENS, RAG_CHUNK_BYTES_MAX // max(1, plan.token_bytes)))
    chance = random.Random(seed.derive(plan.seed, "kv-documents"))  # noqa: S311 - traffic, not secrets
    found = []
    for document in range(plan.rag_documents):
        tokens = chance.randint(low, high)
        sizes = [min(chunk, tokens - start) for start in range(0, tokens, chunk)]
        found.append([(f"rag_doc{document}_chunk_{at}", size) for at, size in enumerate(sizes)])
    return found


class PersonaSource:
    """Requests of drawn users."""

    def __init__(self, plan: KvPlan) -> None:
        self._plan = plan
        self._names = sorted(plan.personas)
        self._prefixes = prefix_keys() if plan.prefix_caching else []
        self._documents = rag_documents(plan)
        self._root = root_id(plan)

    def streams(self, users: int) -> int:
        """Return as many as there are users."""
        return users

    def requests(self, stream: int) -> Iterator[Request]:
        """Yield the requests of a user without end; the first comes at once."""
        plan, user = self._plan, stream
        chance = random.Random(seed.derive(plan.seed, "kv-user", user))  # noqa: S311 - traffic, not secrets
        persona = plan.personas[chance.choice(self._names)]
        drawn = chance.random()
        qos = "interactive" if drawn < INTERACTIVE else "responsive" if drawn < RESPONSIVE else "batch"
        most_context, most_generated = chance.randint(*persona.context), chance.randint(*persona.generated)
        think = chance.uniform(*persona.think_seconds)
        talk = _Conversation(plan, user, self._root)
        at_seconds, number = 0.0, 0
        while True:
            talk.go_on(chance)
            context = chance.randint(max(1, most_context // 4), most_context)
            generated = chance.randint(max(1, most_generated // 4), most_generated)
            prefix, prefix_tokens = self._prefix(chance)
            yield Request(
                user=user,
                number=number,
                at_seconds=at_seconds,
                qos=qos,
                key=talk.key(number),
                context=max(1, context - prefix_tokens),
                generated=generated,
                phase=PREFILL if context >= PREFILL_TOKENS else BOTH,
                earlier=talk.earlier(),
                prefix=prefix,
                prefix_tokens=prefix_tokens,
                chunks=self._chunks(chance),
                pages=talk.pages(context + generated) if plan.layout == BLOCK_LAYOUT else (),
            )
            talk.said()
            number += 1
            at_seconds += think * chance.uniform(*_THINK)

    def _prefix(self, chance: random.Random) -> tuple[str, int]:
        if not self._prefixes or chance.random() >= PREFIX_SHARE:
            return "", 0
        return chance.choice(self._prefixes)

    def _chunks(self, chance: random.Random) -> tuple[str, ...]:
        """Return chunks of a document, the first ones more often: 1 / (place + 1)."""
        if not self._documents or chance.random() >= RAG_SHARE:
            return ()
        left = list(enumerate(chance.choice(self._documents)))
        chosen: list[str] = []
        while left and len(chosen) < RAG_CHUNKS:
            weights: Sequence[float] = [1 / (at + 1) for at, _ in left]
            item = chance.choices(left, weights)[0]
            left.remove(item)
            chosen.append(item[1][0])
        return tuple(chosen)


class _Conversation:
    """A user's conversation: the turns that were, and the pages of what was said."""

    def __init__(self, plan: KvPlan, user: int, root: bytes) -> None:
        self._plan, self._user, self._root = plan, user, root
        self._number, self._turn = -1, 0
        self._pages: list[bytes] = []
        self._tokens = 0

    def go_on(self, chance: random.Random) -> None:
        """Keep talking, or begin another conversation."""
        keep = chance.random() < KEEP_CONVERSATION
        if self._number < 0 or not keep or self._turn >= TURNS_MAX or not self._plan.multi_turn:
            self._number, self._turn = self._number + 1, 0
            self._pages, self._tokens = [], 0

    def said(self) -> None:
        """A turn is over."""
        self._turn += 1

    def key(self, number: int) -> str:
        """Return the key of the entry of this turn."""
        if not self._plan.multi_turn:
            return f"user_{self._user}_req_{number}"
        return self._key(self._turn)

    def _key(self, turn: int) -> str:
        return f"conv_{self._user}_{self._number}_turn_{turn}"

    def earlier(self) -> tuple[str, ...]:
        """Return the keys of the turns before."""
        return tuple(self._key(turn) for turn in range(self._turn)) if self._plan.multi_turn else ()

    def pages(self, tokens: int) -> tuple[str, ...]:
        """Return the full pages of all that was said with this turn's tokens behind it."""
        self._tokens += tokens
        many = self._tokens // self._plan.page_tokens - len(self._pages)
        parent = self._pages[-1] if self._pages else self._root
        stands_for = (f"{self._plan.seed}/{self._user}/{self._number}".encode() for _ in range(many))
        self._pages += chained(parent, stands_for)
        return tuple(page_key(page) for page in self._pages)
