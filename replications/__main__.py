"""``python -m replications``."""

import sys

from replications.cli import main

sys.exit(main())
