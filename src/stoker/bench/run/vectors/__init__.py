"""Runs on a collection of vectors: planned, made ready with their exact answers, and closed with their recall."""
