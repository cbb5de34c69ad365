"""Trees whose record of the gates before a run has one thing wrong."""

from mlperf_corpus import RUNS, VECTORS, broken
from mlperf_places import GONE, Spot

GATES = f"{RUNS}/gates.json"
SPACE, SHARED, APART = "gates.0", "gates.1", "gates.2"


def put(key: str, value: object):
    return lambda spot: spot.put(GATES, key, value, only=3)


def no_room(spot: Spot) -> None:
    spot.put(GATES, f"{SPACE}.facts.available_bytes", 5, only=3)


def exempt_engine(spot: Spot) -> None:
    """A remote engine is exempt: that is no breach, so another one shows that the tree was judged."""
    for key in (SPACE, SHARED, APART):
        spot.put(f"{VECTORS}/run/*/gates.json", f"{key}.state", "exempt")
    no_room(spot)


broken("gate_space_shut", "gated", "CAP-01", put(f"{SPACE}.state", "failed"))
broken("gate_space_too_little", "gated", "CAP-01", no_room)
broken("gate_space_strange_state", "gated", "CAP-01", put(f"{SPACE}.state", ["passed"]))
broken("gate_space_exempt_folder", "gated", "CAP-01", put(f"{SPACE}.state", "exempt"))
broken("gate_space_exempt_engine", "gated", "CAP-01", exempt_engine)
broken("gate_space_gone", "gated", "CAP-01", put(f"{SPACE}.id", "CAP-09"))
broken("gate_shared_shut", "gated", "CAP-02", put(f"{SHARED}.state", "failed"))
broken("gate_shared_not_seen", "gated", "CAP-02", put(f"{SHARED}.facts.seen.client02.same_content", False))
broken("gate_shared_two_inodes", "gated", "CAP-02", put(f"{SHARED}.facts.seen.client02.inode", 4712))
broken("gate_shared_odd_inode", "gated", "CAP-02", put(f"{SHARED}.facts.seen.client02.inode", [4711]))
broken("gate_shared_one_looked", "gated", "CAP-02", put(f"{SHARED}.facts.seen.client02", GONE))
broken("gate_apart_shut", "gated", "CAP-03", put(f"{APART}.state", "failed"))
broken("gate_apart_same", "gated", "CAP-03", put(f"{APART}.facts.same_filesystem", True))
broken(
    "gate_apart_probed_otherwise",
    "gated",
    "CAP-03 3.4.2",
    lambda s: s.put(f"{RUNS}/fs_separation.json", "same_filesystem", True, only=3),
)
broken("gate_apart_without_probe", "gated", "CAP-03 3.4.2", lambda s: s.drop(f"{RUNS}/fs_separation.json", only=3))
broken("gates_of_one_run_gone", "gated", "CAP-01 CAP-02 CAP-03", lambda s: s.drop(GATES, only=3))
broken("gates_of_another_version", "gated", "CAP-01 CAP-02 CAP-03", put("version", 2))
