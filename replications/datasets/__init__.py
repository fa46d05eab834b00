"""Data sets: sources, checks, and preparation as memory-mapped arrays.

What all families of sets use; each family's preparers are in their own folder.
"""
