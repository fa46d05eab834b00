"""Sampling as a part of a run: chunks, resuming to the bit, and no trace in the caller's random generators."""

import os
import signal

import pytest
import torch

from replications.errors import RunFailure, UserError
from replications.training.sampling import sample


def drawn(tmp_path, draw, count=10, batch=4, seed=3):
    return sample("digits", count, draw, batch=batch, work=tmp_path, seed=seed, device=torch.device("cpu"))


def noise(n: int) -> torch.Tensor:
    return torch.randn(n, 2)


def test_samples_depend_on_seed_and_chunk_and_leave_the_generators_alone(tmp_path):
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    first = drawn(tmp_path / "a", noise)
    assert torch.equal(torch.rand(1), expected)
    assert first.values.shape == (10, 2) and first.seconds > 0
    assert len({tuple(row.tolist()) for row in first.values}) == 10  # no chunk repeats another's noise
    assert torch.equal(drawn(tmp_path / "b", noise).values, first.values)
    assert not torch.equal(drawn(tmp_path / "c", noise, seed=4).values, first.values)


def test_drawing_stopped_and_continued_ends_with_the_same_bits(tmp_path):
    whole = drawn(tmp_path / "whole", noise)
    sizes = []

    def stopping(n: int) -> torch.Tensor:
        sizes.append(n)
        if len(sizes) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return noise(n)

    with pytest.raises(RunFailure, match="8 of 10 samples"):
        drawn(tmp_path / "parts", stopping)
    continued = drawn(tmp_path / "parts", stopping)
    assert sizes == [4, 4, 2] and torch.equal(continued.values, whole.values)
    assert continued.seconds > 0
    assert torch.equal(drawn(tmp_path / "parts", stopping).values, whole.values) and len(sizes) == 3  # loaded


def test_a_checkpoint_of_other_samples_is_refused(tmp_path):
    drawn(tmp_path, noise)
    with pytest.raises(UserError, match="of other samples"):
        drawn(tmp_path, noise, count=12)
