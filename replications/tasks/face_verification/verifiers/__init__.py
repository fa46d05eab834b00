"""Verifiers: how alike two features are, and what is learned for that from held-out identities."""

from replications.tasks.face_verification.verifiers.base import CosineVerifier, Verifier
from replications.tasks.face_verification.verifiers.chi2 import WeightedChi2
from replications.tasks.face_verification.verifiers.joint_bayesian import PCAJointBayesian
from replications.tasks.face_verification.verifiers.network import NetworkVerifier

__all__ = ["CosineVerifier", "NetworkVerifier", "PCAJointBayesian", "Verifier", "WeightedChi2"]
