"""From a topic and its bytes to a checked item, or to the reason why it is dropped. Pure."""

from collections.abc import Callable
from datetime import datetime

import msgspec

from samd_gateway.printable import needs_care, plain_all
from samd_protocol import envelope, messages, topics
from samd_protocol.errors import MessageError

KINDS: tuple[str, ...] = ("state", "heartbeat", "assessment", "alert", "training", "result", "config")
"""What is read from devices; training updates are for the server alone."""

SERVER_KINDS = {
    topics.SERVER_RUN: "run.status",
    topics.SERVER_STATE: "server.state",
    topics.SERVER_MODEL_ANSWER: "model.answer",
}

_LARGEST = 2**63 - 1
_NO_END = 253_402_300_799.0  # 9999-12-31T23:59:59Z: how a certificate says that it has no end (RFC 5280)
_LAST_MOMENT = 253_402_214_400.0  # a day before the year 10000, whatever the time zone


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One accepted message. `received_at` is by this gateway's clock; `retained` ones are of unknown age."""

    sender: str
    kind: str
    envelope: envelope.Envelope
    received_at: float
    retained: bool = False
    text: str = ""

    @property
    def body(self) -> str:
        """The message's data as JSON."""
        return self.text or msgspec.json.encode(self.envelope.data).decode()


def device_filters() -> list[str]:
    """What a gateway hears of devices; of the server it hears `SERVER_KINDS`."""
    return [f"{topics.ROOT}/d/+/up/{kind}" for kind in KINDS]


def sender_of(topic: str) -> str:
    """Who wrote to a topic, for the log: a device's name, `server`, or `?`."""
    if topic in SERVER_KINDS:
        return "server"
    try:
        return topics.parse_up(topic)[0]
    except MessageError:
        return "?"


def parse(topic: str, payload: bytes, received_at: float, *, retained: bool = False) -> Item:
    """Check one message. Raises MessageError with a short reason for anything that cannot be accepted."""
    if topic in SERVER_KINDS:
        sender, kind = "server", SERVER_KINDS[topic]
    else:
        sender, kind = topics.parse_up(topic)
        if kind not in KINDS:
            raise MessageError("topic", f"a gateway does not read {topic!r}")
        if sender == "server":
            raise MessageError("name", "a device must not be called 'server', which is another sender's name")
    message = envelope.decode(payload, sender=sender)
    if message.type != kind:
        raise MessageError("topic", f"a message of type {message.type!r} on the topic of {kind!r}")
    _check(message)
    _check_times(message)
    text = msgspec.json.encode(message.data).decode()
    if needs_care(text):
        message, text = _with_plain_text(message, text)
    return Item(
        sender=sender, kind=kind, envelope=message, received_at=received_at, retained=retained, text=text
    )


def _with_plain_text(message: envelope.Envelope, text: str) -> tuple[envelope.Envelope, str]:
    """The message with its texts as they may be shown and logged; see `printable`."""
    raw = msgspec.json.decode(text)
    cleaned = plain_all(raw)
    if cleaned == raw:
        return message, text
    try:
        data = msgspec.convert(cleaned, type=type(message.data))
    except msgspec.ValidationError as error:
        raise MessageError("malformed", "a text that is no plain text where a word is expected") from error
    return msgspec.structs.replace(message, data=data), msgspec.json.encode(data).decode()


def _check_times(message: envelope.Envelope) -> None:
    """Refuse times that no clock shows and no database or page can hold; a clock that is merely wrong
    passes."""
    times: list[datetime | None] = [message.sent_at, message.expires_at]
    match message.data:
        case messages.Assessment() as assessment:
            times += [assessment.observed_at, assessment.next_due_at]
            if assessment.deterioration is not None:
                times.append(assessment.deterioration.asked_at)
        case messages.Alert() as alert:
            times.append(alert.observed_at)
        case messages.Heartbeat(certificate_expires_at=datetime() as end) if end.timestamp() > _NO_END:
            raise MessageError("range", "a certificate that ends after the year 9999")
        case messages.Training() as training:
            times.append(training.first_step_at)
        case _:
            pass
    if any(time is not None and not 0.0 <= time.timestamp() <= _LAST_MOMENT for time in times):
        raise MessageError("range", "a time before 1970 or at the end of the year 9999")


def _check(message: envelope.Envelope) -> None:
    """Limits that keep one sender's odd numbers from stopping everybody's batch at the database."""
    numbers: list[int | None] = [message.boot, message.seq]
    names = [message.id]
    match message.data:
        case messages.State() as state:
            numbers += [state.connection, state.model_version]
            names.append(state.boot_id)
        case messages.Heartbeat() as heartbeat:
            numbers.append(heartbeat.model_version)
        case messages.Assessment(deterioration=messages.Deterioration() as asked):
            numbers += [asked.horizon_h, asked.version]
            if asked.probability is not None and not 0 <= asked.probability <= 1:
                raise MessageError("range", "a probability is 0 to 1")
        case messages.Training() as training:
            numbers.append(training.round)
        case messages.Config() as config:
            numbers.append(config.version)
        case messages.Result() as result:
            names.append(result.command)
        case messages.ModelAnswer() as answer:
            names.append(answer.order)
        case messages.RunStatus() as status:
            numbers += [status.round, status.rounds, status.model_version]
            names.append(status.run)
        case messages.ServerState() as server:
            numbers += [server.model_version, *(each.model_version for each in server.others)]
        case _:
            pass
    if any(number is not None and not 0 <= number <= _LARGEST for number in numbers):
        raise MessageError("range", "a counter is negative or has more than 63 bits")
    if any(not 0 < len(name) <= 64 or not name.isprintable() for name in names):
        raise MessageError("malformed", "an id is empty, longer than 64 characters, or not printable")


class Malformed:
    """Counts what is dropped, and logs each sender's first."""

    LOGGED_AT_MOST = 1000

    def __init__(self, count: Callable[[str], None], log: Callable[[str], None]) -> None:
        self._count = count
        self._log = log
        self._logged: set[str] = set()

    def drop(self, topic: str, error: MessageError) -> None:
        self._count(error.reason)
        sender = sender_of(topic)
        # bounded: a flood under ever new names fills neither the memory nor the log
        if sender not in self._logged and len(self._logged) < self.LOGGED_AT_MOST:
            self._logged.add(sender)
            # the reason's word only: the text of an error may quote the message
            self._log(
                f"a message of {sender} was dropped ({error.reason}); more of this sender are only counted"
            )
