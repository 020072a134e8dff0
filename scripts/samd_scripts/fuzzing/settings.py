"""The configuration of an agent, and the URLs of its sources."""

import atexit
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs

import msgspec

from samd_edge import config
from samd_edge.sources import SourceError, SourceURL, parse
from samd_edge.sources.listening import ListenerSettings, listen_at
from samd_protocol.broker import Broker
from samd_scripts.fuzzing.choices import Choices
from samd_scripts.fuzzing.oracle import LONGEST_LINE, attempt, insist, same
from samd_scripts.fuzzing.target import Target

_ODD_TOML: Final = (
    "true", "0", "-1", "1", "2", "nan", "inf", "-inf", "1e400", "0x10", "1_0", '""', '"x"', '"bed-01"',
    "[]", "{}", '["-"]', "[[]]", '{ url = "-" }', '[{ url = "hl7:2575", zone = 1 }]',
    "2026-01-31T08:00:00Z", "1979-05-27", '"\\u001b[2J"', '"\\n"', "'" + "x" * 3000 + "'", "9" * 30,
    "9" * 5000, "[" * 3000 + "]" * 3000, "''", '"mqtts://a:b@c"', '"mqtt://[::1]:99999"', '"/dev/null"',
    '"hl7:2575?allow=10.0.0.0/8"', '"litert"',
)  # fmt: skip

_EXAMPLE: Final = """device = "bed-01"
source = ["hl7:2575", { url = "mqtt:monitors/bed-01", fields = { heart_rate = "vitals.hr" } }]
heartbeat_s = 10
share_signs = false
trainer = "litert"
spo2_scale = 1
monitoring_interval_s = 3600

[alerts]
min_dwell_s = 600

[artefacts]
flat_lines = ["systolic_bp"]

[broker]
url = "mqtts://broker.ward:8883"
username = "bed-01"
"""

_FILES: Final[list[Path]] = []  # the one file that every input is written to; made when first needed


def _file() -> Path:
    if not _FILES:
        memory = Path("/dev/shm")  # noqa: S108  (nothing of it need be kept)
        folder = tempfile.TemporaryDirectory(prefix="samd-fuzz-", dir=memory if memory.is_dir() else None)
        atexit.register(folder.cleanup)
        _FILES.append(Path(folder.name) / "agent.toml")
    return _FILES[0]


def check_config(data: bytes) -> None:
    """Any bytes as a file: settings as they stand there, each of them, or an error that names the file."""
    file = _file()
    file.write_bytes(data)
    # who reads it wrote the file, which is quoted: as long as that, not longer
    found = attempt(
        lambda: config.load(file, {}),
        config.ConfigError,
        places=[str(file)],
        longest=LONGEST_LINE + 2 * len(data),
    )
    if found is None:
        return
    given = tomllib.loads(data.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n"))
    same(msgspec.to_builtins(found), given)
    unknown = given.keys() - set(config.Settings.__struct_fields__)
    unknown |= given.get("broker", {}).keys() - set(Broker.__struct_fields__)
    insist(not unknown, "a setting that is passed over", unknown)
    insist(len(found.sources) >= 1, "no source", found)


def check_config_written(data: bytes) -> None:
    """A configuration, one value or name changed."""
    choices = Choices(data)
    lines = _EXAMPLE.splitlines()
    at = choices.pick([index for index, line in enumerate(lines) if "=" in line])
    name, _, value = lines[at].partition(" = ")
    match choices.below(4):
        case 0:
            name = choices.text(10)
        case 1:
            lines.insert(at, f"{choices.pick(_NAMES)} = {choices.pick(_ODD_TOML)}")
            at += 1
        case _:
            value = choices.pick(_ODD_TOML)
    lines[at] = f"{name} = {value}"
    check_config("\n".join(lines).encode("utf-8", "replace"))


def check_source_url(data: bytes) -> None:
    """Any text: its parts as they stand there, or an error; a listener is open to this machine alone."""
    text = data.decode("utf-8", "replace")
    longest = LONGEST_LINE + 8 * len(text)  # it is quoted, with escapes, more than once
    found = attempt(lambda: parse(text), SourceError, places=["source"], longest=longest)
    if found is None:
        return
    whole = text.strip()
    if whole == "-":
        insist(found.kind == "stdin", "standard input is another thing", found)
        return
    query = whole.partition("?")[2]
    insist(whole == f"{found.kind}:{found.path}{'?' * ('?' in whole)}{query}", "a part is lost", found)
    insist(":" not in found.kind and "?" not in found.path, "parts that run over", found)
    options = {name: values[-1] for name, values in parse_qs(query, keep_blank_values=True).items()}
    insist(dict(found.options) == options, "other options", found)
    _listener(found, longest)


def _listener(url: SourceURL, longest: int) -> None:
    place = [f"source {url.text!r}"]
    settings = attempt(lambda: url.settings(ListenerSettings), SourceError, places=place, longest=longest)
    if settings is None:
        return
    files = (settings.cert_file, settings.key_file, settings.client_ca_file)
    if any(files):  # no files of this machine are opened here
        return
    for name in url.options:
        insist(name in ListenerSettings.__struct_fields__, "an option that is passed over", name)
    found = attempt(lambda: listen_at(url, settings), SourceError, places=place, longest=longest)
    if found is None:
        return
    insist(found.host.startswith("127.") or found.host == "::1", "listens beyond this machine", found)
    insist(
        str(found.port) == url.path.rpartition(":")[2].lstrip("0") or found.port == 0, "another port", found
    )
    insist(len(found.networks) == len(settings.allow), "a list of peers that is passed over", found)
    for peer in ("10.1.2.3", "192.0.2.1", "::1"):
        refused = found.refusal((peer, 2575)) is not None
        insist(
            refused or not found.networks or _allowed(found.networks, peer), "lets in who is not named", peer
        )


def _allowed(networks: Any, peer: str) -> bool:
    import ipaddress

    return any(ipaddress.ip_address(peer) in network for network in networks)


def _config_seeds() -> Iterable[bytes]:
    yield _EXAMPLE.encode()
    yield b'device = "bed-01"\nsource = "-"\n'
    yield b'device = "bed-01"\n[[source]]\nurl = "ble:"\n[[source]]\nurl = "hl7:2575?allow=10.1.2.0/24"\n'
    yield b'"a\\nb" = 1\n'
    yield b"device = " + b"[" * 3000
    yield b"min_rows = " + b"9" * 5000 + b"\n"


def _url_seeds() -> Iterable[bytes]:
    yield from (
        b"-",
        b"csv:vitals.csv?follow=1",
        b"replay:demo?patient=7&speed=600&from=70%",
        b"mqtt:monitors/bed-01",
        b"hl7:2575",
        b"hl7:0.0.0.0:2575?allow=10.1.2.3,10.1.0.0/16",
        b"fhir:[::1]:8080?allow=::1",
        b"fhir+poll:https://example.org/fhir?patient=7",
        b"sim:?scenario=sepsis&speed=60",
    )


_NAMES: Final = (*config.Settings.__struct_fields__, *Broker.__struct_fields__)

TARGETS: Final = (
    Target(
        name="config",
        about="a configuration file: any bytes",
        check=check_config,
        seeds=_config_seeds,
        words=(
            *_NAMES,
            "[broker]",
            "[alerts]",
            "[artefacts]",
            "[[source]]",
            ' = "',
            "true",
            "nan",
            "'''",
            '"""',
        ),
    ),
    Target(
        name="config-written",
        about="a configuration, one setting changed",
        check=check_config_written,
        choices=True,
    ),
    Target(
        name="source-url",
        about="the URL of a source: any text",
        check=check_source_url,
        seeds=_url_seeds,
        words=(
            *ListenerSettings.__struct_fields__,
            "hl7:",
            "fhir:",
            "127.0.0.1",
            "0.0.0.0",  # noqa: S104  (to be refused)
            "localhost",
            "::",
            "%",
        ),
        max_bytes=300,
    ),
)
