"""A copy of the repository with two small made papers in place of the real ones, and a way to run snakemake in it."""

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "results", "work", "data", "tests", "benchmarks")

TIERS = """
smoke:
  data: {{train: faces_smoke, test: faces_smoke}}
  recipe: {{batch_size: 16, steps: {steps}, lr: 0.05}}
  task: {{resolution: 16}}
  minutes_per_run: 0.1
"""

PAPER = """
title: The {key} paper
authors: [Nobody]
venue: Nowhere
year: 2020
bibtex: "@misc{{{key}, title={{The {key} paper}}}}"
task: face_verification
methods: {methods}
claims: {claims}
"""

MODEL = '''
"""A model of the tests."""

import torch.nn.functional as F
from torch import nn

from replications.layers.faces.model import FaceModel


class Tiny(FaceModel):
    """A linear embedding and a softmax over cosines."""

    training_only = ("head",)

    def __init__(self, num_identities: int, image_size: int):
        super().__init__()
        self.body = nn.Linear(3 * image_size**2, 8)
        self.head = nn.Linear(8, num_identities, bias=False)

    def embed(self, image):
        return self.body(image.flatten(1))

    def forward(self, batch):
        # this is the loss
        cosine = F.linear(F.normalize(self.embed(batch["image"])), F.normalize(self.head.weight))
        return {"loss": F.cross_entropy(16.0 * cosine, batch["label"])}


def build(num_identities: int, image_size: int) -> Tiny:
    return Tiny(num_identities, image_size)
'''

ALPHA_CLAIMS = (
    "[{id: C1, statement: it is better, where: Table 1, subject: {method: alpha/plain, metric: accuracy}, "
    "reference: {method: beta/margin, metric: accuracy}, direction: greater, smallest_effect: 0.5, tiers: [smoke]}]"
)
PAPERS = {
    "alpha": ('{plain: {title: Plain, build: "model:build"}}', ALPHA_CLAIMS),
    "beta": (
        '{margin: {title: Margin, build: "model:build"}, '
        'broken: {title: Broken, build: "model:build", recipe: {lr: 1.0e+30}, why: it must diverge}}',
        "[]",
    ),
}


def _hear_ctrl_c() -> None:
    """A shell starts background jobs deaf to SIGINT, and that is inherited, also by these tests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@dataclass
class Copy:
    """The copy at `root`; jobs lock devices among themselves only."""

    root: Path

    def start(self, *arguments: str, module: str = "snakemake", new_session: bool = False) -> subprocess.Popen:
        """Start snakemake or another module; both streams come together."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(self.root / "tmp"), "COLUMNS": "200"}
        environment.pop("PYTHONPATH", None)
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.root,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=new_session,
            preexec_fn=_hear_ctrl_c,
        )

    def snakemake(self, *targets: str, config: tuple[str, ...] = (), code: int = 0) -> str:
        """Run snakemake to its end and return what it said."""
        process = self.start(*targets, "--config", "tier=smoke", *config)
        said, _ = process.communicate(timeout=300)
        assert process.returncode == code, said
        return said

    def cli(self, *arguments: str, code: int = 0) -> str:
        """Run the command line to its end and return what it said."""
        process = self.start(*arguments, module="replications")
        said, _ = process.communicate(timeout=300)
        assert process.returncode == code, said
        return said

    def record(self, address: str, seed: int = 0) -> Path:
        return self.root / "results" / "smoke" / "runs" / address / f"seed{seed}" / "run.json"

    def records(self) -> dict[str, bytes]:
        """All run records by address."""
        found = sorted(self.root.glob("results/smoke/runs/*/*/*/run.json"))
        return {"/".join(path.parts[-4:-2]): path.read_bytes() for path in found}

    def model(self, paper: str) -> Path:
        return self.root / "replications" / "papers" / paper / "model.py"

    def set_steps(self, steps: int) -> None:
        """Give all runs another length."""
        task = self.root / "replications" / "tasks" / "face_verification"
        (task / "tiers.yaml").write_text(TIERS.format(steps=steps))


def make_copy(root: Path) -> Copy:
    """Copy the repository to `root` and put the made papers in."""
    shutil.copytree(ROOT, root, ignore=LEFT_OUT, dirs_exist_ok=True)
    shutil.rmtree(root / "replications" / "papers")
    (root / "tmp").mkdir()
    copy = Copy(root)
    for key, (methods, claims) in PAPERS.items():
        copy.model(key).parent.mkdir(parents=True)
        copy.model(key).write_text(MODEL)
        paper = PAPER.format(key=key, methods=methods, claims=claims)
        (copy.model(key).parent / "paper.yaml").write_text(paper)
        (copy.model(key).parent / "README.md").write_text("# Made\n\n## Deviations\n\n1. Everything.\n")
    copy.set_steps(6)
    return copy
