"""The judge of MLPerf Storage results: the rules as data, trees of the reference tool, and our own saved results.

catalogue   every rule: id, name, editions, divisions, family, severity, text, remedy, or why it cannot be decided
tables      models, accelerators, process counts, allowed overrides, what differs between editions
formulas    dataset sizes, checkpoint sizes, core-configuration hash, comparability class: pure functions
reading     a tree's folders and documents, read as if a stranger had made them
layout      where what lies in trees of 1.0, 2.0 and 3.0: submitters, systems, series, leaves
*_checks    what each decidable rule does
judging     runs the checks over a tree and counts what was decided
matrix      the table of rules and checks that the documentation shows
"""

from stoker.bench.rules.mlperf.catalogue import RULES, MlperfRule
from stoker.bench.rules.mlperf.findings import TreeFinding
from stoker.bench.rules.mlperf.judging import Judgement, judge_tree
from stoker.bench.rules.mlperf.layout import Tree, read_tree
from stoker.bench.rules.mlperf.result_checks import judge_result
from stoker.bench.rules.mlperf.tables import EDITIONS

__all__ = [
    "EDITIONS",
    "RULES",
    "Judgement",
    "MlperfRule",
    "Tree",
    "TreeFinding",
    "judge_result",
    "judge_tree",
    "read_tree",
]
