"""Where the real recordings lie, and readings to start from."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from samd_data.datasets.fetching import default_cache
from samd_data.reading import Reading

START = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def clif_folder() -> Path:
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        pytest.skip(f"the pyarrow that is installed cannot be loaded: {error}")
    folder = default_cache() / "clif-demo-2.1.0"
    if not folder.is_dir():
        pytest.skip("the CLIF demo is not in the cache; the long tests fetch it")
    return folder


@pytest.fixture(scope="session")
def make() -> Callable[..., Reading]:
    """A reading at 2026-01-01 00:00 UTC with everything normal, except what is given."""

    def reading(**fields: Any) -> Reading:
        normal: dict[str, Any] = {
            "observed_at": START,
            "heart_rate": 70,
            "respiratory_rate": 16,
            "spo2": 98,
            "systolic_bp": 120,
            "temperature": 37.0,
            "supplemental_oxygen": False,
            "consciousness": "A",
        }
        return Reading(**normal | fields)

    return reading
