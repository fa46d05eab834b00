"""Sequences: texts as bytes, reviews, and languages that are drawn."""
