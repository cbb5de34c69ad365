"""The rows of the peer table, a file each; `benchmarks.table` knows them all."""
