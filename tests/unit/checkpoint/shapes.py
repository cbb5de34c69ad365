"""Small models, and the models of the rules as shapes."""

from stoker.bench.rules.mlperf.tables import models
from stoker.bench.run.checkpoint import shape_of
from stoker.core.checkpoints import ModelShape

RULES = {name: (shape_of(model), model.processes) for name, model in models().checkpointing.items()}


def tiny(**changes: object) -> ModelShape:
    """Return a transformer of 22,688 parameters."""
    values: dict[str, object] = {
        "layers": 2,
        "hidden_size": 32,
        "ffn_hidden_size": 64,
        "attention_heads": 4,
        "kv_heads": 2,
        "vocab_size": 64,
        **changes,
    }
    return ModelShape(**values)  # type: ignore[arg-type]
