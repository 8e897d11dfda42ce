"""Runs tasks with a network: prompts that fit, scores, answers, samples that are written as they come."""

__all__ = [
    "answers",
    "candidates",
    "execute",
    "finish",
    "network",
    "plan",
    "prompts",
    "samples",
    "scoring_rules",
]
