"""The state bus: versioned pages in shared memory, changed by deltas that are logged, replayed and propagated."""
