"""Networks that image classifiers and their pretraining share."""
