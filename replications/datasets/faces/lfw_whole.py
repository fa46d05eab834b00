"""LFW cut out otherwise than in the set whose people, images and pairs these are (option `form_of`)."""

from pathlib import Path

from pydantic import Field

from replications.datasets.faces import lfw
from replications.parsing import parse


class Options(lfw.Options):
    """Options of an LFW set, and the set whose images are cut out otherwise here."""

    form_of: str = Field(description="the set whose people, images and pairs these are")


def prepare(target: Path, options: dict, files: dict[str, Path], workers: int) -> dict:
    """Prepare as `lfw.prepare` does."""
    wanted = parse(Options, options, "options of the LFW set").model_dump()
    del wanted["form_of"]
    return lfw.prepare(target, wanted, files, workers)
