"""Training steps beside other implementations of the same methods: ``python -m benchmarks.long_sequences``.

Each pair has the same width, depth, heads, vocabulary, length and device, and takes turns; told are the least
milliseconds of a step (forward and backward, one sequence) of each and their quotient, above 1 where ours is faster.

The peers are an optional extra: ``pip install .[peers]``. What is not installed is left out, and said so.
"""

import argparse
import importlib
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from replications.papers.flash.model import build_flash
from replications.papers.linear_attention.model import build as build_linear
from replications.papers.transformer.model import build as build_transformer
from replications.training.determinism import set_threads

WIDTH, DEPTH, HEADS, KEY_SIZE, VOCABULARY = 128, 2, 4, 64, 256
LENGTHS = (1024, 4096, 16384)
TURNS = 3

Step = Callable[[Tensor], Tensor]  # tokens [1, n + 1] to a loss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lengths", type=int, nargs="+", default=LENGTHS)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    set_threads(arguments.threads)
    device = torch.device(arguments.device)
    print(f"{'peer':30} {'length':>7} {'ours ms':>9} {'peer ms':>9} {'quotient':>9} {'ours':>8} {'peer':>8} parameters")
    for name, make in PEERS.items():
        for length in arguments.lengths:
            try:
                ours, peer = (module.to(device) for module in make(length))
            except ImportError as error:
                print(f"{name:30} not installed ({error.name}): pip install .[peers]")
                break
            tokens = torch.randint(VOCABULARY, (1, length + 1), device=device)
            taken = {"ours": [], "peer": []}
            for _ in range(TURNS + 1):
                taken["ours"].append(timed(ours, lambda x, m=ours: own_loss(m, x), tokens))
                taken["peer"].append(timed(peer, lambda x, m=peer: peer_loss(m, x), tokens))
            best = {side: 1e3 * min(values[1:]) for side, values in taken.items()}
            size = [sum(p.numel() for p in module.parameters()) for module in (ours, peer)]
            print(
                f"{name:30} {length:7} {best['ours']:9.1f} {best['peer']:9.1f} {best['peer'] / best['ours']:9.2f} "
                f"{size[0]:8} {size[1]:8}",
                flush=True,
            )


def own_loss(module: nn.Module, tokens: Tensor) -> Tensor:
    return module({"tokens": tokens[:, :-1], "target": tokens[:, 1:]})["loss"]


def peer_loss(module: nn.Module, tokens: Tensor) -> Tensor:
    logits = module(tokens[:, :-1])
    logits = getattr(logits, "logits", logits)
    return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def timed(module: nn.Module, loss: Step, tokens: Tensor) -> float:
    module.zero_grad(set_to_none=True)
    synchronise(tokens.device)
    started = time.perf_counter()
    loss(tokens).backward()
    synchronise(tokens.device)
    return time.perf_counter() - started


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def linear_attention_transformer(length: int) -> tuple[nn.Module, nn.Module]:
    peer = importlib.import_module("linear_attention_transformer")
    ours = build_linear(VOCABULARY, length, True, None, width=WIDTH, depth=DEPTH, heads=HEADS, features="efficient")
    return ours, peer.LinearAttentionTransformerLM(
        num_tokens=VOCABULARY, dim=WIDTH, heads=HEADS, depth=DEPTH, max_seq_len=length, causal=True
    )


def flash_pytorch(length: int) -> tuple[nn.Module, nn.Module]:
    peer = importlib.import_module("flash_pytorch")
    ours = build_flash(VOCABULARY, True, None, width=WIDTH, depth=DEPTH, key_size=KEY_SIZE)
    return ours, peer.FLASHTransformer(
        num_tokens=VOCABULARY, dim=WIDTH, depth=2 * DEPTH, causal=True, query_key_dim=KEY_SIZE, shift_tokens=False
    )


def gpt2(length: int) -> tuple[nn.Module, nn.Module]:
    peer = importlib.import_module("transformers")
    config = peer.GPT2Config(
        vocab_size=VOCABULARY, n_positions=length, n_embd=WIDTH, n_layer=DEPTH, n_head=HEADS,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, use_cache=False, attn_implementation="sdpa",
    )  # fmt: skip
    return build_transformer(VOCABULARY, True, None, width=WIDTH, depth=DEPTH, heads=HEADS), peer.GPT2LMHeadModel(
        config
    )


PEERS = {
    "linear-attention-transformer": linear_attention_transformer,
    "FLASH-pytorch": flash_pytorch,
    "transformers GPT-2": gpt2,
}

if __name__ == "__main__":
    main()
