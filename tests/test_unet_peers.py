"""The U-Net beside diffusers' UNet2DModel: outputs and gradients on copied weights."""

import pytest
import torch

pytest.importorskip("diffusers", reason="an optional extra: pip install .[peers]")


@pytest.mark.parametrize(("multipliers", "blocks"), [((1, 2, 2), 1), ((1, 2), 2)])
def test_outputs_and_gradients_are_theirs_on_copied_weights(multipliers, blocks):
    from benchmarks.unet import pair, renamed, step_of_ours, step_of_theirs
    from replications.layers.generation.unet import sines

    torch.manual_seed(0)
    ours, theirs = (net.double() for net in pair(8, multipliers, blocks))
    x, index = torch.randn(3, 1, 16, 16, dtype=torch.float64), torch.tensor([0, 7, 999])
    theirs.time_proj.forward = lambda times: sines(times, 8).double()  # theirs are computed in float32
    out = step_of_ours(ours, x, index, sines(torch.arange(1000), 8).double())
    torch.testing.assert_close(out, step_of_theirs(theirs, x, index))
    assert out.abs().mean() > 0.01
    gradients = {name: parameter.grad for name, parameter in ours.named_parameters()}
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(gradients.pop(renamed(name, len(multipliers), blocks)), parameter.grad)
    assert not gradients


def test_sines_of_time_are_theirs():
    from diffusers.models.embeddings import get_timestep_embedding

    from replications.layers.generation.unet import sines

    times = torch.arange(0, 1000, 37)
    theirs = get_timestep_embedding(times, 32, flip_sin_to_cos=False, downscale_freq_shift=1)
    torch.testing.assert_close(sines(times, 32), theirs, atol=1e-4, rtol=0)
