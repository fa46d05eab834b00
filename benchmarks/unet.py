"""The U-Net beside diffusers' UNet2DModel: the same outputs on copied weights, and the time of a training step.

    python -m benchmarks.unet [--threads 1] [--repeat 7] [--batch 64]

Needs the extra ``peers``. Both have equal parameters and see the same images of 16x16 and times. The step is the
forward pass, the squared error and the backward pass. Times are CPU seconds of the process, the least of the
repetitions, each in turns; the last column is a ratio of one run.
"""

import argparse
import re
import time
from functools import partial
from math import gcd

import torch
from diffusers import UNet2DModel
from torch import Tensor, nn

from replications.layers.generation.unet import ATTENDED, UNet, sines

SIDE = 16
SIZES = ((16, (1, 2, 2), 1), (32, (1, 2, 2), 1), (32, (1, 2, 2), 2))  # channels, multipliers, blocks of a level
NAMES = {  # theirs -> ours
    r"^conv_in": "enter",
    r"^time_embedding\.linear_(\d)": lambda found: f"time.{2 * int(found[1]) - 2}",
    r"^conv_norm_out": "leave.0",
    r"^conv_out": "leave.2",
    r"\.(norm|conv)(\d)\.": r".\1_\2.",
    r"time_emb_proj": "time",
    r"conv_shortcut": "around",
    r"group_norm": "norm",
    r"to_out\.0": "out",
    r"to_([qkv])\.": lambda found: f"parts.{'qkv'.index(found[1])}.",
}


def pair(channels: int, multipliers: tuple[int, ...], blocks: int) -> tuple[UNet, UNet2DModel]:
    """Return ours and theirs with the same weights; all are drawn, those that would start at 0 too."""
    kinds = ["AttnDownBlock2D" if level == ATTENDED else "DownBlock2D" for level in range(len(multipliers))]
    theirs = UNet2DModel(
        sample_size=SIDE,
        in_channels=1,
        out_channels=1,
        block_out_channels=[channels * factor for factor in multipliers],
        layers_per_block=blocks,
        down_block_types=kinds,
        up_block_types=[kind.replace("Down", "Up") for kind in reversed(kinds)],
        norm_num_groups=gcd(32, channels // 4),
        norm_eps=1e-6,
        attention_head_dim=None,  # one head
        downsample_padding=0,  # below and to the right
        flip_sin_to_cos=False,
        freq_shift=1,
    )
    ours = UNet(channels, multipliers, blocks)
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.1)
    ours.load_state_dict({renamed(name, len(multipliers), blocks): w for name, w in theirs.state_dict().items()})
    return ours, theirs


def renamed(name: str, levels: int, blocks: int) -> str:
    """Return our name of a weight of theirs, whose blocks and attentions are counted by level."""
    place = re.match(r"(down|up)_blocks\.(\d)\.(resnets|attentions|downsamplers|upsamplers)\.(\d)\.(conv\.)?", name)
    if place:
        way, level, kind, number = place[1], int(place[2]), place[3], int(place[4])
        count = blocks if way == "down" else blocks + 1
        part = level * (count + 1) + (count if kind.endswith("samplers") else number)
        inner = {"attentions": "attention.", "resnets": ""}.get(kind, "conv.")
        name = f"{way}.{part}.{inner}{name[place.end() :]}"
    name = re.sub(r"^mid_block\.resnets\.(\d)", r"middle.\1", name)
    name = re.sub(r"^mid_block\.attentions\.0", "middle.0.attention", name)
    for theirs, ours in NAMES.items():
        name = re.sub(theirs, ours, name)
    return name


def step_of_ours(net: UNet, x: Tensor, index: Tensor, table: Tensor) -> Tensor:
    out = net(x, table[index])
    out.square().mean().backward()
    return out


def step_of_theirs(net: UNet2DModel, x: Tensor, index: Tensor) -> Tensor:
    out = net(x, index).sample
    out.square().mean().backward()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=7)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(
        f"{'channels':>8} {'levels':>10} {'blocks':>6} {'parameters':>10} {'ours ms':>8} {'theirs ms':>9} theirs / ours"
    )
    for channels, multipliers, blocks in SIZES:
        torch.manual_seed(0)
        ours, theirs = pair(channels, multipliers, blocks)
        count = sum(parameter.numel() for parameter in ours.parameters())
        assert count == sum(parameter.numel() for parameter in theirs.parameters())
        x, index = torch.randn(arguments.batch, 1, SIDE, SIDE), torch.randint(0, 1000, (arguments.batch,))
        steps = {
            "ours": partial(step_of_ours, ours, x, index, sines(torch.arange(1000), channels)),
            "theirs": partial(step_of_theirs, theirs, x, index),
        }
        times = {name: [] for name in steps}
        for _ in range(arguments.repeat + 1):  # the first warms up
            for name, step in steps.items():
                started = time.process_time()
                step()
                times[name].append(time.process_time() - started)
        mine, other = (1000 * min(found[1:]) for found in times.values())
        levels = ",".join(map(str, multipliers))
        print(f"{channels:>8} {levels:>6} {blocks:>6} {count:>10,} {mine:>8.1f} {other:>9.1f} {other / mine:>13.2f}")


if __name__ == "__main__":
    main()
