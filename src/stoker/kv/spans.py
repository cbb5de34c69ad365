"""What one read or write of an entry took, and where it took it."""

from dataclasses import dataclass


@dataclass(slots=True)
class Spans:
    """Nanoseconds of one read or write.

    `device_ns` is what the reference calls so: for reads from opening to the last byte, for writes through the page
    cache the sync alone, for all other writes the whole of it. `host_ns` is the rest of the span: emptying the page
    cache before a read, the copy into it of a write. Making and checking the content are in `content_ns` and in
    neither. `cached_bytes` of a read lay in the page cache, None where that cannot be told.
    """

    device_ns: int = 0
    host_ns: int = 0
    content_ns: int = 0
    cached_bytes: int | None = 0

    @property
    def span_ns(self) -> int:
        """Return the whole span without the making and checking of content."""
        return self.device_ns + self.host_ns
