"""Passwords: what is taken for one, and how it is kept (argon2id, by the library's recommended cost)."""

import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from samd_gateway.errors import UsageError

MIN_LENGTH = 12
MAX_LENGTH = 256
"""Longer ones only cost time: 256 characters hold more than any hash."""

# Stems of the passwords that every list of the commonest begins with. A password is refused if it is nothing
# but one of them, digits and signs around it, and repetitions: `Password2024!`, `qwertyqwerty`.
COMMON = (
    "password",
    "passwort",
    "passw0rd",
    "p@ssw0rd",
    "qwertyuiop",
    "qwertz",
    "qwerty",
    "asdfghjkl",
    "zxcvbnm",
    "1q2w3e4r5t6y",
    "1q2w3e4r",
    "1qaz2wsx3edc",
    "1qaz2wsx",
    "qazwsx",
    "abcdefghijkl",
    "abcdef",
    "abcd",
    "abc",
    "letmein",
    "welcome",
    "iloveyou",
    "administrator",
    "admin",
    "changeme",
    "default",
    "secret",
    "trustno",
    "monkey",
    "dragon",
    "football",
    "baseball",
    "sunshine",
    "princess",
    "superman",
    "hospital",
    "gateway",
    "nurse",
    "ward",
    "samd",
)
_TRIM = "0123456789 .,;:!?@#$%^&*()-_=+/\\'\""


def check(password: str, name: str) -> None:
    """Raises UsageError, saying what to do, for a password that is too short, or that is guessed first."""
    if len(password) < MIN_LENGTH:
        raise UsageError(
            f"the password has {len(password)} characters; take at least {MIN_LENGTH}: some words in a row do"
        )
    if len(password) > MAX_LENGTH:
        raise UsageError(f"the password has more than {MAX_LENGTH} characters; take a shorter one")
    plain = password.casefold()
    if name and name.casefold() in plain and len(plain) - len(name) < MIN_LENGTH:
        raise UsageError("the password is little more than the user's name; take other words")
    if len(set(plain)) < 5:
        raise UsageError("the password repeats a few characters; take some words in a row")
    rest = plain
    for stem in COMMON:
        rest = rest.replace(stem, "")
    if rest != plain and not rest.strip(_TRIM):
        raise UsageError("the password is one of those that are guessed first; take some words in a row")
    if not plain.strip(_TRIM):
        raise UsageError("the password is digits and signs alone; take some words in a row")


class Passwords:
    """Hashes and verifies. Each hash takes 64 MB, so that two at most are worked on at a time."""

    def __init__(self, hasher: PasswordHasher | None = None) -> None:
        self._hasher = hasher or PasswordHasher()
        self._turn = threading.BoundedSemaphore(2)
        self._nobody: str | None = None

    def hash(self, password: str) -> str:
        with self._turn:
            return self._hasher.hash(password)

    def verify(self, kept: str | None, password: str) -> bool:
        """Whether it is the one; without a kept hash it takes as long, and is False."""
        with self._turn:
            if kept is None and self._nobody is None:
                self._nobody = self._hasher.hash("nobody has this password")
            try:
                found = self._hasher.verify(kept or self._nobody or "", password[: MAX_LENGTH + 1])
            except (VerificationError, InvalidHashError):
                return False
        return found and kept is not None

    def outdated(self, kept: str) -> bool:
        """Whether it was hashed at another cost than is recommended now."""
        return self._hasher.check_needs_rehash(kept)
