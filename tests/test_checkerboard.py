"""Up-sampling layers: the pattern of two pixels against stripes, phases against small convolutions."""

import pytest
import torch

from replications.errors import UserError
from replications.papers.checkerboard import model


def test_the_share_counts_patterns_of_two_pixels():
    row = torch.arange(16.0)
    stripes, board = (row % 2).expand(16, 16), (row[:, None] + row) % 2
    slow = torch.sin(row * torch.pi / 4).expand(16, 16)
    assert model.nyquist_share(stripes[None]) == pytest.approx(1) == pytest.approx(model.nyquist_share(board[None]))
    assert model.nyquist_share(slow[None]) == pytest.approx(0, abs=1e-9)
    # 3 + stripes of amplitude 1/2 (energy 1/4) and a sine (energy 1/2): a third.
    assert model.nyquist_share((3 + stripes + slow)[None]) == pytest.approx(1 / 3, rel=1e-5)
    torch.manual_seed(0)
    assert model.nyquist_share(torch.randn(2000, 16, 16)) == pytest.approx(3 / 255, rel=0.05)


@pytest.mark.parametrize(
    ("kind", "kernel"), [("transposed", k) for k in (2, 3, 4, 5)] + [("nearest", 3), ("bilinear", 5)]
)
def test_layers_double_the_sides_and_repeat(kind, kernel):
    torch.manual_seed(0)
    assert model.layer_of(kind, kernel)(torch.randn(2, 32, 8, 8)).shape == (2, 1, 16, 16)
    row = model.build(2, kind=kind, kernel=kernel)
    assert abs(row.found - row.stated).max() < 1e-12
    steps = abs(row.found[:, 0, 0] - row.found[:, 0, 1])
    assert (steps > 1e-3).all() if kind == "transposed" else (steps < 1e-12).all()


@pytest.mark.parametrize(("kernel", "taps"), [(2, (1, 1)), (3, (1, 2)), (4, (2, 2)), (5, (2, 3))])
def test_uneven_overlap_is_that_of_the_taps_of_each_phase(kernel, taps):
    """Along an axis a pixel gets that many taps of the kernel, by its phase."""
    values = torch.tensor([a * b for a in taps for b in taps], dtype=torch.float64)
    found = model.build(1, kind="transposed", kernel=kernel).metrics["even_spread"]
    assert found == pytest.approx((values.std(correction=0) / values.mean()).item())


def test_kinds_that_are_none_are_refused():
    for kind, kernel in (("nearest", 4), ("cubic", 3)):
        with pytest.raises(UserError, match=f"'{kind}' with kernel {kernel}: give transposed"):
            model.build(1, kind=kind, kernel=kernel)
