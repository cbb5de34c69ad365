"""What others counted, as the report lists it."""

import runs

from stoker.bench.report.tables import counter_rows
from stoker.core.ledger import Counters


def test_requests_are_listed_by_kind_where_there_were_any() -> None:
    result = runs.realistic_result()
    names = [row["name"] for row in counter_rows(result)]
    assert not any(name.startswith("requests") for name in names)
    result.evidence.counters = Counters(http_get_range_requests=1200, http_head_requests=0, http_put_requests=3)
    told = {row["name"]: row["value"] for row in counter_rows(result)}
    assert told["requests, get_range"] == "1,200"
    assert told["requests, put"] == "3"
    assert "requests, head" not in told
