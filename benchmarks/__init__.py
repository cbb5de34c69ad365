"""Our own code's speed beside its ceiling and what a user would pick instead. Run: make bench."""
