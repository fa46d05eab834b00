"""A new task and a paper whose row trains nothing: two folders in a copy of the package, and nothing else touched."""

import json
import shutil
import subprocess
import sys
import textwrap

import pytest

from replications.catalogue import PACKAGE

FILES = {
    "tasks/formulae/__init__.py": """
        from pydantic import Field
        from replications.spec import Strict
        from replications.tasks.base import Metric, Metrics, Task

        class Options(Strict):
            size: int = Field(99, gt=0)

        TASK = Task(
            name="formulae",
            title="Formulae",
            primary_metric="difference",
            metrics=Metrics({"difference": Metric("Difference", "pixels", False, "formula less measurement", 1)}),
            options=Options,
        )
        """,
    "tasks/formulae/tiers.yaml": "smoke: {data: {}}\nmini: {data: {}}\n",
    "tasks/formulae/execute.py": """
        from replications.tasks.run import Context, Evaluation

        def execute(context: Context) -> Evaluation:
            return Evaluation(context.build("row").measure(context.options.size))
        """,
    "papers/receptive/__init__.py": "",
    "papers/receptive/README.md": "# Receptive fields\n\n## Deviations\n\n1. One dimension.\n",
    "papers/receptive/model.py": """
        import torch
        from torch import nn

        class Stack(nn.Module):
            def __init__(self):
                super().__init__()
                self.layers = nn.Sequential(*[nn.Conv1d(1, 1, 3, stride=2) for _ in range(3)])

            def measure(self, size):
                signal = torch.randn(1, 1, size, requires_grad=True)
                out = self.layers(signal)
                out[0, 0, out.shape[-1] // 2].backward()
                return {"difference": float(15 - (signal.grad != 0).sum())}

        def build():
            return Stack()
        """,
    "papers/receptive/paper.yaml": """
        title: Computing receptive fields
        authors: [A. Author]
        venue: Distill
        year: 2019
        bibtex: "@article{a, title={Computing receptive fields}, author={A. Author}}"
        task: formulae
        methods:
          stack: {title: Three strided convolutions, build: "model:build"}
        claims:
          - {id: R1, statement: The formula is exact., where: section 2, expected: 0, direction: equal,
             subject: {method: receptive/stack, metric: difference}, smallest_effect: 0.5, tiers: [mini],
             deviations: [1]}
        """,
}


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("copy")
    shutil.copytree(PACKAGE, folder / "replications", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("config", "workflows"):
        shutil.copytree(PACKAGE.parent / name, folder / name)
    for name, text in FILES.items():
        (folder / "replications" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "replications" / name).write_text(textwrap.dedent(text).lstrip())
    return folder


def replications(folder, *words) -> str:
    command = [sys.executable, "-m", "replications", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.end_to_end
def test_a_row_that_trains_nothing_is_run_and_judged_and_not_timed(copy):
    replications(copy, "run", "receptive/stack", "--seeds", "0,1")
    record = json.loads((copy / "results/mini/runs/receptive/stack/seed1/run.json").read_text())
    assert record["status"] == "finished" and record["metrics"] == {"difference": 0.0}
    assert record["spec"]["recipe"] is None and record["cost"]["train_seconds"] is None
    assert "throughput does not apply" in replications(copy, "throughput", "receptive/stack")
    replications(copy, "report", "--papers", "receptive")
    assert "The formula is exact." in (copy / "results/mini/index.html").read_text()
