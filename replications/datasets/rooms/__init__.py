"""Rooms with boxes in 3-D: scanned, composed of scanned shapes, and drawn."""
