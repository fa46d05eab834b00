"""Blocks and networks that models of sequences share."""
