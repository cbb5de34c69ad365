"""Plans of small caches for tests."""

from typing import Any

import msgspec

from stoker.core.kvcache import KvModel, KvPersona, KvPlan

TINY = KvModel(layers=2, hidden=32, heads=4, kv_heads=2)
"""64 bytes a token and layer: 2 layers x 2 heads x 8 numbers x keys and values x 2 bytes = 128 bytes a token."""
SHORT = KvPersona(context=(40, 400), generated=(8, 64), think_seconds=(0.005, 0.02))


def tiny_plan(**changes: Any) -> KvPlan:
    """A plan of small entries and quick users."""
    plan = KvPlan(model=TINY, personas={"short": SHORT}, users=4, duration_seconds=0.6, piece_bytes=16 << 10)
    return msgspec.structs.replace(plan, **changes)
