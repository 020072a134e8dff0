"""The parts of `docs/wire.md` that are made from the structs: the table of topics and the examples.

    python -m samd_protocol.wire_document docs/wire.md

Everything between `<!-- begin NAME -->` and `<!-- end -->` is written anew; the rest is left as it is.
"""

import argparse
import base64
import re
import sys
import textwrap
from pathlib import Path

import msgspec

from samd_protocol import asyncapi, envelope, examples, tasks, topics
from samd_protocol.errors import ProtocolError
from samd_protocol.messages import CHANNELS

REMEDY = "python -m samd_protocol.wire_document docs/wire.md"

_PART = re.compile(r"<!-- begin (\S+) -->\n.*?<!-- end -->", re.DOTALL)


def parts() -> dict[str, str]:
    """Every part that can stand in the document, by name: `topics`, `commands`, `task` and so on, and one
    example for each channel under its topic."""
    found = {
        channel.topic: _fenced("json", _pretty(envelope.encode(examples.envelope(channel))))
        for channel in CHANNELS
    }
    found["topics"] = _table()
    bodies = [msgspec.json.encode(body).decode() for body in examples.command_bodies()]
    found["commands"] = _fenced("json", "\n".join(bodies))
    for name, item in (
        ("task", examples.task()),
        ("update", examples.update()),
        ("report", examples.report()),
    ):
        found[name] = _fenced("json", _pretty(msgspec.json.encode(item)))
        found[f"{name}-bytes"] = _fenced("text", "\n".join(textwrap.wrap(_base64(item), 100)))
    return found


def refresh(text: str) -> str:
    """The document with its generated parts as they are now. Raises ProtocolError for an unknown part."""
    known = parts()

    def replaced(match: re.Match[str]) -> str:
        name = match[1]
        if name not in known:
            raise ProtocolError(f"no part {name!r}: there are {', '.join(sorted(known))}")
        return f"<!-- begin {name} -->\n{known[name]}<!-- end -->"

    return _PART.sub(replaced, text)


def _table() -> str:
    rows = [
        f"| topic, below `{topics.ROOT}/` | written by | content | QoS | retained | expires |",
        "|---|---|---|---|---|---|",
    ]
    for channel in (*CHANNELS, asyncapi.TASK, asyncapi.UPDATE):
        kept = "yes" if channel.retain else "no"
        rows.append(
            f"| `{channel.topic}` | {channel.sender} | {channel.summary} (`{channel.message.__name__}`) "
            f"| {channel.qos} | {kept} | {channel.expires} |"
        )
    return "\n".join(rows) + "\n"


def _pretty(data: bytes) -> str:
    return msgspec.json.format(data, indent=2).decode()


def _base64(item: tasks.Task | tasks.Update) -> str:
    return base64.b64encode(tasks.encode(item)).decode()


def _fenced(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```\n"


def main(arguments: list[str] | None = None) -> int:
    """Bring the generated parts of one document up to date."""
    parser = argparse.ArgumentParser(
        prog="python -m samd_protocol.wire_document",
        description="Bring the examples in docs/wire.md up to date.",
    )
    parser.add_argument("file", type=Path, help="the document")
    file = parser.parse_args(arguments).file
    try:
        file.write_text(refresh(file.read_text("utf-8")), "utf-8")
    except OSError as error:
        sys.stderr.write(f"{file}: cannot be read or written ({error.strerror}); name the document\n")
        return 2
    except ProtocolError as error:
        sys.stderr.write(f"{file}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
