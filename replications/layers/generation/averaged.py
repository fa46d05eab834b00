"""A generator and, beside it, the moving average of its weights: both are judged."""

from dataclasses import replace

from torch import Tensor, nn

from replications.layers.generation.model import Generator
from replications.training.ema import AveragedModule
from replications.training.stage import Batch, Turn


class WithAverage(nn.Module):
    """Trains ``raw``; ``averaged`` follows it at the beginning of each step, so it ends one step behind."""

    def __init__(self, raw: Generator, decay: float):
        super().__init__()
        self.raw = raw
        self._following = AveragedModule(raw, decay)
        self.averaged = self._following.module

    @property
    def turns(self) -> tuple[Turn, ...]:
        return tuple(replace(turn, part=f"raw.{turn.part}") for turn in self.raw.turns)

    def train(self, mode: bool = True) -> "WithAverage":
        super().train(mode)
        self.averaged.eval()
        return self

    def forward(self, batch: Batch, turn: str = "") -> dict[str, Tensor]:
        return self.raw(batch, turn)

    def on_step(self, step: int, total_steps: int) -> None:
        if step:
            self._following.update()
