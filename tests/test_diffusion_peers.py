"""Chains and samplers give the numbers of diffusers' schedulers, where diffusers is installed."""

import pytest
import torch

from replications.layers.diffusion.chain import Chain, ancestral
from replications.layers.diffusion.implicit import implicit
from replications.layers.diffusion.schedules import spaced_steps
from replications.layers.diffusion.sde import VarianceExploding, _corrected

diffusers = pytest.importorskip("diffusers", reason="an optional extra: pip install .[peers]")
STEPS = 40
BETAS = torch.linspace(0.0025, 0.5, STEPS)


def predicted(x):
    """A network's stand-in: noise that depends on x alone."""
    return torch.tanh(0.8 * x) - 0.1


def denoise_of(chain):
    signal, noise = chain.signal.tolist(), chain.noise.tolist()
    return lambda x, i: (x - noise[i] * predicted(x)) / signal[i]


def start():
    return torch.randn(3, 2, 1, 1, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("kind", "theirs"), [("large", "fixed_large"), ("small", "fixed_small")])
def test_ancestral_sampling(kind, theirs):
    scheduler = diffusers.DDPMScheduler(
        STEPS, trained_betas=BETAS.numpy(), variance_type=theirs, clip_sample=False, prediction_type="epsilon"
    )
    scheduler.set_timesteps(STEPS)
    chain, x = Chain(BETAS), start()
    torch.manual_seed(1)
    found = list(ancestral(chain, denoise_of(chain), x, kind))
    torch.manual_seed(1)
    for place, t in enumerate(scheduler.timesteps):
        x = scheduler.step(predicted(x), t, x).prev_sample
        if t > 0:  # theirs clamps the variance of the last step
            torch.testing.assert_close(found[place + 1], x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize("steps", [8, STEPS])
def test_implicit_sampling(steps, eta):
    scheduler = diffusers.DDIMScheduler(
        STEPS, trained_betas=BETAS.numpy(), clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True
    )
    scheduler.set_timesteps(steps)
    assert scheduler.timesteps.tolist() == spaced_steps(steps, STEPS)[::-1]
    chain, x = Chain(BETAS), start()
    torch.manual_seed(1)
    found = list(implicit(chain, denoise_of(chain), x, steps, eta))
    torch.manual_seed(1)
    for place, t in enumerate(scheduler.timesteps):
        x = scheduler.step(predicted(x), t, x, eta=eta).prev_sample
        if place < steps - 1:  # theirs draws noise in the last step too, where ours ends in the data
            torch.testing.assert_close(found[place + 1], x, rtol=1e-4, atol=1e-4)
    if eta == 0:
        torch.testing.assert_close(found[-1], x, rtol=1e-4, atol=1e-4)


def test_predictor_and_corrector_of_the_exploding_sde():
    scheduler = diffusers.ScoreSdeVeScheduler(STEPS, snr=0.16, sigma_min=0.01, sigma_max=10.0, sampling_eps=1e-5)
    scheduler.set_timesteps(STEPS)
    scheduler.set_sigmas(STEPS, 0.01, 10.0, 1e-5)
    x, score = 10 * start(), -start().flip(0)
    torch.manual_seed(1)
    theirs = scheduler.step_correct(score, x).prev_sample
    torch.manual_seed(1)
    torch.testing.assert_close(_corrected(x, score, 0.16, 1.0), theirs)
    for t in scheduler.timesteps[:-1]:
        place = int(t * (STEPS - 1))
        factor, deviation = VarianceExploding(0.01, 10.0).step(place / (STEPS - 1), (place - 1) / (STEPS - 1))
        found = scheduler.step_pred(score, t, x)
        torch.testing.assert_close(
            (2 - factor) * x + deviation**2 * score, found.prev_sample_mean, rtol=1e-4, atol=1e-4
        )
