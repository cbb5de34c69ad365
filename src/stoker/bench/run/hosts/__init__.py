"""The hosts of a run: what is seen of them, how they are reached, started, watched and checked beforehand."""
