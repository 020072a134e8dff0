"""The documents say what the structs say; when a test fails here, its message is the remedy."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from samd_protocol import asyncapi, envelope, examples, messages, tasks, topics, wire_document
from samd_protocol.errors import ProtocolError
from samd_protocol.messages import CHANNELS

DOCS = Path(__file__).parents[2] / "docs"
ASYNCAPI = DOCS / "asyncapi.json"
WIRE = DOCS / "wire.md"


def test_the_asyncapi_document_is_up_to_date() -> None:
    if ASYNCAPI.read_text("utf-8") != asyncapi.text():
        pytest.fail(f"docs/asyncapi.json is stale; run: {asyncapi.REMEDY}", pytrace=False)


def test_the_wire_document_is_up_to_date() -> None:
    text = WIRE.read_text("utf-8")
    if text != wire_document.refresh(text):
        pytest.fail(f"docs/wire.md is stale; run: {wire_document.REMEDY}", pytrace=False)


def test_every_generated_part_stands_in_the_wire_document() -> None:
    found = re.findall(r"<!-- begin (\S+) -->", WIRE.read_text("utf-8"))
    assert sorted(found) == sorted(wire_document.parts())


def block(name: str) -> str:
    """The code block of one generated part, as a reader of the document would copy it."""
    found = re.search(
        rf"<!-- begin {re.escape(name)} -->\n```\w+\n(.*?)\n```\n<!-- end -->",
        WIRE.read_text("utf-8"),
        re.DOTALL,
    )
    assert found is not None, name
    return found[1]


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel.topic)
def test_every_example_can_be_read(channel: messages.Channel) -> None:
    read = envelope.decode(block(channel.topic).encode(), sender=examples.sender(channel))
    assert read == examples.envelope(channel)
    assert type(read.data) is channel.message


def test_every_command_in_the_document_can_be_read() -> None:
    read = [msgspec.json.decode(line, type=messages.CommandBody) for line in block("commands").splitlines()]
    kinds = list(dict.fromkeys(type(body) for body in read))
    assert kinds == list(messages.CommandBody.__args__)


def test_the_tasks_and_updates_in_the_document_can_be_read() -> None:
    def data(name: str) -> bytes:
        return base64.b64decode("".join(block(name).split()))

    assert tasks.decode_task(data("task-bytes")) == examples.task()
    assert tasks.decode_update(data("update-bytes")) == examples.update()
    assert tasks.decode_update(data("report-bytes")) == examples.report()
    assert msgspec.json.decode(block("task"), type=tasks.Task) == examples.task()
    assert msgspec.json.decode(block("update"), type=tasks.Update) == examples.update()
    assert msgspec.json.decode(block("report"), type=tasks.Update) == examples.report()


def references(part: Any) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for value in part.values() for found in references(value)]
    return [found for value in part for found in references(value)] if isinstance(part, list) else []


def test_every_reference_in_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi.document()
    found = references(document)
    assert len(found) > 50
    for reference in found:
        place: Any = document
        assert reference.startswith("#/")
        for key in reference[2:].split("/"):
            place = place[key]
        assert isinstance(place, dict)


def test_the_asyncapi_document_holds_every_channel_as_it_travels() -> None:
    document = json.loads(ASYNCAPI.read_text("utf-8"))
    assert document["asyncapi"] == "3.0.0"
    expected = {
        f"{topics.ROOT}/{channel.topic}": (channel.qos, channel.retain, channel.message.__name__)
        for channel in (*CHANNELS, asyncapi.TASK, asyncapi.UPDATE)
    }
    found = {}
    for operation in document["operations"].values():
        channel = document["channels"][operation["channel"]["$ref"].rpartition("/")[2]]
        binding = operation["bindings"]["mqtt"]
        (name,) = channel["messages"]
        found[channel["address"]] = (binding["qos"], binding["retain"], name)
        assert set(channel.get("parameters", {})) == set(re.findall(r"{(\w+)}", channel["address"]))
        assert document["components"]["messages"][name]["examples"]
    assert found == expected


def test_the_schemas_name_exactly_the_fields_of_the_structs() -> None:
    schemas = asyncapi.document()["components"]["schemas"]
    for kind in (
        *messages.Message.__args__,
        *messages.CommandBody.__args__,
        tasks.Task,
        tasks.Update,
        tasks.Vector,
    ):
        schema = schemas[kind.__name__]
        fields = {field.encode_name: field.required for field in msgspec.structs.fields(kind)}
        tag = {"type": True} if kind.__struct_config__.tag else {}
        assert set(schema["properties"]) == {*fields, *tag}
        assert set(schema["required"]) == {name for name, required in {**fields, **tag}.items() if required}


@pytest.mark.parametrize("module", ["asyncapi", "wire_document"])
def test_the_commands_refuse_a_file_that_cannot_be_written(module: str, tmp_path: Path) -> None:
    target = str(tmp_path / "missing" / "file")
    arguments = ["--out", target] if module == "asyncapi" else [target]
    done = subprocess.run(
        [sys.executable, "-m", f"samd_protocol.{module}", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert target in done.stderr


def test_the_commands_write_what_the_tests_compare(tmp_path: Path) -> None:
    out = tmp_path / "asyncapi.json"
    assert asyncapi.main(["--out", str(out)]) == 0
    assert out.read_text("utf-8") == asyncapi.text()
    page = tmp_path / "wire.md"
    page.write_text("before\n<!-- begin topics -->\nold\n<!-- end -->\nafter\n", "utf-8")
    assert wire_document.main([str(page)]) == 0
    assert "old" not in page.read_text("utf-8")
    assert page.read_text("utf-8").startswith("before\n<!-- begin topics -->\n| topic")
    assert page.read_text("utf-8").endswith("<!-- end -->\nafter\n")


def test_an_unknown_part_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ProtocolError, match="no part 'later'"):
        wire_document.refresh("<!-- begin later -->\n<!-- end -->")
    page = tmp_path / "wire.md"
    page.write_text("<!-- begin later -->\n<!-- end -->", "utf-8")
    assert wire_document.main([str(page)]) == 2
    assert "no part 'later'" in capsys.readouterr().err
