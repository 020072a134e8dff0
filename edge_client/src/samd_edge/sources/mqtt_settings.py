"""What a ``mqtt:`` source is told, and what is refused of it before anything is connected."""

import hashlib
import json
import secrets
from typing import Any, Literal

import msgspec

from samd_edge.sources import SourceError, SourceURL
from samd_edge.sources.json_mapping import JsonMapping
from samd_edge.sources.surroundings import Surroundings
from samd_protocol.broker import Broker


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a source of this kind can be told. ``broker``: a URL, or a table with the fields of a Broker."""

    broker: str | dict[str, Any] | None = None
    fields: dict[str, Any] = {}
    time: Literal["message", "arrival"] = "message"
    one_patient: bool = False


def check_topic(url: SourceURL) -> None:
    """MQTT 5, 4.7; and never all topics of a broker, which the device's own are among."""
    topic = url.path
    if not topic:
        raise SourceError("source mqtt: names no topic; write mqtt:TOPIC, as in mqtt:monitors/bed-01/vitals")
    levels = topic.split("/")
    wildcards = all(level in ("+", "#") or not set(level) & set("+#") for level in levels)
    if not wildcards or "#" in levels[:-1] or "\0" in topic or len(topic.encode()) > 65_535:
        raise SourceError(
            f"source {url.text!r}: is no topic of MQTT; + stands for one whole level, # for all at the end"
        )
    if levels[0] in ("+", "#", "$share"):
        raise SourceError(
            f"source {url.text!r}: would read what is not this patient's; begin the topic with a name"
        )


def broker_of(url: SourceURL, settings: Settings, around: Surroundings) -> Broker:
    given = settings.broker
    if given is None:
        if around.broker is None:
            raise SourceError(f"source {url.text!r}: names no broker; add ?broker=mqtt://HOST:PORT")
        return around.broker
    if isinstance(given, str):
        if "@" in given:  # not quoted: a password may stand in it
            raise SourceError(
                "source mqtt: user name and password do not belong into the URL of a broker; write "
                "[source.broker] with url, username and password_file"
            )
        return Broker(url=given)
    for key in given:
        if key not in Broker.__struct_fields__:
            known = ", ".join(Broker.__struct_fields__)
            raise SourceError(f"source {url.text!r}: no {key!r} in broker; it has {known}")
    try:
        return msgspec.convert(given, Broker)
    except msgspec.ValidationError as error:
        raise SourceError(f"source {url.text!r}: broker: {error}") from error


def check_time(url: SourceURL, settings: Settings, mapping: JsonMapping | None) -> None:
    if mapping is None:
        return
    if mapping.observed_at is None and settings.time == "message":
        raise SourceError(
            f"source {url.text!r}: [source.fields] does not say where the time of observation stands; add "
            'observed_at = "PATH", or time = "arrival" beside url if the monitor sends none and sends at once'
        )
    if mapping.observed_at is not None and settings.time == "arrival":
        raise SourceError(
            f'source {url.text!r}: give observed_at or time = "arrival", not both: an old message must not '
            "pass for a new one"
        )


def check_patient(url: SourceURL, settings: Settings, mapping: JsonMapping | None) -> None:
    several = {"+", "#"} & set(url.path.split("/"))
    named = mapping is not None and mapping.patient is not None
    if several and not named and not settings.one_patient:
        raise SourceError(
            f'source {url.text!r}: topics with + or # may carry several patients; add patient = "PATH" to '
            "[source.fields], or one_patient = true if all of them are of this device's patient"
        )


def client_id(url: SourceURL, device: str | None) -> str:
    """Stable, so that the broker keeps what is sent meanwhile; never that of the agent (see ``link``), nor of
    another source of this device. A command without a device gets one of its own each time."""
    if device is None:
        return f"samd-source-{secrets.token_hex(8)}"
    settings = json.dumps([url.text, dict(url.table)], sort_keys=True, default=str)
    return f"samd-source-{device}-{hashlib.blake2b(settings.encode(), digest_size=6).hexdigest()}"
