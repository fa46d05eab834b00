"""Data sets: where they come from, how they are checked, and how they become memory-mapped arrays."""
