"""What a client has done, in numbers. They are sums since it began; threads may lose one now and then."""

import msgspec


class Counters(msgspec.Struct):
    """Hits and misses are of blocks; bytes are of slices' contents."""

    memory_hits: int = 0
    memory_misses: int = 0
    shared_reads: int = 0
    disk_hits: int = 0
    disk_misses: int = 0
    disk_dropped: int = 0
    read_bytes: int = 0
    fetched_bytes: int = 0
    ahead_bytes: int = 0
    written_bytes: int = 0
    stored_slices: int = 0
    stored_bytes: int = 0
    extent_hits: int = 0
    extent_misses: int = 0
    entry_hits: int = 0
    entry_misses: int = 0
    retries: int = 0
    flush_failures: int = 0
    dropped_bytes: int = 0
    relieved: int = 0
    compacted: int = 0
    made_here: int = 0
    holds: int = 0
    holds_asked_back: int = 0
