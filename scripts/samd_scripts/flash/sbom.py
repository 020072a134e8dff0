"""What is in an image: every package with version, licence and origin, as CycloneDX 1.5 (JSON).

Debian's packages come from dpkg's own list, their licences from the copyright files that stay in the image
for that; Python's from the metadata of each distribution in the release.
"""

import re
import uuid
from collections.abc import Iterable, Mapping
from email.parser import HeaderParser
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import msgspec

NAMESPACE: Final = uuid.UUID("6ba7b811-9dad-11d1-80b4-00c04fd430c8")
_PARAGRAPH: Final = re.compile(r"^License:[ \t]*(\S.*)$", re.MULTILINE)
_WORDS: Final = (
    (r"GNU LESSER GENERAL PUBLIC|GNU Library General|\bLGPL", "LGPL"),
    (r"GNU GENERAL PUBLIC|\bGPL", "GPL"),
    (r"Apache License", "Apache"),
    (r"Mozilla Public License", "MPL"),
    (r"Redistribution and use in source and binary forms", "BSD"),
    (r"Permission is hereby granted, free of charge", "MIT"),
    (r"public domain", "public-domain"),
)
"""For copyright files that are prose: what they name."""


def of_tree(root: Path, site: Path) -> list[dict[str, Any]]:
    """The components of a root file system and of the client's packages, by name."""
    status = (root / "var/lib/dpkg/status").read_text(errors="replace")
    found = [_debian(fields, root / "usr/share/doc") for fields in paragraphs(status)]
    found += of_site(site)
    return sorted(filter(None, found), key=lambda part: part["purl"])


def of_site(site: Path) -> list[dict[str, Any]]:
    """The Python distributions in a folder."""
    return [_python(path) for path in sorted(site.glob("*.dist-info/METADATA"))]


def document(
    components: Iterable[Mapping[str, Any]], *, name: str, version: str, sha256: str
) -> dict[str, Any]:
    """The whole document, for an image of this hash: the same image has the same serial number."""
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(NAMESPACE, sha256)}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "operating-system",
                "name": name,
                "version": version,
                "hashes": [{"alg": "SHA-256", "content": sha256}],
            }
        },
        "components": list(components),
    }


def encode(value: Any) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=1) + b"\n"


def paragraphs(status: str) -> Iterable[dict[str, str]]:
    """dpkg's list, one package each; folded lines are of no interest."""
    for text in status.split("\n\n"):
        fields = dict(re.findall(r"^([A-Za-z-]+):[ ]*(.*)$", text, re.MULTILINE))
        if fields.get("Package"):
            yield fields


def _debian(fields: Mapping[str, str], documents: Path) -> dict[str, Any] | None:
    if not fields.get("Status", "").endswith(" installed"):
        return None
    name, version, arch = fields["Package"], fields["Version"], fields["Architecture"]
    part: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:deb/debian/{quote(name)}@{quote(version)}?arch={arch}",
        "supplier": {"name": fields.get("Maintainer", "Debian")},
    }
    licences = debian_licences(documents / name / "copyright")
    return part | ({"licenses": [{"license": {"name": licence}} for licence in licences]} if licences else {})


def debian_licences(copyright_file: Path) -> list[str]:
    """The licences that a copyright file names: its own fields, else the well-known texts in its prose."""
    try:
        text = copyright_file.read_text(errors="replace")
    except OSError:
        return []
    stated = {line.strip() for line in _PARAGRAPH.findall(text)}
    if not stated:
        stated = {name for pattern, name in _WORDS if re.search(pattern, text, re.IGNORECASE)}
    return sorted(stated)


def _python(metadata: Path) -> dict[str, Any]:
    fields = HeaderParser().parsestr(metadata.read_text(errors="replace"))
    name, version = str(fields["Name"]), str(fields["Version"])
    part: dict[str, Any] = {
        "type": "library",
        "name": name,
        "version": version,
        "purl": f"pkg:pypi/{quote(name.lower().replace('_', '-'))}@{quote(version)}",
    }
    licence = fields.get("License-Expression")
    if licence:
        return part | {"licenses": [{"expression": licence}]}
    named = [
        line.rpartition(" :: ")[2]
        for line in fields.get_all("Classifier", [])
        if line.startswith("License ::") and line != "License :: OSI Approved"
    ]
    stated = (fields.get("License") or "").strip().splitlines()
    names = named or [line for line in stated[:1] if line and line != "UNKNOWN"]
    return part | ({"licenses": [{"license": {"name": name}} for name in names]} if names else {})
