"""Edge convolution gives the numbers of torch_geometric's on the same weights, where torch_geometric is installed."""

import pytest
import torch
from naive_points import settled
from torch import nn

from replications.layers.points.graph import EdgeConv, nearest

geometric = pytest.importorskip("torch_geometric.nn", reason="an optional extra: pip install .[peers]")


def test_edge_convolution():
    batch, points, k = 2, 30, 5
    ours = settled(EdgeConv(4, 6)).double()
    theta, phi = ours.weight.weight.chunk(2, dim=1)
    linear, norm = nn.Linear(8, 6, bias=False), nn.BatchNorm1d(6)
    theirs = geometric.EdgeConv(nn.Sequential(linear, norm, nn.LeakyReLU(0.2)), aggr="max").double().eval()
    norm.load_state_dict(ours.norm.state_dict())  # theirs starts its network anew
    with torch.no_grad():
        linear.weight.copy_(torch.cat([phi, theta], 1))  # theirs sees [x_i, x_j - x_i]
    x = torch.randn(batch, points, 4, dtype=torch.float64)
    graph = nearest(x, k)
    source = (graph + points * torch.arange(batch)[:, None, None]).flatten()
    target = torch.arange(batch * points).repeat_interleave(k)
    expected = theirs(x.flatten(0, 1), torch.stack([source, target]))
    torch.testing.assert_close(ours(x, graph).flatten(0, 1), expected)
