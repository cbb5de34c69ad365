"""The judge's reader of YAML and the runner's read the same text as the same data, and refuse the same text."""

from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stoker.bench.run.dlio.tree import plain
from stoker.bench.run.dlio.yaml_text import load_text
from stoker.core.errors import CorruptError, UsageError
from stoker.core.plain_yaml import load_plain

KEYS = st.text("abz09_-. :#'", min_size=1, max_size=8)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**20), 10**20),
    st.floats(allow_nan=False),
    st.text("ab1:#-'\"\\ \n\té✓&*!", max_size=12),
    st.sampled_from(["1e-3", "0x10", "0o7", "1:30", "yes", "~", "2026-03-02", "1_000", ".5", "+.inf"]),
)
DATA = st.dictionaries(
    KEYS,
    st.recursive(
        SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
    ),
    max_size=5,
)
# Without block scalars: libyaml takes a comment right behind `|`, which PyYAML's own parser refuses.
SCRAPS = st.lists(
    st.sampled_from(
        ["a: ", "b:", "\n", "  ", "- ", "[", "]", "{", "}", ",", "1", "'", '"', "&x ", "*x", "!t ", "#", "x"]
    ),
    max_size=14,
).map("".join)


def both(text: str) -> tuple[Any, Any]:
    """Return what the two readers make of the text; a refusal is a word."""
    try:
        ours: Any = load_plain(text)
    except CorruptError:
        ours = "refused"
    try:
        runners: Any = plain(load_text(text, "x.yaml"))
    except UsageError:
        runners = "refused"
    return ours, runners


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(DATA)
def test_both_readers_read_what_was_written(data: dict[str, Any]) -> None:
    ours, runners = both(yaml.safe_dump(data, allow_unicode=True))
    assert ours == runners or (not data and not ours)
    assert isinstance(runners, dict)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(SCRAPS)
def test_both_readers_agree_on_scraps(text: str) -> None:
    ours, runners = both(text)
    if isinstance(ours, dict) or (runners != "refused" and runners):
        assert ours == runners, text
    elif ours is None:
        assert runners == {}, text
    else:
        assert runners == "refused", text  # the runner wants a mapping
