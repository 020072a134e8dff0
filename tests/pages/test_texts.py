"""The catalogues: the same texts and placeholders in both languages, and every text that is used."""

import re
import string
from pathlib import Path

import pytest

from samd_gateway.pages import texts

PAGES = Path(texts.__file__).parent
USED = re.compile(r"""\b(?:t|this\.t|samd\.t|has)\(\s*["']([a-z_]+\.[\w.-]+)["']""")
TITLES = re.compile(r"""title="([a-z_]+\.[\w.-]+)\"""")


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_both_languages_have_the_same_texts() -> None:
    english, korean = texts.load("en"), texts.load("ko")
    assert english.keys() == korean.keys()
    assert {key for key in english if placeholders(english[key]) != placeholders(korean[key])} == set()
    assert {key for key, text in (english | korean).items() if not text.strip()} == set()


def test_korean_is_korean() -> None:
    """A text without a single Korean letter is one that was forgotten, or a name."""
    hangul = re.compile(r"[가-힣]")
    same = {key for key, text in texts.load("ko").items() if not hangul.search(text)}
    assert {key for key in same if texts.load("en")[key] != texts.load("ko")[key]} == set()


def test_every_text_that_is_used_is_there() -> None:
    known = texts.load("en")
    sources = [*PAGES.glob("*.py"), *PAGES.glob("static/*.js")]
    used = {
        (path.name, key)
        for path in sources
        for pattern in ((USED, TITLES) if path.suffix == ".py" else (USED,))
        for key in pattern.findall(path.read_text(encoding="utf-8"))
    }
    assert len(used) > 80
    missing = {
        (name, key)
        for name, key in used
        if key not in known and not any(text.startswith(f"{key.rstrip('.')}.") for text in known)
    }
    assert missing == set()


def test_values_are_no_patterns() -> None:
    catalogue = texts.Catalogue()
    t = catalogue.of("en")
    assert t("shell.lost", time="{age}", age="{0.__class__}") == (
        "The connection is lost. What you see is from {age}, {0.__class__} ago. Trying again."
    )
    assert t("no.such") == "no.such"
    assert (t.count("bedside.hours", 1), t.count("bedside.hours", 2)) == ("1 hour", "2 hours")


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("", "en"),
        ("ko", "ko"),
        ("ko-KR,ko;q=0.9,en;q=0.8", "ko"),
        ("de,en;q=0.5,ko;q=0.7", "ko"),
        ("ko;q=0,fr", "en"),
        ("en-GB,ko", "en"),
        ("ko;q=nonsense", "en"),
    ],
)
def test_the_browser_is_asked_for_its_language(accepted: str, language: str) -> None:
    assert texts.preferred(accepted) == language
