"""Classifiers that differ in the objective they are trained by."""
