"""What a command is doing, one line a step with its seconds; on stderr, so that --json stays alone."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.status import Status


class Steps:
    """Call it with each step as it begins. Use as a `with` block."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status: Status | None = None
        self._text = ""
        self._began = self._all = time.monotonic()

    def __call__(self, text: str) -> None:
        self._finish()
        self._text, self._began = text, time.monotonic()
        if self._console.is_terminal:
            self._status = self._console.status(text)
            self._status.start()

    @property
    def seconds(self) -> float:
        """Since the first."""
        return time.monotonic() - self._all

    def _finish(self, mark: str = "done") -> None:
        if self._status is not None:
            self._status.stop()
            self._status = None
        if self._text:
            self._console.print(
                f"{time.monotonic() - self._began:6.1f} s  {mark}  {self._text}", markup=False
            )
            self._text = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._finish("done" if error is None else "stop")
