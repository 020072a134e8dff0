"""Starts the programs of the system as real processes, waits for them by condition, and ends them all.

The demo, the benchmarks and `tests/system` share it. Each program gets a log file; whatever happens, leaving
the `with` block ends every process that was started in it. Should the parent itself be killed, the kernel
ends its children.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import psutil

END_S = 10.0
"""How long a program may take to end by itself before it is killed."""


class StackError(Exception):
    """A program did not come up or went away; says which, and the end of its log."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


T = TypeVar("T")


def wait_until(condition: Callable[[], T], *, timeout: float, what: str, every: float = 0.02) -> T:
    """The first true value of `condition`; raises StackError after `timeout` seconds."""
    ends = time.monotonic() + timeout
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > ends:
            raise StackError(f"{what}: not within {timeout:g} s")
        time.sleep(every)


def _die_with_parent() -> None:
    """In the child, before its program starts: end when the parent does, however that ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # 1 is PR_SET_PDEATHSIG


@dataclass
class Program:
    """One running program."""

    name: str
    process: "subprocess.Popen[bytes]"
    log: Path
    ready_line: str | None = None
    peaks: dict[str, float] = field(default_factory=dict)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def tail(self, lines: int = 12) -> str:
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def kill(self) -> None:
        """End it without warning, as a power cut does."""
        self.process.kill()
        self.process.wait()

    def sample_memory(self) -> None:
        """Note the peak resident memory, MB, of the process and of its children, by the role of each."""
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(self.process.pid)
            for process in [root, *root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error, OSError):
                    role = "main" if process.pid == root.pid else _role(process.cmdline())
                    peak = _peak_mb(process.pid)
                    self.peaks[role] = max(self.peaks.get(role, 0.0), peak)


def _role(command: list[str]) -> str:
    return "trainer" if any("samd_edge.trainer" in part for part in command) else "child"


def _peak_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


class Stack:
    """The programs of one system, on free ports of 127.0.0.1, with their files below `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.programs: dict[str, Program] = {}
        self.broker_url = f"mqtt://127.0.0.1:{free_port()}"
        self.gateway_url = f"http://127.0.0.1:{free_port()}"
        self._threads: list[threading.Thread] = []
        self._interrupted = threading.Event()
        self._stopping = threading.Event()

    def interrupt(self, _number: int = signal.SIGINT, _frame: object = None) -> None:
        """A signal handler for Ctrl-C: ends the stack at once, or, while it is being stopped, does nothing.

        Python drops an exception that a handler raises in certain places (between fork and exec, in a
        finaliser). So the wish is remembered, too, and `check` raises it again.
        """
        first = not self._interrupted.is_set()
        self._interrupted.set()
        if first and not self._stopping.is_set():
            raise KeyboardInterrupt

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # -- programs -------------------------------------------------------------

    def launch(self, name: str, module: str, *arguments: str, env: dict[str, str] | None = None) -> Program:
        """Start a program and return at once; its output goes to a log file, its first line is awaited by
        `wait_ready`."""
        self._obey()
        log = self.logs / f"{name}.log"
        with log.open("ab") as sink:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=sink,
                env=os.environ | (env or {}),
                # A session of its own: Ctrl-C goes to the demo alone, which then ends them in order.
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - one prctl call, nothing that could dead-lock
            )
        program = Program(name, process, log)
        self.programs[name] = program
        thread = threading.Thread(target=self._drain, args=(program,), name=f"log-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)
        return program

    def _drain(self, program: Program) -> None:
        assert program.process.stdout is not None
        with program.process.stdout as source, program.log.open("ab") as sink:
            for line in source:
                sink.write(line)
                sink.flush()
                if program.ready_line is None and line.startswith(b"ready"):
                    program.ready_line = line.decode(errors="replace").strip()

    def wait_ready(self, program: Program, timeout: float = 30.0) -> Program:
        """Wait for the program's `ready` line. Raises StackError when it ends before, or takes too long."""

        def ready() -> bool:
            self._obey()
            if not program.alive and program.ready_line is None:
                raise StackError(
                    f"{program.name} ended with code {program.process.returncode}:\n{program.tail()}"
                )
            return program.ready_line is not None

        try:
            wait_until(ready, timeout=timeout, what=f"{program.name} ready")
        except StackError as error:
            raise StackError(f"{error}\n{program.tail()}") from error
        return program

    def check(self) -> None:
        """Raise StackError if a program has ended by itself, KeyboardInterrupt if somebody interrupted."""
        self._obey()
        for program in self.programs.values():
            if not program.alive:
                raise StackError(
                    f"{program.name} ended with code {program.process.returncode}:\n{program.tail()}"
                )

    def _obey(self) -> None:
        if self._interrupted.is_set() and not self._stopping.is_set():
            raise KeyboardInterrupt

    def broker(self) -> Program:
        port = self.broker_url.rsplit(":", 1)[1]
        return self.wait_ready(self.launch("broker", "samd_gateway", "broker", "--port", port))

    def gateway(self, *arguments: str) -> Program:
        port = self.gateway_url.rsplit(":", 1)[1]
        return self.launch(
            "gateway", "samd_gateway", "serve", "--broker", self.broker_url, "--port", port,
            "--data", str(self.folder / "gateway"), *arguments,
        )  # fmt: skip

    def server(self, model: Path, *arguments: str) -> Program:
        return self.launch(
            "server", "samd_server", "run", "--broker", self.broker_url, "--gateway", self.gateway_url,
            "--data", str(self.folder / "server"), "--model", str(model), *arguments,
        )  # fmt: skip

    def agent(self, device: str, source: str, *arguments: str) -> Program:
        return self.launch(
            device, "samd_edge", "run", "--device", device, "--source", source, "--broker", self.broker_url,
            "--data-dir", str(self.folder / "devices" / device), *arguments,
        )  # fmt: skip

    def stop(self) -> None:
        """End everything, the last started first; kill what does not end by itself."""
        self._stopping.set()
        programs = list(reversed(self.programs.values()))
        for program in programs:
            program.sample_memory()
        # Devices and server say goodbye to the broker, so that it goes last.
        for group in (
            [program for program in programs if program.name not in ("broker", "gateway")],
            [program for program in programs if program.name == "gateway"],
            [program for program in programs if program.name == "broker"],
        ):
            for program in group:
                with contextlib.suppress(ProcessLookupError):
                    program.process.terminate()
            ends = time.monotonic() + END_S
            for program in group:
                try:
                    program.process.wait(max(0.05, ends - time.monotonic()))
                except subprocess.TimeoutExpired:
                    program.kill()
        for thread in self._threads:
            thread.join(2.0)

    # -- the gateway's API ----------------------------------------------------

    def api(self, method: str, path: str, **arguments: Any) -> Any:
        """One call to the gateway's API; the decoded JSON. Raises StackError with the problem's text."""
        try:
            answer = httpx.request(method, self.gateway_url + path, timeout=10.0, **arguments)
        except httpx.HTTPError as error:
            raise StackError(f"{method} {path}: {error}") from error
        if answer.is_error:
            raise StackError(f"{method} {path}: {answer.status_code} {answer.text}")
        return answer.json()

    def wait_online(self, devices: int, timeout: float = 60.0) -> list[dict[str, Any]]:
        """Wait until so many devices are online and the server is, too."""

        def online() -> list[dict[str, Any]]:
            self.check()
            there = [
                device for device in self.api("GET", "/api/devices")["devices"] if device["state"] == "online"
            ]
            return there if len(there) >= devices else []

        return wait_until(online, timeout=timeout, what=f"{devices} devices online", every=0.1)

    def start_run(self, **spec: Any) -> str:
        """Start a run; returns its name."""
        return str(self.api("POST", "/api/runs", json=spec)["id"])

    def follow_run(self, run: str, *, timeout: float = 120.0, every: float = 0.1) -> Iterator[dict[str, Any]]:
        """The run's status again and again, ending with its last. Raises StackError after `timeout`."""
        ends = time.monotonic() + timeout
        while True:
            status = self.api("GET", f"/api/runs/{run}")
            yield status
            if status["state"] in ("done", "failed", "stopped"):
                return
            if time.monotonic() > ends:
                raise StackError(f"run {run} is still {status['state']} after {timeout:g} s")
            self.check()
            time.sleep(every)
