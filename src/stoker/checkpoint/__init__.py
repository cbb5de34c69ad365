"""Checkpoints of sharded models: what each rank writes, streaming it out, committing it, reading it back."""
