"""A device has numpy and msgspec and little memory: the core loads nothing else."""

import subprocess
import sys

CORE = (
    "reading json_keys plausibility news2 severity carry hourly features history deterioration calibration "
    "tasks splits table synthetic cli errors"
)
CODE = f"""
import sys
for name in {CORE.split()!r}:
    __import__("samd_data." + name)
from samd_data.datasets import catalog, clif_demo, open_dataset
from samd_data.datasets.recordings import write_recordings
from samd_data.synthetic import generate
write_recordings(__import__("pathlib").Path(sys.argv[1]) / "out", generate(1, 5, 1))
dataset = open_dataset(sys.argv[1] + "/out")
assert dataset.hourly_tables(dataset.patients()[0])
heavy = {{"pandas", "pyarrow", "scipy", "sklearn", "tensorflow"}} & set(sys.modules)
assert not heavy, heavy
"""


def test_the_core_and_the_recordings_need_neither_pandas_nor_pyarrow(tmp_path: object) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CODE, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_importing_the_package_loads_nothing() -> None:
    code = "import sys, samd_data; print([m for m in sys.modules if m.startswith(('numpy', 'samd_data.'))])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"
