"""Verifiers: how alike two features are, and what is learned for that from held-out identities.

Import from the submodules: a run depends on each module that it imports, and on nothing else.
"""
