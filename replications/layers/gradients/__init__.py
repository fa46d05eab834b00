"""Gradients of expectations: distributions, what an estimator must offer, and a network that needs one."""
