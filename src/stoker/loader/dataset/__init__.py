"""Datasets that are made here: named, sized and filled from a spec alone, resumable, proved, and removed safely."""
