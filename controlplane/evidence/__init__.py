"""Statistics on counts: what was seen, what the past teaches, and three verdicts. Pure."""

from controlplane.evidence.account import Limits, Stage
from controlplane.evidence.evidence import Evidence, fold, metrics, next_step, verdicts
from controlplane.evidence.learned import Learned, learn
from controlplane.evidence.observation import Cell, Observation, Tally
from controlplane.evidence.split import Agreement, SplitVerdict, check_split
from controlplane.evidence.verdict import Outcome, Verdict

__all__ = [
    "Agreement",
    "Cell",
    "Evidence",
    "Learned",
    "Limits",
    "Observation",
    "Outcome",
    "SplitVerdict",
    "Stage",
    "Tally",
    "Verdict",
    "check_split",
    "fold",
    "learn",
    "metrics",
    "next_step",
    "verdicts",
]
