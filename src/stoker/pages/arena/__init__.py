"""The arena: pages in memory that processes share, consistent whoever is killed when."""
