"""Data sets: where they come from, how they are checked, and how they become memory-mapped arrays.

What all families of sets use; each family's preparers are in their own folder.
"""
