"""Networks, losses and matching that detectors of objects in images share."""
