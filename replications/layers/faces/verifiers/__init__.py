"""Verifiers: similarity scores of two features, fitted on held-out identities.

Import from the submodules: a run depends on each module that it imports, and on nothing else.
"""
