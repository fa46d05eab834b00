"""Tests what papers claim, and gives verdicts with their evidence and cost."""

__version__ = "0.1.0"
