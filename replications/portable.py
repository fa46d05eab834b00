"""One path through the kernels that every x86-64 processor with AVX2 has, so that numbers agree between machines.

Numerical libraries choose their kernels by the processor, and kernels round differently. In portable mode torch,
MKL, oneDNN, OpenBLAS and numpy are held to what every x86-64 processor with AVX2 can run. docs/portable.md says what
that promises and what it costs.
"""

import os
import sys

from replications.errors import UserError

ENVIRONMENT = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_CBWR": "COMPATIBLE",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512_ICL AVX512_SPR",
}


def hold() -> None:
    """Hold this process, and the ones it starts, to the portable kernels.

    The libraries read their settings once, so torch and numpy must not be imported yet: raises RuntimeError where they
    are.
    """
    early = [name for name in ("numpy", "torch") if name in sys.modules]
    if early and not is_held():
        raise RuntimeError(f"{' and '.join(early)} imported before portable.hold()")
    os.environ.update(ENVIRONMENT)


def is_held() -> bool:
    """Whether this process has the settings."""
    return all(os.environ.get(name) == value for name, value in ENVIRONMENT.items())


def check(asked: bool) -> None:
    """Raise UserError where a run that was asked to be portable is started without the settings."""
    if asked and not is_held():
        settings = " ".join(f"{name}={value!r}" for name, value in ENVIRONMENT.items())
        raise UserError(f"a portable run needs these in the environment before Python starts: {settings}")
