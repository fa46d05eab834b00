"""Face verification on Labeled Faces in the Wild, View 2: are two images of the same person?"""

VERIFIER_NAMES = ("cosine", "joint_bayesian", "network", "weighted_chi2")
