"""Floating-point operations of a model, counted while it runs; one multiply-add is two.

Counted: matrix products in all their forms (linear, einsum, bmm), convolutions (grouped, transposed), attention by
torch's fused kernels, pairwise distances, and all of these in the backward pass. Not counted: everything that works
element by element (activations, normalisation, softmax, pooling, interpolation, the optimiser), gathering and sorting,
Fourier transforms, and the kernels in `UNCOUNTED`, of which `count_flops` names those it met. A causal mask halves
nothing: attention counts as if every query saw every key. Padding counts as if it were data.
"""

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import conv_flop_count, flop_registry, sdpa_flop_count

aten = torch.ops.aten
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd

# Parts of names of kernels that do much arithmetic and have no formula here or in torch, and exceptions that do little.
# A foreign extension's kernel always counts as uncounted.
UNCOUNTED = ("rnn", "fft", "linalg", "trilinear", "solve", "_int_mm", "_grouped_mm", "_cdist_backward", "grid_sampler")
LIGHT = ("linalg_vector_norm", "linalg_cross", "_linalg_check_errors")
OWN_NAMESPACES = ("aten", "prim", "prims")


@dataclass(frozen=True)
class FlopCount:
    """FLOPs of a block, in all and by operation; `uncounted` names the heavy kernels it met and could not count."""

    total: int
    by_operation: dict[str, int]
    uncounted: tuple[str, ...]


def count_flops(block: Callable[[], object]) -> FlopCount:
    """Run `block` once and count what it does, backward passes included.

    Compiled modules run uncompiled and torch's fused transformer layers run as separate operations meanwhile, since
    neither can be looked into.
    """
    counter = _FlopCounter()
    with _uncompiled(), _separate_attention(), counter:
        block()
    return FlopCount(counter.flops.total(), dict(counter.flops), tuple(sorted(counter.uncounted)))


def forward_flops(forward: Callable[[], object], samples: int = 1) -> float:
    """Return the FLOPs per sample of one call of `forward` on `samples` samples, without gradients."""
    with torch.no_grad():
        return count_flops(forward).total / samples


class _FlopCounter(TorchDispatchMode):
    """Sees every operation that reaches a kernel.

    In place of torch's FlopCounterMode, which imports the compiler (3 s and 100 MB at a run's end), tracks modules that
    nobody asks for, and silently skips what it does not know.
    """

    def __init__(self):
        super().__init__()
        self.flops: Counter[str] = Counter()
        self.uncounted: set[str] = set()

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # it would import the compiler to shield the method below from it

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is None and torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), COMPOSITE):
            # An operation made of others arrives whole in inference mode: count those. (``func.decompose`` would do,
            # but prefers a second implementation in Python, whose import takes seconds.)
            with self:
                return func._op_dk(COMPOSITE, *args, **kwargs)
        result = func(*args, **kwargs)
        name = func.name().partition(".")[0]
        namespace, _, operation = name.partition("::")
        if formula is not None:
            self.flops[name] += int(formula(*args, **kwargs, out_val=result))
        elif operation not in LIGHT and (namespace not in OWN_NAMESPACES or any(p in operation for p in UNCOUNTED)):
            self.uncounted.add(name)
        return result


def _uncompiled() -> contextlib.AbstractContextManager:
    # Importing the compiler takes seconds; where nobody has, nothing is compiled.
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


@contextlib.contextmanager
def _separate_attention() -> Iterator[None]:
    enabled = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(enabled)


def _matrix_vector(matrix: Tensor, _vector: Tensor, **_) -> int:
    return 2 * matrix.numel()


def _add_matrix_vector(_bias: Tensor, matrix: Tensor, _vector: Tensor, **_) -> int:
    return 2 * matrix.numel()


def _dot(left: Tensor, _right: Tensor, **_) -> int:
    return 2 * left.numel()


def _linear_activation(_bias: Tensor, left: Tensor, right: Tensor, **_) -> int:
    return 2 * left.numel() * right.shape[-1]


def _distances(left: Tensor, right: Tensor, *_, **__) -> int:
    """All pairs of ``[..., n, d]`` and ``[..., m, d]``: the product at the heart of the squared distance."""
    return 2 * left.numel() * right.shape[-2]


def _attention(query: Tensor, key: Tensor, value: Tensor, *_, **__) -> int:
    return sdpa_flop_count(query.shape, key.shape, value.shape)


def _attention_backward(_gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *_, **__) -> int:
    """Twice the forward pass, as without a fused kernel: what the model asks for.

    torch's own formula adds the scores that a fused kernel computes again, so one model would count differently with
    each kernel.
    """
    return 2 * _attention(query, key, value)


def _convolution_backward(
    gradient, image, weight, _bias, _stride, _padding, _dilation, transposed, _output_padding, _groups, mask, **_
) -> int:
    """Each of the two gradients costs what the forward pass does.

    torch's own formula counts the weight's gradient once for every group of a grouped convolution.
    """
    return conv_flop_count(image.shape, weight.shape, gradient.shape, transposed) * (mask[0] + mask[1])


_FORMULAS: dict[object, Callable[..., int]] = {
    **flop_registry,
    aten.mv: _matrix_vector,
    aten.addmv: _add_matrix_vector,
    aten.dot: _dot,
    aten._addmm_activation: _linear_activation,
    aten._euclidean_dist: _distances,
    aten._cdist_forward: _distances,
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten._scaled_dot_product_flash_attention_backward: _attention_backward,
    aten._scaled_dot_product_efficient_attention_backward: _attention_backward,
    aten._scaled_dot_product_cudnn_attention_backward: _attention_backward,
    aten.convolution_backward: _convolution_backward,
}
