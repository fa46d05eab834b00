"""Faces: photographs with identities and pairs, and drawn ones."""
