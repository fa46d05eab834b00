"""Classified images: photographs in folders and archives, digits, and drawn ones."""
