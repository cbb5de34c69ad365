"""The gates before a workload: free space (CAP-01), one file system for all (CAP-02), data apart from results (CAP-03).

    request   what is asked of the gates, and what they found
    looking   the small real actions, on this host, on others over SSH, or on every rank of a launcher
    ranks     what each rank does
    deciding  from what was seen to the gates' answers, pure
    sweeping  what a killed gate may leave behind

The record in the leaf is what the judge decides the rules on (`stoker.bench.rules.mlperf.gate_checks`).
"""

from stoker.bench.rules.mlperf.gate_checks import GATES_FILE
from stoker.bench.run.gates.looking import run_gates
from stoker.bench.run.gates.request import Gate, GateReport, GateRequest

__all__ = ("GATES_FILE", "Gate", "GateReport", "GateRequest", "run_gates")
