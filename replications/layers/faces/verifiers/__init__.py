"""Verifiers: how alike two features are, and what is learned for that from held-out identities."""

from replications.layers.faces.verifiers.base import CosineVerifier, Verifier
from replications.layers.faces.verifiers.chi2 import WeightedChi2
from replications.layers.faces.verifiers.joint_bayesian import PCAJointBayesian
from replications.layers.faces.verifiers.network import NetworkVerifier
from replications.layers.faces.verifiers.pca import PCA

__all__ = ["PCA", "CosineVerifier", "NetworkVerifier", "PCAJointBayesian", "Verifier", "WeightedChi2"]
