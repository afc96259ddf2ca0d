"""Log files of a deployment: what the project's own loggers say, one file per process."""

import logging
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def log_to_file(path: Path) -> None:
    """Append what Isochrone's loggers say in this process to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(path, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter(FORMAT))
    logger = logging.getLogger("isochrone")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
