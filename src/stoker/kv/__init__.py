"""A KV cache of tiers above a store: entries and pages placed, demoted, read, verified and counted."""
