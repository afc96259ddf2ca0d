"""Keeps the repository root off `sys.path`: every room would be importable by a second name, as a second module.

`python -m pytest` puts the working directory there; `pytest` does not.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != ROOT]
