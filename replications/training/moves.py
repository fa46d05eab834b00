"""The moves of a training step: one over the whole module, or one for each turn of its stage."""

from torch import Tensor, nn

from replications.errors import UserError, nearest
from replications.parsing import merged, parse
from replications.spec import Recipe
from replications.training.optim import create_optimizer, learning_rate_factor, set_learning_rate, step_optimizer
from replications.training.stage import Stage, Turn

OF_A_TURN = {
    "optimizer", "optimizer_options", "lr", "momentum", "weight_decay", "schedule", "schedule_milestones", "warmup",
    "clip_norm",
}  # fmt: skip


class Move:
    """An optimiser, its recipe and the parameters that it moves."""

    def __init__(self, stage: Stage, turn: Turn | None):
        self.name = turn.name if turn else ""
        self.times = turn.times if turn else 1
        self.recipe = turn_recipe(stage, turn) if turn else stage.recipe
        self.call = {"turn": turn.name} if turn else {}
        moved = _part(stage, turn) if turn else stage.module
        self.optimizer = create_optimizer(moved, self.recipe, None if turn else stage.parameter_groups)
        self.parameters = [parameter for parameter in moved.parameters() if parameter.requires_grad]

    def set_rate(self, step: int, total_steps: int) -> float:
        """Set and return the learning rate of step `step`."""
        factor = learning_rate_factor(self.recipe, step, total_steps)
        set_learning_rate(self.optimizer, factor)
        return self.recipe.lr * factor

    def step(self) -> Tensor | None:
        """Clip the gradients, update the parameters, and return the norm before clipping; None without clipping."""
        norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.clip_norm) if self.recipe.clip_norm else None
        step_optimizer(self.optimizer)
        return norm


def moves_of(stage: Stage) -> list[Move]:
    """Return the moves of a stage's step.

    Raises UserError where two turns share a name, a turn is repeated less than once or changes what only a whole stage
    has, or some trainable parameter belongs to no turn.
    """
    if not stage.turns:
        return [Move(stage, None)]
    where = f"stage '{stage.name}'"
    names = [turn.name for turn in stage.turns]
    if len(set(names)) < len(names) or min(turn.times for turn in stage.turns) < 1:
        raise UserError(f"{where}: turns {names} need names of their own and are taken once or more")
    if stage.parameter_groups is not None:
        raise UserError(f"{where}: parameter_groups are for a stage without turns")
    moves = [Move(stage, turn) for turn in stage.turns]
    moved = {id(parameter) for move in moves for parameter in move.parameters}
    left = [name for name, p in stage.module.named_parameters() if p.requires_grad and id(p) not in moved]
    if left:
        raise UserError(f"{where}: no turn trains {', '.join(left[:3])}: name its part in a turn, or freeze it")
    return moves


def _part(stage: Stage, turn: Turn) -> nn.Module:
    try:
        return stage.module.get_submodule(turn.part)
    except AttributeError:
        parts = [name for name, _ in stage.module.named_children()]
        raise UserError(
            f"stage '{stage.name}', turn '{turn.name}': the module has no part '{turn.part}'{nearest(turn.part, parts)}"
        ) from None


def turn_recipe(stage: Stage, turn: Turn) -> Recipe:
    """Return the recipe of a turn; raises UserError for a change that is not a turn's to make."""
    where = f"stage '{stage.name}', turn '{turn.name}'"
    if strange := sorted(set(turn.recipe) - OF_A_TURN):
        raise UserError(f"{where}: a turn cannot change the recipe's {', '.join(strange)}")
    return parse(Recipe, merged(stage.recipe.model_dump(), turn.recipe), where)


def norm_names(stage: Stage) -> tuple[str, ...]:
    """Name the gradient norms that a step logs, one for each move that clips."""
    if not stage.turns:
        return ("grad_norm",) if stage.recipe.clip_norm else ()
    return tuple(f"{turn.name}_grad_norm" for turn in stage.turns if turn_recipe(stage, turn).clip_norm)


class Trainable:
    """Lets one move's parameters ask for gradients while it is taken; all trainable ones do afterwards."""

    def __init__(self, moves: list[Move]):
        self._all = {parameter: None for move in moves for parameter in move.parameters} if len(moves) > 1 else {}

    def only(self, move: Move) -> None:
        own = set(move.parameters)
        for parameter in self._all:
            parameter.requires_grad_(parameter in own)

    def all(self) -> None:
        for parameter in self._all:
            parameter.requires_grad_(True)


def first_loss(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the values of a step in turns, and before them the first turn's loss as ``loss``."""
    loss = next((value for name, value in values.items() if name.endswith("_loss")), None)
    return values if loss is None else {"loss": loss, **values}
