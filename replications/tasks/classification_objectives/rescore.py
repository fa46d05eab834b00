"""Metrics derived again from what a run left in its arrays."""

from replications.tasks.classification_objectives.metrics import measured as rescore

__all__ = ["rescore"]
