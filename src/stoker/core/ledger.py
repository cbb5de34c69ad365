"""The ledger: every byte a run asked for, and where it came from.

    wanted      payload bytes the plan asked for (samples, before any rounding)
    requested   bytes asked of the store (whole files or ranges; 4 KiB multiples with O_DIRECT)
    from_store  of the requested, bytes that were not in this host's page cache before the read
    from_cache  of the requested, bytes that were
    mapped      of those from the cache, bytes that were mapped, not read: no read call of the kernel's counts them
    copied      bytes copied in memory between the store's buffer and the consumer's array
    delivered   payload bytes handed to the consumer
    written     bytes handed to the store, and taken by it

`from_store` is our claim; `Counters` is what the kernel or the network counted. The verdict holds one against
the other.
"""

from collections.abc import Iterable

import msgspec


class Ledger(msgspec.Struct):
    """Byte and event counts of one rank or, summed, of a run."""

    wanted_bytes: int = 0
    requested_bytes: int = 0
    from_store_bytes: int = 0
    from_cache_bytes: int = 0
    mapped_bytes: int = 0
    copied_bytes: int = 0
    delivered_bytes: int = 0
    files_opened: int = 0
    samples_delivered: int = 0
    retries: int = 0
    errors: int = 0
    written_bytes: int = 0
    files_written: int = 0

    def add(self, other: "Ledger") -> None:
        """Add the counts of `other` to this ledger."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


def total(ledgers: Iterable[Ledger]) -> Ledger:
    """Return the sum of several ledgers."""
    result = Ledger()
    for ledger in ledgers:
        result.add(ledger)
    return result


class Counters(msgspec.Struct):
    """What others counted during the measured window; None where the source is not to be had.

    process_read_bytes   /proc/self/io `read_bytes`: fetched from the block layer by this process
    process_syscall_bytes /proc/self/io `rchar`: returned by read calls, cached or not
    device_read_bytes    the block device under the target, sectors read x 512 (host-wide)
    network_receive_bytes  host interfaces, received (host-wide)
    process_write_bytes  /proc/self/io `write_bytes`: what this process caused to be written; counted as it is dirtied
    device_write_bytes   the block device under the target, sectors written x 512 (host-wide)
    network_transmit_bytes  host interfaces, sent (host-wide)
    http_body_bytes      response bodies counted at the object-store client
    http_gap_bytes       of them, those between wanted ranges that shared a request
    http_*_requests      requests it sent, failed ones too, by kind; a GET needs no HEAD before it
    resident_before_bytes, resident_probe_bytes   of the dataset: in the page cache when the epoch began, and the
                         bytes that were asked about (cachestat(2) or mincore)
    """

    process_read_bytes: int | None = None
    process_syscall_bytes: int | None = None
    device_read_bytes: int | None = None
    network_receive_bytes: int | None = None
    http_body_bytes: int | None = None
    http_gap_bytes: int | None = None
    http_get_requests: int | None = None
    http_get_range_requests: int | None = None
    http_head_requests: int | None = None
    http_list_requests: int | None = None
    http_put_requests: int | None = None
    http_multipart_part_requests: int | None = None
    http_multipart_control_requests: int | None = None
    http_delete_requests: int | None = None
    resident_before_bytes: int | None = None
    resident_probe_bytes: int | None = None
    process_write_bytes: int | None = None
    device_write_bytes: int | None = None
    network_transmit_bytes: int | None = None


def sum_counters(parts: Iterable[Counters]) -> Counters:
    """Return per-field sums, None where any part lacks the field; host-wide fields are the caller's to set once."""
    parts = list(parts)
    result = Counters()
    for name in Counters.__struct_fields__:
        values = [getattr(part, name) for part in parts]
        setattr(result, name, sum(values) if values and None not in values else None)
    return result
