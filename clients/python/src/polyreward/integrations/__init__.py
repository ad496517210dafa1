"""Adapters of trainers and benchmarks. None has scoring logic of its own: each asks the server.

They raise by default. A reward that takes the place of a missing one is used only where `on_error` asks for it; it is
counted (`failures`) and warned of, and never stands in for a refusal that no later attempt would mend.

The adapters of TRL and verl can be had from here. Others need their framework, so they are imported from their module.
"""

from polyreward.integrations._failures import Failures, SubstitutedRewardWarning
from polyreward.integrations.trl import trl_reward
from polyreward.integrations.verl import verl_compute_score, verl_compute_score_async

__all__ = [
    "Failures",
    "SubstitutedRewardWarning",
    "trl_reward",
    "verl_compute_score",
    "verl_compute_score_async",
]
