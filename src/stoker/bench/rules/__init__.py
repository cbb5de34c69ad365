"""The rules: judge a saved `Result` and nothing else."""

from stoker.bench.rules.catalogue import RULES
from stoker.bench.rules.rule import Rule
from stoker.bench.rules.verdict import exit_code, judge

__all__ = ["RULES", "Rule", "exit_code", "judge"]
