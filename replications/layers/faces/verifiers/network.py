"""DeepID's neural-network verifier (Sun, Wang, Tang, CVPR 2014, Sec. 3.4)."""

import numpy as np
import torch
from torch import Tensor, nn

from replications.layers.faces.pairs import draw_pairs
from replications.spec import Recipe
from replications.training.optim import (
    create_optimizer,
    learning_rate_factor,
    set_learning_rate,
    step_optimizer,
)

SCORE_CHUNK = 1024


class PairNetwork(nn.Module):
    """Groups of features of both images, locally connected to their own hidden units; then one full layer; a
    logit.

    With DeepID's 60 patches: 60 groups of 640 inputs (160 features x 2 images x 2 mirrors), 60 x 80 = 4,800
    local ReLU units, 4,800 ReLU units, one output. Dropout on the hidden units only.
    """

    def __init__(self, groups: int, inputs: int, local_units: int, dropout: float):
        super().__init__()
        hidden = groups * local_units
        self.local_weight = nn.Parameter(torch.empty(groups, inputs, local_units))
        self.local_bias = nn.Parameter(torch.zeros(groups, local_units))
        # As for a ReLU layer of `inputs` inputs; kaiming_normal_ would take the groups into its fan.
        nn.init.normal_(self.local_weight, std=(2.0 / inputs) ** 0.5)
        self.full = nn.Linear(hidden, hidden)
        self.output = nn.Linear(hidden, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Return logits ``[batch]`` of pairs of features, each ``[batch, groups, inputs / 2]``."""
        both = torch.cat([a, b], dim=2)
        local = torch.einsum("bgi,gih->bgh", both, self.local_weight) + self.local_bias
        hidden = self.dropout(torch.relu(local).flatten(1))
        hidden = self.dropout(torch.relu(self.full(hidden)))
        return self.output(hidden)[:, 0]


class NetworkVerifier:
    """`PairNetwork`, trained by binary cross-entropy on random pairs of the fitting people, half of them
    matched.

    A feature is `groups` groups side by side (DeepID: a patch's 160 features and its mirror's). It is
    divided by the root mean square over the fitting images. The network is not symmetric: training pairs
    come in random order and the score is the mean logit of both orders. Length of training and optimiser
    (Adam, linear decay) are not in the paper, nor is its pre-training of each group alone done here.
    """

    needs_fit = True

    def __init__(
        self,
        groups: int,
        local_units: int = 80,
        dropout: float = 0.5,
        steps: int = 2000,
        batch_size: int = 128,
        lr: float = 1e-3,
    ):
        self.groups = groups
        self.local_units = local_units
        self.dropout = dropout
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr

    def _grouped(self, features: np.ndarray) -> Tensor:
        tensor = torch.as_tensor(np.asarray(features, np.float32), device=self.device)
        return (tensor / self.scale).unflatten(1, (self.groups, -1))

    def fit(self, features: np.ndarray, identity: np.ndarray, *, seed: int = 0, device: str = "cpu") -> None:
        if features.shape[1] % self.groups:
            raise ValueError(f"{features.shape[1]} features do not divide into {self.groups} groups")
        self.device = torch.device(device)
        self.scale = max(float(np.sqrt(np.mean(np.square(features, dtype=np.float64)))), 1e-12)
        grouped = self._grouped(features)
        pairs, same = draw_pairs(identity, self.steps * self.batch_size, np.random.default_rng(seed))
        pairs = torch.as_tensor(pairs, device=self.device).view(self.steps, self.batch_size, 2)
        target = torch.as_tensor(same, dtype=torch.float32, device=self.device)
        target = target.view(self.steps, self.batch_size)
        forked = [self.device] if self.device.type == "cuda" else []
        # Separate random state: the verifier must neither use nor advance the run's.
        with torch.random.fork_rng(devices=forked), torch.enable_grad():
            torch.manual_seed(seed)
            self.network = PairNetwork(self.groups, 2 * grouped.shape[2], self.local_units, self.dropout)
            self.network.to(self.device).train()
            recipe = Recipe(
                optimizer="adam", lr=self.lr, schedule="linear", steps=self.steps, batch_size=self.batch_size
            )
            optimizer = create_optimizer(self.network, recipe)
            for step in range(self.steps):
                set_learning_rate(optimizer, learning_rate_factor(recipe, step, self.steps))
                logit = self.network(grouped[pairs[step, :, 0]], grouped[pairs[step, :, 1]])
                loss = nn.functional.binary_cross_entropy_with_logits(logit, target[step])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                step_optimizer(optimizer)
        self.network.eval()

    @torch.no_grad()
    def score(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        scores = []
        for start in range(0, len(a), SCORE_CHUNK):
            left, right = (self._grouped(x[start : start + SCORE_CHUNK]) for x in (a, b))
            scores.append((self.network(left, right) + self.network(right, left)) / 2)
        return torch.cat(scores).double().cpu().numpy()
