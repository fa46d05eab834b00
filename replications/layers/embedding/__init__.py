"""Vectors of words and documents: what a method offers, the unit sphere, negative sampling."""
