"""Verifiers: how alike two features are, and what is learned for that from held-out identities."""

from replications.tasks.face_verification.verifiers.base import CosineVerifier, Verifier
from replications.tasks.face_verification.verifiers.chi2 import WeightedChi2
from replications.tasks.face_verification.verifiers.joint_bayesian import PCAJointBayesian
from replications.tasks.face_verification.verifiers.network import NetworkVerifier
from replications.tasks.face_verification.verifiers.pca import PCA

__all__ = ["PCA", "CosineVerifier", "NetworkVerifier", "PCAJointBayesian", "Verifier", "WeightedChi2"]
