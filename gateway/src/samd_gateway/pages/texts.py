"""The texts of the pages: one folder a language, one file a page, keys `page.key` with `{placeholders}`."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

Language = Literal["en", "ko"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
NAMES: Mapping[Language, str] = {"en": "English", "ko": "한국어"}
FOLDER = Path(__file__).parent / "locale"


def _flat(prefix: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield prefix, value
        return
    for key, below in value.items():
        yield from _flat(f"{prefix}.{key}", below)


def load(language: Language, folder: Path = FOLDER) -> dict[str, str]:
    """Each text of a language by its key."""
    found: dict[str, str] = {}
    for path in sorted((folder / language).glob("*.json")):
        found.update(_flat(path.stem, json.loads(path.read_text(encoding="utf-8"))))
    return found


class Texts:
    """`t("ward.title")`, `t("ward.more", n=3)`. A key that no file has is shown as it is."""

    def __init__(self, language: Language, catalogue: Mapping[str, str]) -> None:
        self.language = language
        self._catalogue = catalogue

    def __call__(self, key: str, /, **arguments: object) -> str:
        text = self._catalogue.get(key, key)
        # replaced one by one: a value is never read as a pattern itself
        return text.format(**arguments) if arguments else text

    def has(self, key: str) -> bool:
        return key in self._catalogue

    def count(self, key: str, n: int, /, **arguments: object) -> str:
        """The text for a number of things: `key.one` or `key.other`, with `{n}`."""
        return self(f"{key}.{'one' if n == 1 else 'other'}", n=n, **arguments)

    def part(self, *prefixes: str) -> dict[str, str]:
        """All texts below these, for a component that runs in the browser."""
        wanted = tuple(f"{prefix}." for prefix in prefixes)
        return {key: text for key, text in self._catalogue.items() if key.startswith(wanted)}


class Catalogue:
    """The texts of all languages, read once."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self._texts = {language: Texts(language, load(language, folder)) for language in LANGUAGES}

    def of(self, language: Language) -> Texts:
        return self._texts[language]


def preferred(accepted: str) -> Language:
    """The first language of an `Accept-Language` header that we have; English otherwise."""
    ranked: list[tuple[float, int, Language]] = []
    for place, part in enumerate(accepted[:400].split(",")):
        tag, _, parameters = part.strip().partition(";")
        name = tag.partition("-")[0].strip().lower()
        quality = parameters.strip().removeprefix("q=")
        try:
            weight = float(quality) if quality else 1.0
        except ValueError:
            continue
        ranked.extend(
            (-weight, place, language) for language in LANGUAGES if name == language and weight > 0.0
        )
    return min(ranked)[2] if ranked else "en"
