"""The rules that a run on a collection of vectors alone is held to, as data."""

from typing import Final

from stoker.bench.rules.rule import REPEAT, VECTORS, Rule

_ONLY: Final = (VECTORS,)
VECTOR_RULES: Final = (
    Rule(
        "vector.loaded",
        "blocks",
        "invalid",
        "The collection is not whole",
        "Every vector that was planned is in the collection.",
        REPEAT,
        _ONLY,
    ),
    Rule(
        "vector.answered",
        "blocks",
        "invalid",
        "Requests had no answer",
        "Every request was answered, and there were some.",
        "look in the ranks' logs and the database's for the reason, and repeat the run",
        _ONLY,
    ),
    Rule(
        "vector.truth",
        "blocks",
        "invalid",
        "The exact answers do not cover the collection",
        "The exact answers were taken from every vector of the collection.",
        "load the collection anew, and let the exact answers be made anew",
        _ONLY,
    ),
    Rule(
        "vector.recall",
        "blocks",
        "invalid",
        "The answers hold none of the exact neighbours",
        "The mean recall of the timed answers is above 0.",
        "look whether the collection, its index and the exact answers belong together",
        _ONLY,
    ),
    Rule(
        "vector.unread",
        "blocks",
        "blinds",
        "No storage was read",
        "The device under the collection was read, or lies where this host cannot count it.",
        "empty the caches, or load a collection that is larger than the memory of the database",
        _ONLY,
    ),
    Rule(
        "vector.client",
        "blocks",
        "client",
        "The client is the limit",
        "No process that queries, and no client host, was busy for 90 % of the time.",
        "use more processes (--processes) or more client hosts",
        _ONLY,
    ),
    Rule(
        "vector.target",
        "blocks",
        "negative",
        "The recall is below the one that is needed",
        "The mean recall is at least the one that was asked for.",
        "search more candidates (--search-ef), or build the index with more",
        _ONLY,
    ),
    Rule(
        "vector.uncounted",
        "warns",
        "tells",
        "What the storage did is not known",
        "The device under the collection was counted by a client.",
        "name the folder of the database's data (--storage-root) where it lies on this host",
        _ONLY,
    ),
    Rule(
        "vector.data",
        "informs",
        "tells",
        "The vectors have no neighbours worth the name",
        "The vectors are clustered, as embeddings are.",
        "use --distribution clustered, unless the rules ask for another",
        _ONLY,
    ),
    Rule(
        "vector.few",
        "informs",
        "tells",
        "Few requests were timed",
        "A thousand requests or more were timed, so that the 99.9th percentile is one of them.",
        "let it run longer",
        _ONLY,
    ),
)
