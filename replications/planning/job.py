"""A job of the workflow, as the terminal and the plan's table show it."""

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Job:
    """A job as in Snakemake's ``job_info`` event."""

    title: str
    rule: str
    paper: str | None
    output: list[str]
    reason: str
    log: Path | None
    threads: int
    resources: dict[str, Any]
    started: float = field(default_factory=time.monotonic)
    look: int = 0  # judge jobs: the look that has run
    waits_for: str = ""  # its last message about waiting for another process

    @property
    def name(self) -> str:
        """The title without its part in brackets."""
        return self.title.partition(" (")[0]

    @property
    def last_line(self) -> str:
        """The last line of the job's log, without the job's name."""
        try:
            with open(self.log or os.devnull, "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - 2000))
                lines = stream.read().decode(errors="replace").split("\n")
        except OSError:
            return ""
        said = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return re.sub(rf"^{re.escape(self.name)}( seed \d+)?: ", "", said).removeprefix("error: ")


def duration(seconds: float) -> str:
    """Format seconds: '41 s', '3 min', '2.5 h'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
