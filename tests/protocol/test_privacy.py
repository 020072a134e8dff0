"""No vital sign, patient's name or record number can stand in a topic or a retained message.

The structs of the retained channels are walked field by field. Every text and every free-form table in them
is listed here with what may stand in it, so that a new one cannot slip in unseen.
"""

from collections.abc import Iterator

import msgspec
import pytest

from samd_protocol import messages
from samd_protocol.envelope import Wire
from samd_protocol.messages import CHANNELS

RETAINED = sorted({channel.message for channel in CHANNELS if channel.retain}, key=lambda kind: kind.__name__)

SIGNS = {
    "heart_rate",
    "pulse",
    "respiratory_rate",
    "spo2",
    "systolic_bp",
    "diastolic_bp",
    "blood_pressure",
    "temperature",
    "supplemental_oxygen",
    "consciousness",
    "signs",
    "points",
    "news2",
    "news2_low",
    "news2_high",
    "severity",
    "rule_severity",
    "probabilities",
    "observed_at",
    "missing",
    "spo2_scale",
}
PERSONS = {
    "name",
    "patient",
    "patient_name",
    "mrn",
    "record_number",
    "birth_date",
    "admission",
    "by",
    "subject_id",
}

FREE = {
    "State.boot_id": "random, new at each start",
    "State.client_version": "version of the program",
    "ModelRelease.sha256": "hash of a file",
    "ModelRelease.url": "address of a file, named by its hash",
    "ModelRelease.task": "name of what the model is for",
    "RunStatus.run": "id of a run",
    "RunStatus.awaited": "counts by coarse reason",
    "RunStatus.dropped": "counts by coarse reason",
    "RunStatus.metrics": "figures over all devices",
    "RunStatus.reason": "why a run ended, in words of the server",
    "ServerState.version": "version of the program",
    "ServerState.graph_sha256": "hash of the graph",
    "ServerState.task": "name of what the model is for",
    "ServerState.methods": "names of methods",
    "Served.task": "name of what the model is for",
    "Served.graph_sha256": "hash of the graph",
    "Served.methods": "names of methods",
    "GatewayState.version": "version of the program",
}


def fields(kind: type) -> Iterator[tuple[str, str, msgspec.inspect.Type]]:
    """(struct, field, type) of a struct and of every struct inside it, unions, lists and tables opened."""
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        for each in opened(field.type):
            if isinstance(each, msgspec.inspect.StructType):
                yield kind.__name__, field.encode_name, each
                yield from fields(each.cls)
            else:
                yield kind.__name__, field.encode_name, each


def opened(kind: msgspec.inspect.Type) -> Iterator[msgspec.inspect.Type]:
    match kind:
        case msgspec.inspect.UnionType():
            for each in kind.types:
                yield from opened(each)
        case msgspec.inspect.ListType():
            yield from opened(kind.item_type)
        case _:
            yield kind


def is_free(kind: msgspec.inspect.Type) -> bool:
    bounded = (
        msgspec.inspect.IntType,
        msgspec.inspect.FloatType,
        msgspec.inspect.BoolType,
        msgspec.inspect.NoneType,
        msgspec.inspect.LiteralType,
        msgspec.inspect.StructType,
    )
    return not isinstance(kind, bounded)


def test_the_retained_messages_are_these() -> None:
    assert [kind.__name__ for kind in RETAINED] == [
        "Config",
        "GatewayState",
        "ModelRelease",
        "RunStatus",
        "ServerState",
        "State",
    ]


@pytest.mark.parametrize("kind", RETAINED, ids=lambda kind: kind.__name__)
def test_no_field_of_a_retained_message_is_of_a_patient(kind: type) -> None:
    names = {field for _, field, _ in fields(kind)}
    assert not names & (SIGNS | PERSONS)
    assert names, "the walk saw the fields"


def test_every_free_text_of_a_retained_message_is_accounted_for() -> None:
    found = {f"{owner}.{name}" for kind in RETAINED for owner, name, each in fields(kind) if is_free(each)}
    assert found == set(FREE)


def test_the_walk_finds_what_is_deep_inside() -> None:
    names = {name for _, name, _ in fields(messages.Assessment)}
    assert {"points", "probabilities", "signs", "missing"} <= names & SIGNS
    assert {"admission", "by", "consciousness"} <= {name for _, name, _ in fields(messages.Command)}


def test_the_envelope_names_nobody() -> None:
    names = {name for _, name, _ in fields(Wire)}
    assert names == {"v", "id", "device", "boot", "seq", "sent_at", "clock", "type", "data", "expires_at"}


def test_what_a_model_answers_is_never_retained() -> None:
    within = {kind for channel in CHANNELS if channel.retain for kind, _, _ in fields(channel.message)}
    assert not within & {"Assessment", "Deterioration", "ModelView"}


def test_topics_hold_no_more_than_a_devices_a_gateways_or_a_tasks_name() -> None:
    for channel in CHANNELS:
        assert channel.topic.count("{") <= 1
        name = channel.topic.replace("{device}", "").replace("{gateway}", "").replace("{task}", "")
        assert name.count("{") == 0


def test_commands_and_orders_are_never_retained() -> None:
    assert [
        c.topic for c in CHANNELS if c.message in (messages.Command, messages.RunOrder) and c.retain
    ] == []


def test_raw_signs_are_absent_unless_they_are_given() -> None:
    optional = {field.name: field.default for field in msgspec.structs.fields(messages.Assessment)}
    assert optional["signs"] is None
