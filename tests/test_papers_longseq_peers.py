"""The gated attention unit beside FLASH-pytorch on the same weights, where the two define the same function."""

import pytest
import torch
from torch import nn

from replications.papers.flash.gau import QuadraticUnit
from replications.papers.flash.mixed import MixedChunkUnit

peer = pytest.importorskip("flash_pytorch", reason="an optional extra: pip install .[peers]")
WIDTH, KEYS, CHUNK = 16, 8, 4


class Unturned(nn.Module):
    """In place of rotary positions, which the peer's unit has not."""

    def forward(self, x, start=0):
        return x


def share_weights(ours, theirs, scales):
    """Copy our projections and heads to the peer; its biases, and both relative biases, become zero."""
    ours.rotary = Unturned()
    with torch.no_grad():
        gate, value, keys = ours.into.weight.split([ours.hidden, ours.hidden, ours.key_size])
        theirs.to_hidden[0].weight.copy_(torch.cat([value, gate]))
        theirs.to_qk[0].weight.copy_(keys)
        out = theirs.to_out[0] if isinstance(theirs.to_out, nn.Sequential) else theirs.to_out
        out.weight.copy_(ours.out.weight)
        for linear in (theirs.to_hidden[0], theirs.to_qk[0], out):
            linear.bias.zero_()
        theirs.rel_pos_bias.relative_attention_bias.weight.zero_()
        ours.bias.vectors.zero_()
        ours.heads.gamma.normal_()
        ours.heads.beta.normal_()
        scales.gamma.copy_(ours.heads.gamma)
        scales.beta.copy_(ours.heads.beta)


@pytest.mark.parametrize("causal", [True, False])
def test_gated_attention_unit(causal):
    torch.manual_seed(0)
    ours = QuadraticUnit(WIDTH, KEYS, 2, causal, 9, "relu2", "length").double()
    theirs = peer.GAU(dim=WIDTH, query_key_dim=KEYS, causal=causal, add_residual=False).double()
    share_weights(ours, theirs, theirs.offsetscale)
    x = torch.randn(2, 9, WIDTH).double()
    torch.testing.assert_close(ours(theirs.norm(x)), theirs(x))


def test_mixed_chunks_but_for_the_divisor_of_the_causal_sum():
    torch.manual_seed(0)
    ours = MixedChunkUnit(WIDTH, KEYS, 2, True, CHUNK, "both").double()
    theirs = peer.FLASH(dim=WIDTH, group_size=CHUNK, query_key_dim=KEYS, causal=True).double()
    share_weights(ours, theirs, theirs.qk_offset_scale)
    with torch.no_grad():  # its heads come in the order: local query, global query, local key, global key
        for name in ("gamma", "beta"):
            getattr(theirs.qk_offset_scale, name).copy_(getattr(ours.heads, name)[[0, 2, 1, 3]])
    x = torch.randn(2, 3 * CHUNK, WIDTH).double()
    same, found = theirs(x) - x, ours(theirs.norm(x))
    # the peer divides the sum over the chunks before by one chunk, so its second chunk alone agrees with a mean
    torch.testing.assert_close(found[:, : 2 * CHUNK], same[:, : 2 * CHUNK])
    assert (found[:, 2 * CHUNK :] - same[:, 2 * CHUNK :]).abs().max() > 1e-6
