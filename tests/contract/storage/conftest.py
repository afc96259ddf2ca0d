"""Every test of the contract runs against every store."""

from pathlib import Path

import pytest
from stores import RIGS, Rig


@pytest.fixture(params=sorted(RIGS))
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Rig:
    return RIGS[request.param](tmp_path)
