"""What a submission consists of beside the engine's files, made from saved files alone.

leaf          LeafFacts, and the files of one invocation: metadata, provenance, time series, cluster information
provenance    the stamp of a leaf: each fact, and how it was known
images        the pool of code images: the code that ran, once for each digest
"""

from stoker.bench.report.submission.images import capture_image
from stoker.bench.report.submission.leaf import LeafFacts, write_leaf

__all__ = ["LeafFacts", "capture_image", "write_leaf"]
