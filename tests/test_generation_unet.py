"""The U-Net of image diffusion: shapes, naive forms of its parts, its start, gradients, and what is refused."""

import math

import pytest
import torch

from replications.errors import UserError
from replications.layers.generation.unet import Attention, Block, Doubling, Halving, UNet, sines
from replications.papers.diffusion_images import model as diffusion


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def drawn(module):
    """Draw all weights: some start at 0."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return module


def unet(shape=(8, 16), **options):
    return diffusion.build(shape, 40, [5], 8, 2, 8, network="unet", **options)


def test_sines_by_a_loop():
    found = sines(torch.tensor([0.0, 3.0, 990.0]), 8)
    for row, time in zip(found.tolist(), (0, 3, 990), strict=True):
        angles = [time / 10000 ** (i / 3) for i in range(4)]
        assert row == pytest.approx([math.sin(a) for a in angles] + [math.cos(a) for a in angles], abs=1e-5)


def test_times_of_a_short_chain_reach_as_far_as_the_papers():
    denoiser = unet().denoiser
    torch.testing.assert_close(denoiser.time, sines(torch.arange(0, 1000, 25), 8))


def test_attention_by_loops():
    attention, x = drawn(Attention(4, 2)).double(), torch.randn(2, 4, 2, 3, dtype=torch.float64)
    grouped = x.reshape(2, 2, 12)
    normal = (grouped - grouped.mean(2, keepdim=True)) / (grouped.var(2, correction=0, keepdim=True) + 1e-6).sqrt()
    normal = normal.reshape(2, 4, 6) * attention.norm.weight[:, None] + attention.norm.bias[:, None]
    query, key, value = (
        torch.einsum("oc,bcn->bon", part.weight, normal) + part.bias[:, None] for part in attention.parts
    )
    expected = x.clone()
    for image in range(2):
        for place in range(6):
            scores = torch.stack([query[image, :, place] @ key[image, :, other] for other in range(6)]) / 2
            mixed = (value[image] * scores.softmax(0)).sum(1)
            out = attention.out.weight @ mixed + attention.out.bias
            expected[image, :, place // 3, place % 3] += out
    torch.testing.assert_close(attention(x), expected)


def test_a_block_adds_the_time_to_every_place_between_its_convolutions():
    block = drawn(Block(4, 6, 5, 2))
    x, time = torch.randn(3, 4, 5, 7), torch.randn(3, 5)
    hidden = block.conv_1(torch.nn.functional.silu(block.norm_1(x)))
    for image in range(3):
        hidden[image] += (block.time.weight @ time[image] + block.time.bias)[:, None, None]
    expected = block.around(x) + block.conv_2(torch.nn.functional.silu(block.norm_2(hidden)))
    torch.testing.assert_close(block(x, time), expected)


def test_halving_sees_below_and_to_the_right_and_doubling_repeats():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    halving, doubling = Halving(1), Doubling(1)
    for conv, place in ((halving.conv, (2, 2)), (doubling.conv, (1, 1))):
        torch.nn.init.zeros_(conv.weight)
        conv.weight.data[0, 0, *place] = 1
    assert halving(x, None).flatten().tolist() == [10, 0, 0, 0]
    assert torch.equal(doubling(x, None), x.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_blocks_begin_as_their_way_around_and_the_network_as_zero():
    x, time = torch.randn(2, 8, 4, 4), torch.randn(2, 5)
    assert torch.equal(Block(8, 8, 5, 2, attends=True)(x, time), x)
    net = UNet(8, (1, 2, 2), 1)
    assert not net(torch.randn(2, 1, 8, 8), sines(torch.arange(2), 8)).any()
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Linear) and module.weight.any():
            inputs, outputs = (module.weight[0].numel(), module.weight[:, 0].numel())
            assert module.weight.abs().max() <= math.sqrt(6 / (inputs + outputs)) and not module.bias.any()


def test_every_level_has_its_side_and_attention_is_at_the_second():
    net, seen = UNet(8, (1, 2, 4), 2), {}
    for part in [*net.down, *net.middle, *net.up]:
        part.register_forward_hook(lambda module, inputs, out: seen.update({module: tuple(out.shape[1:])}))
    assert net(torch.randn(2, 1, 16, 8), sines(torch.arange(2), 8)).shape == (2, 1, 16, 8)
    down = [(8, 16, 8), (8, 16, 8), (8, 8, 4), (16, 8, 4), (16, 8, 4), (16, 4, 2), (32, 4, 2), (32, 4, 2)]
    up = [*[(32, 4, 2)] * 3, (32, 8, 4), *[(16, 8, 4)] * 3, (16, 16, 8), *[(8, 16, 8)] * 3]
    assert list(seen.values()) == [*down, *[(32, 4, 2)] * 2, *up]
    attending = [seen[part] for part in seen if isinstance(getattr(part, "attention", None), Attention)]
    assert attending == [(16, 8, 4)] * 2 + [(32, 4, 2)] + [(16, 8, 4)] * 3


@pytest.mark.parametrize("prediction", ["noise", "data"])
def test_gradients_reach_all_parameters(prediction):
    found = unet(prediction=prediction)
    drawn(found.denoiser.net)
    found({"image": torch.randn(6, 128)})["loss"].backward()
    for name, parameter in found.named_parameters():
        if name.startswith("denoiser.net"):
            assert parameter.grad.abs().max() > 0, name


def test_a_chain_with_a_unet_draws_images_by_every_sampler():
    found = unet(shape=(4, 8), multipliers=(1, 2), blocks=1)
    assert found.sample(3).shape == (3, 32) and found.passes == 40
    assert found.sample(3, "eta0_5").shape == (3, 32) and found.passes == 45


def test_odd_sides_widths_and_names_are_refused_in_a_line():
    with pytest.raises(UserError, match="a network 'u-net': give dense or unet"):
        diffusion.build((8, 8), 40, [5], 8, 2, 8, network="u-net")
    with pytest.raises(UserError, match=r"images of 8 x 10 pixels: a U-Net of 3 levels needs multiples of 4"):
        unet(shape=(8, 10))
    with pytest.raises(UserError, match="a U-Net of 6 channels: give a multiple of 4"):
        diffusion.build((8, 8), 40, [5], 8, 2, 6, network="unet")
