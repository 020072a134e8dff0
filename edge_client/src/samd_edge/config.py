"""What an agent is told at its start: a TOML file, and options that go before it.

    device = "bed-01"
    source = "replay:recordings?patient=7&speed=600"      # or several: ["hl7:2575", "ble:"], or [[source]]
    data_dir = "/var/lib/samd"        # default .samd/edge/DEVICE
    heartbeat_s = 10
    share_signs = false
    trainer = "litert"                # or "tensorflow"
    spo2_scale = 1                    # of an admission that the agent begins by itself
    monitoring_interval_s = 3600      # likewise: a full set of observations at least this often

    [[source]]                        # a source with settings that do not fit into a URL
    url = "mqtt:monitors/bed-01"
    fields = { observed_at = "ts", heart_rate = "vitals.hr" }

    [alerts]                          # see samd_edge.alerts.Policy, and: samd-edge alarms --help
    min_dwell_s = 600

    [artefacts]                       # see samd_edge.artefacts.ArtefactPolicy
    flat_lines = ["systolic_bp"]      # paced and ventilated: their rates stand still

    [broker]
    url = "mqtts://broker.ward:8883"
    username = "bed-01"
    password_file = "/etc/samd/password"     # mode 0600

An unknown key is an error, with its place: a setting that is misspelt is a setting that is not set.
"""

import tomllib
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from samd_data.plausibility import printable
from samd_edge.alerts import Policy
from samd_edge.artefacts import ArtefactPolicy
from samd_edge.sources import SourceError, SourceURL, parse
from samd_protocol.broker import Broker, check_private, read_secret
from samd_protocol.errors import BrokerError
from samd_protocol.topics import valid_name

DEFAULT_ROOT: Final = Path(".samd/edge")


class ConfigError(Exception):
    """A setting cannot be used; the text says where it stands and what it must be, on one line."""

    def __init__(self, text: str) -> None:
        super().__init__(printable(text))


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that an agent is told. Times in seconds; `max_model_mb` in 10^6 bytes."""

    device: str = ""
    source: str | list[str | dict[str, Any]] = ""
    broker: Broker = msgspec.field(default_factory=Broker)
    data_dir: str = ""
    model: str | None = None
    heartbeat_s: float = 10.0
    share_signs: bool = False
    trainer: Literal["litert", "tensorflow"] = "litert"
    prefork: bool = True
    train_during_alert: bool = False
    spo2_scale: Literal[1, 2] = 1
    monitoring_interval_s: float | None = None
    alerts: Policy = msgspec.field(default_factory=Policy)
    artefacts: ArtefactPolicy = msgspec.field(default_factory=ArtefactPolicy)
    consent: bool | None = None
    min_rows: int = 8
    max_readings: int = 500_000
    max_outbox: int = 50_000
    exit_at_end: bool = False

    @property
    def folder(self) -> Path:
        """The data directory."""
        return Path(self.data_dir) if self.data_dir else DEFAULT_ROOT / self.device

    @property
    def sources(self) -> list[SourceURL]:
        """The sources, taken apart. Raises SourceError or ConfigError."""
        given = [self.source] if isinstance(self.source, str) else self.source
        return [_source(entry) for entry in given]


def load(file: Path | None, overrides: dict[str, Any]) -> Settings:
    """Settings from a file, with `overrides` before it (None there: not given; `broker_url` is the URL).

    Raises ConfigError for a file that cannot be read, an unknown key, and a value that cannot be.
    """
    values: dict[str, Any] = {}
    if file is not None:
        try:
            values = tomllib.loads(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
        except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, a number without end, too deep
            raise ConfigError(f"{file}: is no TOML ({error})") from error
    where = str(file) if file is not None else "options"
    url = overrides.get("broker_url")
    values.update({k: v for k, v in overrides.items() if v is not None and k != "broker_url"})
    if url is not None:
        values["broker"] = {**_table(values.get("broker", {}), where), "url": url}
    _check_keys(values, where)
    try:
        settings = msgspec.convert(values, Settings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}: {error}") from error
    _check(settings, where)
    return settings


def _source(entry: str | dict[str, Any]) -> SourceURL:
    if isinstance(entry, str):
        return parse(entry)
    table = dict(entry)
    url = table.pop("url", None)
    if not isinstance(url, str):
        raise ConfigError('a [[source]] needs its url, as in url = "hl7:2575"')
    return parse(url, table)


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: broker is a table; write [broker] and url = ... below it")
    return value


def _check_keys(values: dict[str, Any], where: str) -> None:
    """Say which key is unknown, and where: the broker's own type would take any."""
    for known, given, place in (
        (Settings.__struct_fields__, values, ""),
        (Broker.__struct_fields__, _table(values.get("broker", {}), where), "broker."),
    ):
        for key in given:
            if key not in known:
                names = ", ".join(place + name for name in known)
                raise ConfigError(f"{where}: unknown key {place}{key}; known are {names}")


def _check(settings: Settings, where: str) -> None:
    if not settings.device:
        raise ConfigError(f"{where}: no device; give --device NAME, as in bed-01")
    if not valid_name(settings.device):
        raise ConfigError(
            f"{where}: device {settings.device!r}: use 1 to 63 letters, digits, dots, dashes and "
            "underscores, beginning with a letter or a digit; never a patient's name"
        )
    if not settings.source:
        raise ConfigError(f"{where}: no source; give --source URL, as in replay:PATH?patient=N or -")
    try:
        _ = settings.sources
    except (SourceError, ConfigError) as error:
        raise ConfigError(f"{where}: {error}") from error
    if settings.monitoring_interval_s is not None and not 60 <= settings.monitoring_interval_s <= 86_400:
        raise ConfigError(
            f"{where}: monitoring_interval_s is {settings.monitoring_interval_s:g}; "
            "it must lie between 60 and 86400"
        )
    for name, low, high in (
        ("heartbeat_s", 0.1, 86_400),
        ("min_rows", 1, 10**9),
        ("max_readings", 1000, 10**9),
        ("max_outbox", 100, 10**9),
    ):
        value = getattr(settings, name)
        if not low <= value <= high:
            raise ConfigError(f"{where}: {name} is {value}; it must lie between {low} and {high}")
    try:
        _ = settings.broker.address
        if settings.broker.password_file is not None:
            read_secret(settings.broker.password_file)
        if settings.broker.key_file is not None:
            check_private(settings.broker.key_file)
    except BrokerError as error:
        raise ConfigError(f"{where}: {error}") from error
