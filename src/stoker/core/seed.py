"""The only door to chance: every random stream is derived from one seed and the words that name it."""

import hashlib
import secrets


def derive(seed: int, *words: str | int) -> int:
    """Return a 64-bit seed for the stream named by `words`; equal arguments give equal seeds everywhere.

    BLAKE2b over the length-prefixed words: changing any word changes every bit with probability 1/2.
    """
    digest = hashlib.blake2b(digest_size=8)
    for word in (seed, *words):
        data = str(word).encode()
        digest.update(len(data).to_bytes(4, "little") + data)
    return int.from_bytes(digest.digest(), "little")


def fresh() -> int:
    """Return an unpredictable 63-bit seed (storage must not learn the access order)."""
    return secrets.randbits(63)


def run_id() -> str:
    """Return a short unpredictable id, 12 hexadecimal digits, for folders and segments of one run."""
    return secrets.token_hex(6)
