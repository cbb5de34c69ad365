"""Benchmarks of the state bus."""
