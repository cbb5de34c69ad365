"""What a rule is, and which kinds of runs there are."""

from typing import Final

import msgspec

TRAINING: Final = "training"
CHECKPOINTING: Final = "checkpointing"
KVCACHE: Final = "kvcache"
VECTORS: Final = "vectordb"
REPEAT: Final = "mend the cause and repeat the run"


class Rule(msgspec.Struct, frozen=True):
    """One rule. `title` names the breach, `tested` what holds when there is none; severity is blocks, warns or
    informs. `workloads` are those it applies to."""

    id: str
    severity: str
    effect: str
    title: str
    tested: str
    remedy: str = ""
    workloads: tuple[str, ...] = (TRAINING,)
