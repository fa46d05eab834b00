"""What a method of 3-D detection offers: losses of a batch, and boxes with scores of points.

A batch has ``points`` float32 ``[b, n, 3]``, ``floor`` ``[b]`` (z of the floor), ``inside`` ``[b, n, k]`` (objects
that each point belongs to, −1 none), ``boxes`` float32 ``[b, m, 7]`` and ``label`` int64 ``[b, m]`` (−1: no object).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from replications.layers.points.neighbours import gather
from replications.layers.points.shared_mlp import he_normal_
from replications.layers.rooms.backbone import Backbone, Seeds
from replications.layers.rooms.coding import BoxCoding
from replications.layers.rooms.losses import Assignment, Targets, proposal_losses, total_loss
from replications.layers.rooms.proposal import ProposalModule, Proposals, Sampling
from replications.training.stage import Batch

BN_START, BN_HALVINGS = 0.5, 9  # the authors halve it every 20 of 180 epochs


@dataclass(frozen=True)
class Votes:
    """Where the seeds point: `points` ``[b, s, 3]``, `features` ``[b, s, c]``; without votes, the seeds themselves."""

    points: Tensor
    features: Tensor


@dataclass(frozen=True)
class Predictions:
    """`boxes` ``[b, p, 7]``, `objectness` ``[b, p]`` and `classes` ``[b, p, c]`` as probabilities, `seeds`, `votes`."""

    boxes: Tensor
    objectness: Tensor
    classes: Tensor
    seeds: Tensor
    votes: Tensor
    seed_index: Tensor


class Detector(nn.Module):
    """Backbone, votes, proposals. A method says how seeds vote (`vote`) and which proposals are positive (`assign`).

    Shared networks of backbone and clusters start from He-normal weights, heads as torch makes them: the authors' code.
    """

    training_sampling: Sampling = "votes"

    def __init__(self, backbone: Backbone, proposal: ProposalModule, bn_momentum_floor: float = 0.001):
        super().__init__()
        self.backbone, self.proposal, self.bn_momentum_floor = backbone, proposal, bn_momentum_floor
        he_normal_(self)

    @property
    def coding(self) -> BoxCoding:
        return self.proposal.coding

    def vote(self, seeds: Seeds) -> Votes:
        raise NotImplementedError

    def assign(self, proposals: Proposals, inside: Tensor, targets: Targets) -> Assignment:
        """`inside` ``[b, s, k]`` are the objects of the seeds."""
        raise NotImplementedError

    def vote_loss(self, votes: Votes, inside: Tensor, targets: Targets) -> Tensor | None:
        """Return the loss of the votes; None where a method has none."""
        return None

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch; ``loss`` is their weighted sum."""
        targets = Targets(batch["boxes"], batch["label"].long())
        seeds = self.backbone(batch["points"], batch["floor"])
        votes = self.vote(seeds)
        proposals = self.proposal(votes.points, votes.features, self.training_sampling)
        inside = gather(batch["inside"], seeds.index).long()
        parts = proposal_losses(proposals.outputs, self.assign(proposals, inside, targets), targets, self.coding)
        vote = self.vote_loss(votes, inside, targets)
        if vote is not None:
            parts["vote"] = vote
        weighed = (parts["objectness"], parts["box"], parts["semantic"])
        return {"loss": total_loss(*weighed, vote=0.0 if vote is None else vote), **parts}

    @torch.no_grad()
    def predict(
        self, points: Tensor, floor: Tensor, sampling: Sampling = "seeds", proposals: int | None = None
    ) -> Predictions:
        """Return the proposals of `points` ``[b, n, 3]``: as many as were trained, or as many as are asked for."""
        return self.propose(*self.look(points, floor), sampling, proposals)

    @torch.no_grad()
    def look(self, points: Tensor, floor: Tensor) -> tuple[Seeds, Votes]:
        """Return seeds and votes, which do not depend on how proposals are sampled."""
        seeds = self.backbone(points, floor)
        return seeds, self.vote(seeds)

    @torch.no_grad()
    def propose(self, seeds: Seeds, votes: Votes, sampling: Sampling, proposals: int | None = None) -> Predictions:
        """Return the proposals from seeds and votes."""
        found = self.proposal(votes.points, votes.features, sampling, proposals)
        return Predictions(
            self.coding.decode(found.outputs),
            found.outputs.objectness.softmax(-1)[..., 1],
            found.outputs.semantic.softmax(-1),
            seeds.points,
            votes.points,
            seeds.index,
        )

    def on_step(self, step: int, total_steps: int) -> None:
        """Set the momentum of all batch norms: from 0.5, halved nine times over the training, never below the floor."""
        halvings = BN_HALVINGS * step // total_steps
        momentum = max(BN_START * 0.5**halvings, self.bn_momentum_floor)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.momentum = momentum
