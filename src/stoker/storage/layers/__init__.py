"""Stores that wrap a store: each passes the same contract and offers exactly what the inner one offers."""
