"""Measures this queue, its peers and the bare limit of PostgreSQL in one run: ``make bench``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))
