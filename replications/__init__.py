"""Tests claims of papers: verdicts with their evidence and cost."""

__version__ = "0.1.0"
