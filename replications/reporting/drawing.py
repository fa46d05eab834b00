"""Which plots a report has, under which names and with which captions."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib

from replications.errors import UserError
from replications.records import RunRecord
from replications.reporting import forest, labels, plots, style
from replications.reporting.leaderboard import Leaderboard
from replications.reporting.load import Records
from replications.reporting.site import Plot
from replications.reporting.verdicts import Verdict

WRONG_PAIR_METHODS = 8


def draw(
    folder: Path,
    records: Records,
    boards: Sequence[Leaderboard],
    verdicts: Sequence[Verdict],
    result: bool,
    describe_set: Callable[[str], Mapping],
    open_arrays: Callable[[str], Mapping] | None,
) -> dict[str, list[Plot]]:
    """Draw every plot that the records give into ``<folder>/plots`` and describe it for the page, by task.

    The forest plot of the claims is under ``claims``. Pairs of images are drawn only where `open_arrays` is
    given and the test set's kind is ``procedural``.
    """
    drawn: dict[str, list[Plot]] = {}
    stamp = "" if result else labels.NOT_A_RESULT

    def add(group: str, name: str, figure, alt: str, caption: str) -> None:
        if figure is not None:
            style.stamp(figure, stamp)
            style.save(figure, folder / "plots", name)
            drawn.setdefault(group, []).append(Plot(f"plots/{name}.svg", alt, caption))

    with matplotlib.rc_context(style.RC):
        add(
            "claims", "claims", forest.forest_plot(verdicts),
            "Forest plot of the claims: effect, 95 % interval and the paper's own effect; numbers in the "
            "table.",
            "Effects with 95 % interval over seeds. Tinted: where the claim holds by at least its smallest "
            "effect of interest (±δ, dashed). Diamonds: the paper's own effect, on its own data.",
        )  # fmt: skip
        for board in boards:
            task, title = board.task, board.title
            names = {
                name
                for runs in records.runs.values()
                for r in runs.values()
                if r.spec.task == task
                for name in r.curves
            }
            # Curves of a method's further verifiers (roc_<name>) stay in the records.
            names = sorted(name for name in names if not any(name.startswith(f"{other}_") for other in names))
            for name in names:
                add(
                    task, f"{name}_{task}", plots.score_curves(board, records, name),
                    f"{name.upper()} curves of {title}; the leaderboard holds the numbers.",
                    f"{name.upper()}, mean over seeds; bands of the main methods from the least to the "
                    "greatest seed. Thin lines are ablations.",
                )  # fmt: skip
            add(
                task, f"cost_{task}", plots.cost_plot(board),
                f"{board.primary_metric} of each method against its cost; the leaderboard holds the numbers.",
                f"{board.primary_metric.capitalize()} against cost. Training times compare only on one "
                "device; runs may have shared it.",
            )  # fmt: skip
            for stage, split, key in plots.quantities(board, records):
                what = key.replace("_", " ").capitalize() + (" while training" if split == "train" else f", {split}")
                what += f" (stage “{stage}”)" if stage != "train" else ""
                caution = " Losses of different definition do not compare." if key == "loss" else ""
                add(
                    task, f"training_{task}_{stage}_{split}_{key}",
                    plots.training_curves(board, records, stage, split, key),
                    f"{what}, against epochs, a panel for each paper.",
                    f"{what}: mean over seeds, band from the least to the greatest seed; grey: methods of "
                    f"other papers.{caution}",
                )  # fmt: skip
            chosen, arrays = _procedural(board, records, describe_set, open_arrays)
            if arrays is not None:
                add(
                    task, f"wrong_{task}", plots.wrong_pairs(chosen, arrays["images"]),
                    "Pairs of procedural images that each method got most wrong, with truth and score.",
                    "Pairs that each method got most wrong (lowest seed): the truth, and how far the score lies "
                    "above or below the threshold. The images are procedural: they show no person.",
                )  # fmt: skip
    return drawn


def _procedural(
    board: Leaderboard,
    records: Records,
    describe_set: Callable[[str], Mapping],
    open_arrays: Callable[[str], Mapping] | None,
) -> tuple[dict[str, RunRecord], Mapping | None]:
    """The main methods' first runs that name wrong pairs of one procedural test set, and that set's
    arrays.
    """
    if open_arrays is None:
        return {}, None
    chosen: dict[str, dict[str, RunRecord]] = {}
    for row in board.rows:
        record = next(iter(records.finished(row.address).values()), None)
        if record and row.role != "ablation" and record.extra.get("worst_pairs"):
            chosen.setdefault(record.spec.data.get("test", ""), {})[row.address] = record
    for key, by_address in chosen.items():
        try:
            if describe_set(key)["kind"] == "procedural":  # never photographs of people
                return dict(list(by_address.items())[:WRONG_PAIR_METHODS]), open_arrays(key)
        except UserError as error:
            records.problems.append(f"no picture of wrong pairs: {error}")
    return {}, None
