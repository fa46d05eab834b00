"""No tracked file names a package index, a wheel host or somebody's home folder: locks are by hash, from any index."""

import re
import subprocess
import sys
from pathlib import Path

FORBIDDEN = re.compile(
    r"--(?:extra-)?index-url|--find-links|/whl/|https?://\S+/simple\b"
    r"|[\s'\"=](?:/home|/Users|/root)/"
)

files = subprocess.run(["git", "ls-files"], capture_output=True, text=True, check=True).stdout.split("\n")
found = []
for name in filter(None, files):
    path = Path(name)
    if path.name == Path(__file__).name or not path.is_file():
        continue
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError:
        continue
    for number, line in enumerate(lines, 1):
        found += [f"{name}:{number}: {match.group().strip()}" for match in FORBIDDEN.finditer(line)]
print("\n".join(found) or "no file names a package index or a home folder")
sys.exit(bool(found))
