"""Vectors with labels, drawn by this suite."""
