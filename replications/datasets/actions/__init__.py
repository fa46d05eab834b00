"""Streams of features with the actions of each frame."""
