"""A device for the tests of updates: releases of the real client, a keeper in place of systemd."""

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from samd_edge.control import ControlError, ask
from samd_edge.update.layout import Layout
from samd_edge.update.manifest import LAUNCHER
from samd_scripts import release

ROOT = Path(__file__).parents[2]
KEEPER = Path(__file__).with_name("update_keeper.py")
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
DEADLINE_S = 60.0

AT_ONCE = """
[alerts]
hysteresis = 0
min_dwell_s = 0
urgent_refractory_s = 0
[artefacts]
jumps = false
"""

Edit = tuple[str, str, str]
"""A file of the client, a text that stands in it once, and what stands there instead."""

CRASHES: Edit = ("samd_edge/run_command.py", "    overrides: dict", "    sys.exit(3)\n    overrides: dict")
HANGS: Edit = (
    "samd_edge/run_command.py",
    "    overrides: dict",
    "    import time\n    time.sleep(3600)\n    overrides: dict",
)
FREEZES: Edit = (
    "samd_edge/agent.py",
    "            await self._stop.wait()",
    "            await asyncio.sleep(0.2)\n            time.sleep(3600)",
)
"""It comes up, says that it is ready, and then does nothing any more."""
NO_BROKER: Edit = (
    "samd_edge/link.py",
    "        self._open()\n\n    async def close",
    "\n    async def close",
)
BREAKS_THE_STORE: Edit = (
    "samd_edge/device_db.py",
    "open_database(self.path, MIGRATIONS,",
    'open_database(self.path, (*MIGRATIONS, "CREATE TABLE meta (broken)"),',
)
MIGRATES: Edit = (
    "samd_edge/device_db.py",
    "open_database(self.path, MIGRATIONS,",
    'open_database(self.path, (*MIGRATIONS, "CREATE TABLE newer (fine)"),',
)
FORGETS_THE_ADMISSION: Edit = ("samd_edge/agent.py", "            self._take_admission()\n", "")
COMPUTES_WRONGLY: Edit = (
    "samd_data/news2.py",
    '"heart_rate": Chart((40, 50, 90, 110, 130)',
    '"heart_rate": Chart((40, 50, 90, 110, 140)',
)
DOES_NOT_COMPILE: Edit = ("samd_edge/intake.py", "class Intake:", "class Intake")


class Releases:
    """Releases of the client of this workspace, whose dependencies are those of this environment."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._base = folder / "base"
        site = self._base / "site"
        for package in ("edge_client/src/samd_edge", "data/src/samd_data", "protocol/src/samd_protocol"):
            source = ROOT / package
            shutil.copytree(source, site / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        command = [
            sys.executable,
            "-m",
            "compileall",
            "-q",
            "--invalidation-mode",
            "unchecked-hash",
            str(site),
        ]
        subprocess.run(command, check=True)

    def tree(
        self,
        version: str = "0.2.0",
        *edits: Edit,
        schemas: Mapping[str, int] | None = None,
        machine: str | None = None,
        python: str = PYTHON,
    ) -> Path:
        """The folder of a release of this version, with these changes in its client."""
        tree = self._folder / f"tree-{uuid.uuid4().hex}"
        shutil.copytree(self._base, tree)
        site = tree / "site"
        for name, old, new in edits:
            path = site / name
            text = path.read_text()
            assert text.count(old) == 1, f"{name}: {old!r} stands there {text.count(old)} times"
            path.write_text(text.replace(old, new))
            for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
                compiled.unlink()
        info = site / f"samd_edge-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: samd-edge\nVersion: {version}\n")
        entries = metadata.distribution("samd-edge").read_text("entry_points.txt")
        (info / "entry_points.txt").write_text(entries or "")
        launcher = tree / LAUNCHER
        launcher.parent.mkdir()
        launcher.write_text(release.LAUNCH.format(python=PYTHON).replace(f"python{PYTHON}", sys.executable))
        release.seal(
            tree,
            version=version,
            machine=machine or platform.machine(),
            python=python,
            schemas=schemas or release.schemas(),
        )
        return tree

    def package(self, version: str = "0.2.0", *edits: Edit, **options: Any) -> release.Package:
        """The same as a package."""
        tree = self.tree(version, *edits, **options)
        packed = release.pack(tree, self._folder / tree.name.replace("tree", "package"))
        shutil.rmtree(tree)
        return packed


class UpdatedDevice:
    """One device: its releases, its data directory, and the client that a keeper keeps running."""

    def __init__(self, folder: Path, name: str, tree: Path, broker: str) -> None:
        self.folder = folder
        self.layout = Layout(folder / "root")
        self.data_dir = folder / "data"
        self.layout.releases.mkdir(parents=True)
        self.data_dir.mkdir(mode=0o700)
        self.first = json_name(tree)
        shutil.copytree(tree, self.layout.folder(self.first))
        self.layout.switch("current", self.first)
        self.boot_id = folder / "boot_id"
        self.reboot_id()
        self.readings = folder / "readings.csv"
        self.readings.write_text("observed_at,heart_rate,respiratory_rate,spo2,systolic_bp,temperature\n")
        (folder / "edge.toml").write_text(AT_ONCE)
        self._command = [
            str(self.layout.root / "current" / LAUNCHER),
            *("run", "--device", name, "--source", f"csv:{self.readings}?follow=1", "--broker", broker),
            *("--data-dir", str(self.data_dir), "--heartbeat", "0.5", "--no-prefork"),
            *("--config", str(folder / "edge.toml")),
        ]
        self._keeper: subprocess.Popen[bytes] | None = None

    # -- the client ------------------------------------------------------------------------------------------

    def start(self) -> "UpdatedDevice":
        """As after a boot: the service is started; returns once the client answers."""
        self.start_service()
        self.wait(self.view, "the client")
        return self

    def start_service(self) -> None:
        for left in ("starts", "restarts"):
            (self.folder / left).unlink(missing_ok=True)
        self._keeper = subprocess.Popen(
            [sys.executable, str(KEEPER), "keep", str(self.folder), *self._command], env=clean()
        )
        (self.folder / "keeper.pid").write_text(str(self._keeper.pid))
        self.wait((self.folder / "starts").exists, "the service")

    def cut_power(self) -> None:
        """Kill everything at once; the next boot has another id."""
        if self._keeper is not None:
            self._keeper.kill()
            self._keeper.wait()
            self._keeper = None
        with contextlib.suppress(ProcessLookupError, ValueError):
            os.kill(self.pid, signal.SIGKILL)
        self.wait(lambda: not alive(self.pid), "the end of the client")
        self.reboot_id()

    def reboot_id(self) -> None:
        self.boot_id.write_text(f"{uuid.uuid4()}\n")

    def close(self) -> None:
        if self._keeper is not None:
            self._keeper.terminate()
            self._keeper.wait(20)
            self._keeper = None

    @property
    def pid(self) -> int:
        return int((self.folder / "client.pid").read_text())

    @property
    def log(self) -> str:
        return (self.folder / "client.log").read_text()

    def view(self) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = ask(self.data_dir, {"ask": "view"})["view"]
        except ControlError:
            return None
        return found

    def wait(self, check: Callable[[], Any], what: str) -> Any:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            found = check()
            if found:
                return found
            threading.Event().wait(0.02)
        pytest.fail(f"waited {DEADLINE_S:g} s in vain for {what}")

    def measure(self, *, ill: bool = False) -> None:
        """One reading, now; returns once the client has assessed it."""
        signs = "140,30,85,80,39.5" if ill else "70,16,97,120,37.0"
        with self.readings.open("a") as file:
            file.write(f"{datetime.now(UTC).isoformat()},{signs}\n")

        def assessed() -> bool:
            shown = self.view()
            return bool(shown and shown["news2"] and shown["alert"]["active"] is ill)

        self.wait(assessed, "the assessment")

    # -- updates ---------------------------------------------------------------------------------------------

    def options(self, action: str) -> list[str]:
        given = ["--root", str(self.layout.root), "--json"]
        if action in ("apply", "back", "check"):
            given += ["--data-dir", str(self.data_dir), "--boot-id", str(self.boot_id)]
            given += ["--restart", f"{sys.executable} {KEEPER} restart {self.folder}"]
            given += ["--restarts", f"cat {self.folder / 'restarts'}"]
        if action in ("apply", "back"):
            given += ["--settle", "0.3", "--deadline", "30"]
        return given

    def update(
        self, action: str, *more: str, by: str = "current", program: list[str] | None = None
    ) -> tuple[int, dict[str, Any], str]:
        """Run `samd-edge update` of a release; exit code, its JSON, and what it said."""
        command = program or [str(self.layout.root / by / LAUNCHER)]
        done = subprocess.run(
            [*command, "update", action, *self.options(action), *more],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=clean(),
        )
        try:
            answer = json.loads(done.stdout) if done.stdout else {}
        except ValueError:
            pytest.fail(f"{done.stdout}\n{done.stderr}")
        return done.returncode, answer, done.stderr

    def apply(self, packed: release.Package, *more: str, **how: Any) -> tuple[int, dict[str, Any], str]:
        return self.update("apply", str(packed.path), *more, **how)

    def status(self) -> dict[str, Any]:
        return self.status_by("current")

    def status_by(self, by: str) -> dict[str, Any]:
        """The status as a release tells it, which may not be the one in use."""
        return self.update("status", by=by)[1]

    def whole(self) -> str:
        """The name of the release in use, every file of which was compared."""
        name = self.layout.current()
        self.layout.check(name)
        return name


def json_name(tree: Path) -> str:
    """The name of the release in a folder."""
    from samd_edge.update.manifest import FILE, decode

    return decode((tree / FILE).read_bytes(), str(tree)).name


def clean() -> dict[str, str]:
    """The environment without what would lead a release to another one's files."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "SAMD_"))}


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
