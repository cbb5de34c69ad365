"""What a submission consists of beside the engine's files, made from saved files alone.

leaf          LeafFacts, and the files of one invocation: metadata, provenance, time series, cluster information
provenance    the stamp of a leaf: each fact, and how it was known
images        the pool of code images: the code that ran, once for each digest
hardware      what was collected of hosts, in the words of a system's description
describe      the description of a system: drafted once, held against every later run (E404)
power, cover  rack units and provisioned power as a table, and the PDF that goes with a description
papers        both, of all systems of a submitter
manifest      submission.yaml
rows, described, rollups    results.json and results.csv of a model, an organisation and all; Public IDs
bundle, signing             a hash tree over a folder, and a signature over it
"""

from stoker.bench.report.submission.cover import write_cover
from stoker.bench.report.submission.describe import Drift, describe_system, drift
from stoker.bench.report.submission.hardware import HostHardware, hardware, hosts_of_run
from stoker.bench.report.submission.images import capture_image, check_image
from stoker.bench.report.submission.leaf import LeafFacts, write_leaf
from stoker.bench.report.submission.manifest import write_manifest
from stoker.bench.report.submission.papers import write_papers
from stoker.bench.report.submission.power import write_systems_power
from stoker.bench.report.submission.rollups import withdraw, write_rollups

__all__ = [
    "Drift",
    "HostHardware",
    "LeafFacts",
    "capture_image",
    "check_image",
    "describe_system",
    "drift",
    "hardware",
    "hosts_of_run",
    "withdraw",
    "write_cover",
    "write_leaf",
    "write_manifest",
    "write_papers",
    "write_rollups",
    "write_systems_power",
]
