"""Many devices from one table: a CSV with a line for each, all checked before the first image is made.

Columns: `name`, and any of `server`, `source`, `wifi`, `ssh_key`, `model`, `credentials`, `settings`. An
empty field means what the option of that name says. Paths are relative to the table.
"""

import csv
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from samd_scripts.flash.base import Base
from samd_scripts.flash.device import Device, make
from samd_scripts.flash.errors import FlashError

COLUMNS: Final = ("name", "server", "source", "wifi", "ssh_key", "model", "credentials", "settings")
PATHS: Final = ("ssh_key", "model", "credentials", "settings")
MAX_DEVICES: Final = 1000
WORKERS: Final = 4


def read(table: Path, described: Callable[[Mapping[str, str]], Device]) -> list[Device]:
    """The devices of a table; `described` makes one of a line's fields. Raises FlashError with the line."""
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, restkey="more")
            columns = rows.fieldnames or []
            _check_columns(table, columns)
            lines = [(rows.line_num, row) for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise FlashError(f"{table}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    if not lines:
        raise FlashError(f"{table}: names no device; write one a line below {','.join(columns)}")
    if len(lines) > MAX_DEVICES:
        raise FlashError(f"{table}: {len(lines)} devices; at most {MAX_DEVICES} are made at once")
    found: dict[str, tuple[int, Device]] = {}
    for number, row in lines:
        if "more" in row:
            raise FlashError(f"{table}, line {number}: more fields than columns")
        fields = {key: (value or "").strip() for key, value in row.items()}
        try:
            device = described(_with_paths(fields, table.parent))
        except FlashError as error:
            raise FlashError(f"{table}, line {number}: {error}") from error
        other = found.get(device.name.lower())
        if other is not None:
            raise FlashError(
                f"{table}, line {number}: {device.name} is the name of line {other[0]} too; "
                "two devices of one name would throw each other off the broker"
            )
        found[device.name.lower()] = (number, device)
    return [device for _, device in found.values()]


def _check_columns(table: Path, columns: Any) -> None:
    if "name" not in columns:
        raise FlashError(f"{table}: its first line names no column 'name'; known are {', '.join(COLUMNS)}")
    unknown = [column for column in columns if column not in COLUMNS]
    if unknown:
        raise FlashError(f"{table}: unknown column {unknown[0]!r}; known are {', '.join(COLUMNS)}")


def _with_paths(fields: dict[str, str], folder: Path) -> dict[str, str]:
    return {
        key: str(folder / Path(value).expanduser()) if key in PATHS and value else value
        for key, value in fields.items()
    }


def make_all(
    devices: list[Device], base: Base, out: Path, *, done: Callable[[dict[str, Any]], None]
) -> list[dict[str, Any]]:
    """The images, several at a time; `done` hears of each as it is whole. The first failure ends it: what is
    whole by then stays. Raises FlashError."""
    out.mkdir(parents=True, exist_ok=True)

    def one(device: Device) -> dict[str, Any]:
        made = make(device, base, out / f"{device.name}.img")
        done(made)
        return made

    with ThreadPoolExecutor(WORKERS, thread_name_prefix="flash") as pool:
        futures = [pool.submit(one, device) for device in devices]
        try:
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
