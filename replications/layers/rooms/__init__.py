"""Networks, box coding and losses that detectors of objects in rooms share."""
