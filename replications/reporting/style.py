"""Style of the plots: one page width, one font, colours that work with colour blindness and in greyscale print.

A paper has a colour and a method within it a marker and a dash pattern, the same in every plot. Verdicts
differ in colour, marker and word.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib.figure import Figure

from replications.tasks.base import Look

WIDTH = 7.4  # inches: the text width of a page
# Okabe and Ito (2008); their yellow is too faint on white and is replaced by grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
MARKERS = "osD^vPX*<>"
DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
GREY, LIGHT = "#555555", "#D9D9D9"
VERDICTS = {
    "reproduced": ("#009E73", "o"),
    "contradicted": ("#D55E00", "X"),
    "inconclusive": ("#6A7FA8", "s"),
    "not tested": ("#8C8C8C", "o"),
}
RC = {
    "figure.dpi": 100,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana"],  # Verdana's letters are about as wide, where a page has no DejaVu
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8.5,
    "axes.edgecolor": "#888888",
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.6,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.fonttype": "none",  # text stays text: a quarter of the bytes, and it can be searched and read out
    "svg.hashsalt": "replications",
}


def looks(addresses: Iterable[str]) -> Mapping[str, Look]:
    """Assign each method its style: a colour per paper, marker and dashes by its position in the paper."""
    made: dict[str, Look] = {}
    papers: dict[str, int] = {}
    for address in addresses:
        paper = address.partition("/")[0]
        place = papers[paper] = papers.get(paper, -1) + 1
        made[address] = Look(
            COLOURS[list(papers).index(paper) % len(COLOURS)],
            MARKERS[place % len(MARKERS)],
            DASHES[place % len(DASHES)],
        )
    return made


def stamp(figure: Figure, text: str) -> None:
    """Stamp the figure of a plumbing tier all over, so that no crop of it looks like a result."""
    if text:
        figure.text(
            0.5, 0.5, text, fontsize=30, color="#B00020", alpha=0.22, rotation=20, ha="center", va="center",
            zorder=9,
        )  # fmt: skip


def paths(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.svg", folder / f"{name}.png"


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write ``<name>.svg`` and ``<name>.png``; the same figure always gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    if figure.get_layout_engine() is not None:
        figure.get_layout_engine().set(w_pad=0.07)  # text is a little wider in one format than in the other
        figure.draw_without_rendering()  # compute the layout once, not once per format
        figure.set_layout_engine("none")
    svg, png = paths(folder, name)
    # Tight: text beside the axes is not cut off.
    figure.savefig(svg, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    figure.savefig(png, bbox_inches="tight", dpi=200, metadata={"Software": None})
