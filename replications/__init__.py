"""Paper claims in; verdicts with their evidence and their cost out."""

__version__ = "0.1.0"
