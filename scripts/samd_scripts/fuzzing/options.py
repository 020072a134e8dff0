"""What sources can be told: options in a URL, and the field mapping of a monitor."""

import itertools
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from samd_edge.sources import SourceError, SourceURL, fhir, hl7v2, mqtt, parse, replay, sim
from samd_edge.sources.surroundings import Surroundings
from samd_protocol.broker import Broker
from samd_scripts.fuzzing.bedside import reading
from samd_scripts.fuzzing.choices import Choices
from samd_scripts.fuzzing.json_parts import changed
from samd_scripts.fuzzing.monitors import MAPPING, items
from samd_scripts.fuzzing.oracle import LONGEST_LINE, attempt, insist, one_line, parsed, sort
from samd_scripts.fuzzing.target import Target

_NOW: Final = datetime(2026, 3, 1, 8, tzinfo=UTC)
_ODD: Final = (
    "", "0", "1", "-1", "nan", "inf", "1e400", "1e6", "1_0", "0x10", "true", "false", "null", "%00",
    "%0A", "%1B[2J", "Europe/Berlin", "local", "../../etc/passwd", "Europe", "/etc/localtime", "UTC%00",
    "sepsis", "copd", "probe-off", "artefacts", "70%25", "100.1%25", "-0%25", "2026-03-01T07:30:00Z",
    "2026-03-01T07:30:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59-14:00", "utf-8", "utf-16",
    "idna", "rot13", "unicode_escape", "zlib", "10.0.0.0/8,::1", "mqtt://a", "mqtt://a:b@c", "arrival",
    "9" * 5000, "９", "18446744073709551616",
)  # fmt: skip
_NAMES: Final = {
    "sim": ("scenario", "speed", "seed", "hours", "every"),
    "hl7": ("zone", "encoding", "allow"),
    "fhir": ("allow",),
    "mqtt": ("broker", "time", "one_patient", "fields"),
    "replay": ("from", "speed", "patient"),
}


def check_options(data: bytes) -> None:
    """Any URL of a source: opened as far as it can be without a machine, or an error of one line."""
    text = data.decode("utf-8", "replace")
    longest = LONGEST_LINE + 12 * len(text)
    attempt(lambda: _opened(parse(text)), SourceError, longest=longest)


def _opened(url: SourceURL) -> None:
    around = Surroundings(wall=lambda: _NOW, broker=Broker())
    match url.kind:
        case "sim":
            try:
                source = sim.open_source(url, around)
            except SourceError as error:
                for line in str(error).splitlines():  # it lists the scenarios, each on a line
                    one_line(line, longest=LONGEST_LINE + 12 * len(url.text))
                return
            sort(timed.item for timed in itertools.islice(source._items, 30))
        case "mqtt":
            mqtt.open_source(url, around)
        case "hl7":
            settings = url.settings(hl7v2.Settings)
            insist(b"\r".decode(settings.encoding) == "\r", "an encoding that no frame can have", settings)
        case "fhir":
            url.settings(fhir.Settings)
        case "replay":
            url.only("patient", "speed", "from")
            played = [reading(minute) for minute in range(0, 60, 10)]
            before, start = replay.split(played, url.options.get("from", "0%"))
            insist(0 <= before <= len(played), "more than there is", before)
            insist(all(one.observed_at <= start for one in played[:before]), "a past from the future", start)


def check_options_written(data: bytes) -> None:
    """Options that sources know, with odd values."""
    choices = Choices(data)
    kind = choices.pick(list(_NAMES))
    path = {"sim": "", "replay": "demo", "mqtt": "monitors/bed-01"}.get(kind, "2575")
    pairs = [
        f"{choices.pick(_NAMES[kind])}={choices.pick(_ODD) if choices.below(4) else choices.text(20)}"
        for _ in range(choices.between(1, 3))
    ]
    check_options(f"{kind}:{path}?{'&'.join(pairs)}".encode("utf-8", "replace"))


def check_mapping(data: bytes) -> None:
    """Any JSON object as a field mapping: one that works, or an error that names its place."""
    try:
        table = parsed(data)
    except ValueError:
        return
    if not isinstance(table, dict):
        return
    where = "source 'mqtt:monitors/bed-01'"
    message = b'{"ts": "2026-03-01T07:59:00Z", "a": {"b": [97, "x"]}, "patient": {"id": "7"}}'
    attempt(
        lambda: items({"fields": table}, message),
        SourceError,
        places=[where],
        longest=LONGEST_LINE + 12 * len(data),
    )


def check_mapping_written(data: bytes) -> None:
    """A mapping with one part changed."""
    choices = Choices(data)
    check_mapping(changed(choices, MAPPING).encode("utf-8", "replace"))


def _url_seeds() -> Iterable[bytes]:
    yield b"sim:?scenario=sepsis&speed=60&seed=1&hours=24&every=5"
    yield b"hl7:2575?zone=Europe/Berlin&encoding=iso-8859-1&allow=10.1.2.0/24"
    yield b"mqtt:monitors/bed-01?broker=mqtt://127.0.0.1:1883&time=arrival"
    yield b"mqtt:monitors/+/vitals?one_patient=true"
    yield b"replay:demo?from=70%25&speed=600&patient=7"


def _mapping_seeds() -> Iterable[bytes]:
    yield json.dumps(MAPPING).encode()
    simple: dict[str, Any] = {
        "observed_at": "ts",
        "spo2": "a.b[0]",
        "temperature": {"path": ["a", "b", 1], "unit": "Cel"},
    }
    yield json.dumps(simple).encode()


TARGETS: Final = (
    Target(
        name="options",
        about="the options of sources: any text",
        check=check_options,
        seeds=_url_seeds,
        words=(
            "sim:?",
            "hl7:1?",
            "mqtt:a?",
            "replay:a?from=",
            *(name for names in _NAMES.values() for name in names),
        ),
        max_bytes=300,
    ),
    Target(
        name="options-written",
        about="the options of sources, with odd values",
        check=check_options_written,
        choices=True,
    ),
    Target(
        name="mapping",
        about="the field mapping of a monitor: any JSON",
        check=check_mapping,
        seeds=_mapping_seeds,
        words=(
            "observed_at",
            "path",
            "unit",
            "unit_path",
            "values",
            "no_signal",
            "age",
            "time",
            "format",
            "zone",
        ),
    ),
    Target(
        name="mapping-written",
        about="the field mapping of a monitor, one part changed",
        check=check_mapping_written,
        choices=True,
    ),
)
