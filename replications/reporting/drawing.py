"""Which plots a report has, under which names and with which captions."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

import replications
from replications.errors import UserError
from replications.reporting import forest, labels, plots, style
from replications.reporting.album import TierAlbum, pictures
from replications.reporting.leaderboard import Leaderboard
from replications.reporting.process_pool import ForkPool
from replications.reporting.results import Records
from replications.reporting.site import Plot
from replications.reporting.verdicts import Verdict

PACKAGE = Path(replications.__file__).parent


def draw(
    folder: Path,
    results: Path,
    records: Records,
    boards: Sequence[Leaderboard],
    verdicts: Sequence[Verdict],
    result: bool,
    describe_set: Callable[[str], Mapping],
    open_arrays: Callable[[str], Mapping] | None,
) -> dict[str, list[Plot]]:
    """Draw every plot that the records give into ``<folder>/plots`` and describe it for the page, by task.

    Figures are drawn in sequence and saved by a process pool. The forest plot of the claims is under ``claims``.
    `results` is the folder of the records, where a task's own pictures find the arrays of its runs; `open_arrays` gives
    them the prepared sets. A plot that cannot be drawn or saved is left out and reported in the records' problems.
    """
    drawn: dict[str, list[Plot]] = {}
    stamp = "" if result else labels.NOT_A_RESULT
    lost = set()

    def problem(what: str, error: Exception) -> None:
        records.problems.append(f"{what}: {_one_line(error)}")

    def add(
        group: str, name: str, make: Callable[[], Figure | None], alt: str, caption: str, publish: bool = False
    ) -> None:
        try:
            figure = make()
            if figure is None:
                return
            style.stamp(figure, stamp)
        except Exception as error:
            problem(f"the picture {name} cannot be drawn", error)
        else:
            saving.submit(style.save, figure, folder / "plots", name)
            drawn.setdefault(group, []).append(Plot(f"plots/{name}.svg", alt, caption, publish))

    def not_saved(error: Exception, figure: Figure, plots_folder: Path, name: str) -> None:
        problem(f"the picture {name} cannot be saved", error)
        for path in style.paths(plots_folder, name):
            path.unlink(missing_ok=True)
        lost.add(f"plots/{name}.svg")

    with matplotlib.rc_context(style.RC), ForkPool(not_saved) as saving:
        add(
            "claims", "claims", lambda: forest.forest_plot(verdicts),
            "Forest plot of the claims: effect, 95 % interval and the paper's own effect; numbers in the "
            "table.",
            "Effects with 95 % interval over seeds. Tinted: where the claim holds by at least its smallest "
            "effect of interest (±δ, dashed). Diamonds: the paper's own effect, on its own data.",
            publish=True,
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
                shown = name.replace("_", " ").capitalize() if "_" in name else name.upper()
                add(
                    task, f"{name}_{task}", partial(plots.score_curves, board, records, name),
                    f"{shown} curves of {title}; the leaderboard holds the numbers.",
                    f"{shown}, mean over seeds; bands of the main methods from the least to the "
                    "greatest seed. Thin lines are ablations.",
                    publish=True,
                )  # fmt: skip
            add(
                task, f"cost_{task}", partial(plots.cost_plot, board),
                f"{board.primary_metric} of each method against its cost; the leaderboard holds the numbers.",
                f"{board.primary_metric.capitalize()} against cost. Training times compare only on one "
                "device; runs may have shared it.",
            )  # fmt: skip
            add(
                task, f"seeds_{task}", partial(plots.seeds_plot, board),
                f"{board.primary_metric} of each method, seed by seed; the leaderboard holds the numbers.",
                f"{board.primary_metric.capitalize()} of each seed (dots), their mean (upright) and its 95 % interval "
                "(line). Intervals that overlap are no verdict: claims are judged on paired differences.",
            )  # fmt: skip
            history = plots.history(records, [row.address for row in board.rows])
            for stage, split, key in plots.quantities(board, history):
                what = key.replace("_", " ").capitalize() + (" while training" if split == "train" else f", {split}")
                what += f" (stage “{stage}”)" if stage != "train" else ""
                caution = " Losses of different definition do not compare." if key == "loss" else ""
                add(
                    task, f"training_{task}_{stage}_{split}_{key}",
                    partial(plots.training_curves, board, history, stage, split, key),
                    f"{what}, against epochs, a panel for each paper.",
                    f"{what}: mean over seeds, band from the least to the greatest seed; grey: methods of "
                    f"other papers.{caution}",
                )  # fmt: skip
            album = TierAlbum(board, records, results, describe_set, open_arrays)
            try:
                for picture in pictures(task, album):
                    name, make = f"{picture.name}_{task}", partial(getattr, picture, "figure")
                    add(task, name, make, picture.alt, picture.caption, picture.publish)
            except Exception as error:
                problem(f"pictures of {title} are missing", error)
            records.problems += album.problems()
    kept = {group: [plot for plot in own if plot.file not in lost] for group, own in drawn.items()}
    return {group: own for group, own in kept.items() if own}


def _one_line(error: Exception) -> str:
    """Return an error in one line, with the file and line in this package that raised it."""
    words = " ".join(str(error).split()) or "no reason given"
    if isinstance(error, UserError):
        return words
    frames = [f for f in traceback.extract_tb(error.__traceback__) if PACKAGE in Path(f.filename).parents]
    place = f", {Path(frames[-1].filename).relative_to(PACKAGE)} line {frames[-1].lineno}" if frames else ""
    return f"{words} ({type(error).__name__}{place})"
