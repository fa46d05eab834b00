"""Data sets: where they come from, how they are checked, and how they become memory-mapped arrays.

Here lies what all families of sets use; each family's preparers are in a folder of their own.
"""
