"""Point clouds: scanned and modelled shapes, images as points, and drawn ones."""
