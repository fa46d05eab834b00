"""``snakemake --lint``, but for one of its rules: here software is pinned by envs/*.txt, not by conda or containers."""

import re
import subprocess
import sys

LEFT_OUT = "Specify a conda environment or container for each rule."

done = subprocess.run([sys.executable, "-m", "snakemake", "--lint"], capture_output=True, text=True)
said = done.stdout + done.stderr
place, found = "the workflow", []
for line in said.splitlines():
    if match := re.match(r"Lints for (.*):$", line):
        place = match.group(1)
    elif (match := re.match(r"    \* (.*):$", line)) and match.group(1) != LEFT_OUT:
        found.append(f"{place}: {match.group(1)}")
if done.returncode and "Lints for " not in said:
    sys.exit(said.strip())
print("\n".join(found) or "the workflow has nothing to complain about")
sys.exit(bool(found))
