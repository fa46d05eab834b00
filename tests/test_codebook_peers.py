"""The codebook of averages beside vector-quantize-pytorch's, from one codebook and on the same vectors."""

import pytest
import torch

pytest.importorskip("vector_quantize_pytorch", reason="an optional extra: pip install .[peers]")


def test_codes_vectors_loss_and_averages_are_theirs_over_steps():
    from benchmarks.codebook import pair

    torch.manual_seed(0)
    ours, theirs = pair(codes=16, width=4)
    for step in range(5):
        vectors = torch.randn(1, 200, 4, requires_grad=True)
        other = vectors.detach().clone().requires_grad_()
        coded = ours(vectors)
        chosen, codes, loss = theirs(other)
        assert torch.equal(coded.codes, codes), step
        assert torch.allclose(coded.vectors, chosen, atol=1e-4)
        assert coded.loss.item() == pytest.approx(loss.sum().item(), rel=1e-4)
        (coded.loss + coded.vectors.sum()).backward()
        (loss.sum() + chosen.sum()).backward()
        assert torch.allclose(vectors.grad, other.grad, atol=1e-5)
        assert torch.allclose(ours.counts, theirs._codebook.cluster_size[0], atol=1e-4)
        assert torch.allclose(ours.sums, theirs._codebook.embed_avg[0], atol=1e-4)
