"""Hough voting in its first form, and learned: finding lines among points of a plane (Sections 1 and 3 of the paper).

``python -m replications.papers.votenet.lines`` compares the two on the same drawings. The classical transform lets each
point vote for every line through it, in an accumulator of angle and offset. The vote net lets each point say, from its
neighbours, where the middle of its segment lies and which way it runs; votes that meet are one segment. Not a row of
the leaderboard: it is here to be read.
"""

import argparse
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from replications.layers.points.neighbours import gather, knn
from replications.layers.points.pooling import maximum
from replications.layers.points.sampling import farthest_point_sample
from replications.layers.points.shared_mlp import SharedMLP

NEIGHBOURS = 16
POINTS, CLUTTER, NOISE = 24, 40, 0.01  # of a segment, of a drawing, and off the line
ANGLES, OFFSETS = 90, 64
FAR = 1.5  # no line lies farther from the middle of a drawing
TOLERANCE = (np.radians(6.0), 0.06)  # of angle and offset, for a line to count as found
REACH = 0.25  # of votes that are one segment


@dataclass(frozen=True)
class Drawing:
    """`points` ``[n, 2]``; `owner` ``[n]``: the segment of each, −1 none; `segments` ``[m, 3]``: middle and angle."""

    points: np.ndarray
    owner: np.ndarray
    segments: np.ndarray


def draw(rng: np.random.Generator) -> Drawing:
    """Two to four segments in the square from −1 to 1, points along them, and points that belong to none."""
    count = int(rng.integers(2, 5))
    middle, angle = rng.uniform(-0.6, 0.6, (count, 2)), rng.uniform(0, np.pi, count)
    along = rng.uniform(-1, 1, (count, POINTS)) * rng.uniform(0.25, 0.45, (count, 1))
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    on_lines = middle[:, None] + along[..., None] * direction[:, None]
    on_lines += NOISE * rng.standard_normal(on_lines.shape)
    points = np.concatenate([on_lines.reshape(-1, 2), rng.uniform(-1, 1, (CLUTTER + (4 - count) * POINTS, 2))])
    owner = np.concatenate([np.repeat(np.arange(count), POINTS), np.full(len(points) - count * POINTS, -1)])
    order = rng.permutation(len(points))
    return Drawing(points[order], owner[order], np.column_stack([middle, angle]))


def lines_of(segments: np.ndarray) -> np.ndarray:
    """Return (angle of the normal, offset) ``[m, 2]`` of segments ``[m, 3]``; the angle lies in 0 to π."""
    normal = segments[:, 2] + np.pi / 2
    offset = segments[:, 0] * np.cos(normal) + segments[:, 1] * np.sin(normal)
    turns = np.floor(normal / np.pi)
    return np.column_stack([normal - turns * np.pi, offset * (-1) ** turns])


def hough_lines(points: np.ndarray, least: int) -> np.ndarray:
    """Return the lines (normal's angle, offset) ``[k, 2]`` by the classical transform (Duda and Hart 1972).

    Peaks of the accumulator with `least` votes or more, best first; a peak takes out what lies within the tolerance.
    """
    angles = (np.arange(ANGLES) + 0.5) * np.pi / ANGLES
    offset = points[:, :1] * np.cos(angles) + points[:, 1:] * np.sin(angles)
    bins = np.clip(((offset + FAR) / (2 * FAR) * OFFSETS).astype(int), 0, OFFSETS - 1)
    accumulator = np.zeros((ANGLES, OFFSETS))
    np.add.at(accumulator, (np.broadcast_to(np.arange(ANGLES), bins.shape), bins), 1)
    cells = np.argwhere(accumulator >= least)
    cells = cells[np.argsort(-accumulator[cells[:, 0], cells[:, 1]], kind="stable")]
    lines = np.column_stack([angles[cells[:, 0]], (cells[:, 1] + 0.5) / OFFSETS * 2 * FAR - FAR])
    kept: list[np.ndarray] = []
    for line in lines:
        if not any(same_line(line, other, factor=2.0) for other in kept):
            kept.append(line)
    return np.array(kept).reshape(-1, 2)


def same_line(a: np.ndarray, b: np.ndarray, factor: float = 1.0) -> bool:
    """Whether two lines agree within `factor` times the tolerance; angle 0 and π are the same, with offsets negated."""
    turned = abs(a[0] - b[0])
    far, sign = (turned, 1) if turned <= np.pi / 2 else (np.pi - turned, -1)
    return far <= factor * TOLERANCE[0] and abs(a[1] - sign * b[1]) <= factor * TOLERANCE[1]


class LineVotes(nn.Module):
    """Each point's vote: an offset to the middle of its segment, its direction (of twice the angle), and whether it has
    one at all; from the points around it by a small PointNet."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.local = SharedMLP(2, (width, width, width))
        self.wide = SharedMLP(width + 2, (width, width))
        self.head = SharedMLP(2 * width, (width, 5), last_plain=True)

    def forward(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return votes ``[b, n, 2]``, directions ``[b, n, 2]`` and logits ``[b, n]`` of points ``[b, n, 2]``."""
        flat = F.pad(points, (0, 1))
        near = knn(flat, flat, NEIGHBOURS)[1]
        around = gather(points, near) - points[:, :, None]
        own = maximum(self.local(around), 2)
        more = maximum(self.wide(torch.cat([gather(own, near), around], -1)), 2)
        said = self.head(torch.cat([own, more], -1))
        return points + said[..., :2], F.normalize(said[..., 2:4], dim=-1), said[..., 4]

    def loss(self, drawings: list[Drawing]) -> Tensor:
        """L1 of votes and directions of points on segments; cross-entropy of whether a point is on one."""
        points = _tensor([d.points for d in drawings])
        segments = _tensor([np.pad(d.segments, ((0, 4 - len(d.segments)), (0, 0))) for d in drawings])
        owner = torch.from_numpy(np.stack([d.owner for d in drawings]))
        votes, direction, logits = self(points)
        own, on = gather(segments, owner.clamp(min=0)), owner >= 0
        wanted = torch.stack([(2 * own[..., 2]).cos(), (2 * own[..., 2]).sin()], -1)
        error = (votes - own[..., :2]).abs().sum(-1) + (direction - wanted).abs().sum(-1)
        return error[on].mean() + F.binary_cross_entropy_with_logits(logits, on.float())

    @torch.no_grad()
    def lines(self, points: np.ndarray, least: int) -> np.ndarray:
        """Return the lines ``[k, 2]``: clusters of at least `least` votes within `REACH`, largest first."""
        votes, direction, logits = self(_tensor([points]))
        on = logits[0] > 0
        if on.sum() < least:
            return np.zeros((0, 2))
        votes, direction = votes[0, on], direction[0, on]
        space = torch.cat([votes, 0.25 * direction], -1)
        first = farthest_point_sample(F.pad(votes, (0, 1))[None], min(16, len(votes)))[0]
        members = torch.cdist(space[first], space) < REACH
        found: list[np.ndarray] = []
        for i in members.sum(1).argsort(descending=True, stable=True).tolist():
            if members[i].sum() < least:
                break
            twice = direction[members[i]].mean(0)
            segment = np.array([[*votes[members[i]].median(0).values, torch.atan2(twice[1], twice[0]) / 2]])
            line = lines_of(segment)[0]
            if not any(same_line(line, other, factor=2.0) for other in found):
                found.append(line)
        return np.array(found).reshape(-1, 2)


def _tensor(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(arrays).astype(np.float32))


def f1(found: list[np.ndarray], drawings: list[Drawing]) -> float:
    """Return the F1 score of lines in %: each true line is found once at most."""
    hits = said = true = 0
    for lines, drawing in zip(found, drawings, strict=True):
        left = list(lines_of(drawing.segments))
        said, true = said + len(lines), true + len(left)
        for line in lines:
            match = next((i for i, other in enumerate(left) if same_line(line, other)), None)
            if match is not None:
                hits += 1
                left.pop(match)
    return 200.0 * hits / max(1, said + true)


def train(steps: int, seed: int = 0, batch: int = 8) -> LineVotes:
    """Train a vote net on freshly drawn lines."""
    torch.manual_seed(seed)
    module, rng = LineVotes(), np.random.default_rng([seed, 0])
    optimizer = torch.optim.Adam(module.parameters(), lr=3e-3)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * (1 - step / steps)
        optimizer.zero_grad()
        module.loss([draw(rng) for _ in range(batch)]).backward()
        optimizer.step()
    return module.eval()


def main() -> None:
    parser = argparse.ArgumentParser(description="Lines: the Hough transform against a vote net.")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--drawings", type=int, default=200, help="of the test; as many choose the thresholds")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    module = train(asked.steps, asked.seed)
    print(f"vote net: {sum(p.numel() for p in module.parameters())} parameters, {time.perf_counter() - started:.0f} s")
    held_out, test = (
        [draw(np.random.default_rng([asked.seed, part, i])) for i in range(asked.drawings)] for part in (1, 2)
    )
    for name, find in (("Hough transform", hough_lines), ("vote net", module.lines)):
        least = max(range(6, 32, 2), key=lambda votes: f1([find(d.points, votes) for d in held_out], held_out))
        started = time.perf_counter()
        score = f1([find(d.points, least) for d in test], test)
        rate = len(test) / (time.perf_counter() - started)
        print(f"{name:16} F1 {score:5.1f} %   at least {least} votes   {rate:.0f} drawings/s")


if __name__ == "__main__":
    main()
