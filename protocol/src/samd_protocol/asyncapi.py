"""The AsyncAPI 3.0 document of the wire, made from the structs themselves.

    python -m samd_protocol.asyncapi --out docs/asyncapi.json

The document is written from the side of the programs: each operation says which of them sends.
"""

import argparse
import base64
import sys
from pathlib import Path
from typing import Any

import msgspec

from samd_protocol import PROTOCOL_VERSION, envelope, examples, messages, tasks, topics
from samd_protocol.messages import CHANNELS, Channel

REMEDY = "python -m samd_protocol.asyncapi --out docs/asyncapi.json"

TASK = Channel(
    topic="d/{device}/dn/task",
    message=tasks.Task,
    sender="server",
    qos=1,
    retain=False,
    expires="round deadline",
    summary="A training task, MessagePack",
)
UPDATE = Channel(
    topic="d/{device}/up/update",
    message=tasks.Update,
    sender="device",
    qos=1,
    retain=False,
    expires="round deadline",
    summary="The answer to a task, MessagePack; the server alone may read it",
)

_JSON = "application/json"
_MSGPACK = "application/vnd.msgpack"


def document() -> dict[str, Any]:
    """The whole document, as plain dicts and lists in a fixed order."""
    channels = (*CHANNELS, TASK, UPDATE)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "SAMD wire",
            "version": f"{PROTOCOL_VERSION}.0.0",
            "description": (
                "What crosses between devices, gateways and the Flower server over MQTT 5. Research "
                "software, no certified medical device. No patient name, record number or vital sign stands "
                "in a topic, a client id or a retained message. Each operation is written from the side of "
                "the program that sends (x-sender). docs/wire.md says in words what a schema cannot."
            ),
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": _JSON,
        "servers": {
            "local": {
                "host": "127.0.0.1:1883",
                "protocol": "mqtt",
                "protocolVersion": "5.0",
                "description": "The embedded broker. For real use: mqtts with a certificate per device.",
            }
        },
        "channels": {_key(channel): _channel(channel) for channel in channels},
        "operations": {f"send.{_key(channel)}": _operation(channel) for channel in channels},
        "components": {"messages": _messages(channels), "schemas": _schemas()},
    }


def _key(channel: Channel) -> str:
    return channel.topic.replace("{", "").replace("}", "").replace("/", ".")


def _channel(channel: Channel) -> dict[str, Any]:
    name = channel.message.__name__
    described = {
        "device": "A device: 1 to 63 letters, digits, dots, dashes and underscores; never a patient's name.",
        "gateway": "A gateway, named by the same rule as a device.",
        "task": "What the model is asked: deterioration.",
    }
    parameters = {
        key: {"description": text} for key, text in described.items() if f"{{{key}}}" in channel.topic
    }
    return {
        "address": f"{topics.ROOT}/{channel.topic}",
        "title": channel.summary,
        "description": f"Written by the {channel.sender}; expires: {channel.expires}.",
        **({"parameters": parameters} if parameters else {}),
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
    }


def _operation(channel: Channel) -> dict[str, Any]:
    key = _key(channel)
    return {
        "action": "send",
        "channel": {"$ref": f"#/channels/{key}"},
        "summary": channel.summary,
        "messages": [{"$ref": f"#/channels/{key}/messages/{channel.message.__name__}"}],
        "bindings": {"mqtt": {"qos": channel.qos, "retain": channel.retain, "bindingVersion": "0.2.0"}},
        "x-sender": channel.sender,
        "x-expires": channel.expires,
    }


def _messages(channels: tuple[Channel, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for channel in channels:
        name = channel.message.__name__
        if channel in CHANNELS:
            found.setdefault(name, _enveloped(channel))
        else:
            example = examples.task() if channel is TASK else examples.update()
            found[name] = {
                "name": name.lower(),
                "title": channel.summary,
                "contentType": _MSGPACK,
                "payload": {"$ref": f"#/components/schemas/{name}"},
                "examples": [{"name": name.lower(), "payload": _plain(example)}],
            }
    return dict(sorted(found.items()))


def _enveloped(channel: Channel) -> dict[str, Any]:
    """A message in its envelope: the envelope's schema, with `type` and `data` narrowed to this message."""
    name = channel.message.__name__
    tag = str(channel.message.__struct_config__.tag)  # type: ignore[attr-defined]
    payload = {
        "allOf": [
            {"$ref": "#/components/schemas/Envelope"},
            {"properties": {"type": {"const": tag}, "data": {"$ref": f"#/components/schemas/{name}"}}},
        ]
    }
    return {
        "name": tag,
        "title": name,
        "contentType": _JSON,
        "payload": payload,
        "examples": [
            {"name": tag, "payload": msgspec.json.decode(envelope.encode(examples.envelope(channel)))}
        ],
    }


def _plain(item: tasks.Task | tasks.Update) -> Any:
    """A task or update as JSON would show it: the vector's bytes in base64."""
    return msgspec.to_builtins(item, enc_hook=lambda data: base64.b64encode(data).decode())


def _schemas() -> dict[str, Any]:
    kinds = [*dict.fromkeys(channel.message for channel in CHANNELS), *messages.CommandBody.__args__]
    (wire, *_), schemas = msgspec.json.schema_components(
        [envelope.Wire, *kinds, tasks.Task, tasks.Update], ref_template="#/components/schemas/{name}"
    )
    schemas["Envelope"] = schemas.pop(wire["$ref"].rpartition("/")[2])
    schemas["Envelope"] |= {"title": "Envelope", "description": envelope.Envelope.__doc__}
    return dict(sorted((name, _without_discriminator(schema)) for name, schema in schemas.items()))


def _without_discriminator(schema: Any) -> Any:
    """AsyncAPI's discriminator is another thing than OpenAPI's; each struct's own `type` says the same."""
    if isinstance(schema, dict):
        return {key: _without_discriminator(value) for key, value in schema.items() if key != "discriminator"}
    return [_without_discriminator(value) for value in schema] if isinstance(schema, list) else schema


def text() -> str:
    """The document as a JSON file, always the same bytes for the same structs."""
    return msgspec.json.format(msgspec.json.encode(document()), indent=2).decode() + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Write the document to a file or to standard output."""
    parser = argparse.ArgumentParser(
        prog="python -m samd_protocol.asyncapi",
        description="Write the AsyncAPI 3.0 document of the wire (JSON).",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write; standard output otherwise")
    out = parser.parse_args(arguments).out
    if out is None:
        sys.stdout.write(text())
        return 0
    try:
        out.write_text(text(), encoding="utf-8")
    except OSError as error:
        sys.stderr.write(
            f"{out}: cannot be written ({error.strerror}); name a file in a folder that exists\n"
        )
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
