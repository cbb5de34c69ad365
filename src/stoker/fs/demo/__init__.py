"""A whole cluster on loopback: for demonstrations, for tests with real processes, and for measurements."""
