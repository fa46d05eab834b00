"""What a network predicts of x = signal x_0 + noise eps: the noise, the data, or the velocity between them.

The velocity is v = signal eps - noise x_0 (Salimans and Ho, ICLR 2022); its inversion needs signal^2 + noise^2 = 1.
`signal` and `noise` broadcast against x, or are numbers.
"""

from typing import Literal

from torch import Tensor

Prediction = Literal["noise", "data", "velocity"]
Level = Tensor | float


def target_of(prediction: Prediction, x0: Tensor, eps: Tensor, signal: Level, noise: Level) -> Tensor:
    """Return what the network is trained to predict."""
    if prediction == "velocity":
        return signal * eps - noise * x0
    return eps if prediction == "noise" else x0


def denoised(prediction: Prediction, output: Tensor, x: Tensor, signal: Level, noise: Level) -> Tensor:
    """Return x_0 from a network's output."""
    if prediction == "velocity":
        return signal * x - noise * output
    return (x - noise * output) / signal if prediction == "noise" else output
