"""Where, when and with what a record was made. Never a host name, a user name or a path."""

import datetime
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from replications import __version__
from replications.measurement.hardware import cpu_count, cpu_model, describe_device, memory_bytes, nvml
from replications.records import Provenance

if TYPE_CHECKING:
    import torch

CHECKOUT = Path(__file__).parents[2]
# What can change a number: arithmetic, models, data decoding, metrics. Not the workflow or the report.
PACKAGES = ("numpy", "pillow", "scikit-learn", "scipy", "timm", "torch", "torchvision")


def provenance(device: "torch.device", threads: int, *, deterministic: bool | None = None) -> Provenance:
    """Describe this process for a record: code, packages, machine, `threads` CPU threads.

    `deterministic` says whether torch was held to deterministic algorithms; None: whether it is so now. About 20 ms,
    most of it asking git.
    """
    import torch

    described = describe_device(device)
    commit, dirty = git_state(CHECKOUT)
    return Provenance(
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        suite_version=__version__,
        commit=commit,
        dirty=dirty,
        python=platform.python_version(),
        packages=package_versions(),
        platform=f"{platform.system()} {platform.machine()}",
        device="cpu" if device.type == "cpu" else described.name,
        device_kind=described.kind,
        cpu=cpu_model(),
        cpu_count=cpu_count(),
        memory_gib=round(memory_bytes() / 2**30, 1),
        threads=threads,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        deterministic=torch.are_deterministic_algorithms_enabled() if deterministic is None else deterministic,
    )


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that can change a number, and of CUDA, cuDNN and driver where used."""
    import torch

    versions = {name: version for name in PACKAGES if (version := _version(name))}
    versions["torch"] = torch.__version__  # with the build's suffix, which the distribution's version may lack
    if torch.version.cuda and torch.cuda.is_available():
        versions["cuda"] = torch.version.cuda
        versions["cudnn"] = str(torch.backends.cudnn.version())
        with nvml() as library:
            if library:
                versions["driver"] = library.nvmlSystemGetDriverVersion()
    return versions


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def git_state(folder: Path) -> tuple[str | None, bool | None]:
    """Return the commit checked out in `folder` and whether a tracked file differs from it.

    (None, None) where `folder` is not the top of a checkout: an installed copy inside somebody's repository must not
    pass for a commit of that repository. Also where git is missing, refuses, or there is no commit yet.
    """
    if not (folder / ".git").exists():
        return None, None
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # several runs may ask at once
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None, None
    commit, dirty, _ = answer.stdout.strip().partition("-dirty")
    return commit, bool(dirty)
