"""The benchmark: plans a run, conducts it, judges what was saved and reports it."""
