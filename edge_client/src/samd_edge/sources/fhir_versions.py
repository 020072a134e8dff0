"""What was taken of each Observation, so that a later version of it, or its withdrawal, finds it again.

An Observation is known by its id. What is said under it again may have another value, or another time; then
what was taken before is wrong. Where the id is not known here (none was given, it was long ago, or before a
restart), what is corrected or in error is looked for by sign and time.
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Final, NamedTuple

from samd_edge.retraction import Withdrawn

REMEMBERED: Final = 5_000
"""Observations: eight signs each minute for ten hours, in about 3 MB."""

IN_ERROR: Final = "the sender marks it as entered in error"
CORRECTED: Final = "the sender corrects it"
_NEWER: Final = "its server has another version of it"


class Said(NamedTuple):
    """One value that was taken."""

    field: str
    measured_at: datetime
    value: float | bool | str


class Version(NamedTuple):
    """What one version of an Observation says.

    ``key``: its id. ``said``: what is taken of it; None where it cannot be used. ``reason``: why it takes
    back what was said before, or None. ``otherwise``: what it takes back where its id is not known.
    """

    key: str | None
    said: tuple[Said, ...] | None
    reason: str | None = None
    otherwise: tuple[Withdrawn, ...] = ()


class Versions:
    """The Observations of one channel. ``of_server``: their ids are a server's, so each version replaces the
    one before; a client that only posts may use an id twice, and has to say that it corrects."""

    def __init__(self, *, of_server: bool) -> None:
        self._of_server = of_server
        self._said: OrderedDict[str, tuple[Said, ...]] = OrderedDict()
        self._count: Counter[Said] = Counter()

    def knows(self, key: str | None) -> bool:
        """Whether an Observation of this id was taken over."""
        return key in self._said

    def taken_back(self, versions: Iterable[Version]) -> Iterator[Withdrawn]:
        """What these versions take back. What another Observation said as well is not wrong by that."""
        gone: Counter[Said] = Counter()
        for version in versions:
            before = self._before(version)
            if before is None:
                yield from version.otherwise
                continue
            reason = version.reason or (_NEWER if self._of_server else None)
            if reason is None:
                continue
            for one in before:
                if one in (version.said or ()):
                    continue
                gone[one] += 1
                if gone[one] == self._count[one]:
                    yield Withdrawn(*one, reason)

    def _before(self, version: Version) -> tuple[Said, ...] | None:
        """What the version before has said; None where it is not known, or is not the one that is in error:
        an old version may have been sent again, or one id used for all."""
        before = None if version.key is None else self._said.get(version.key)
        if before and version.reason == IN_ERROR and version.otherwise:
            meant = {(one.field, one.measured_at) for one in version.otherwise}
            if not any((one.field, one.measured_at) in meant for one in before):
                return None
        return before

    def remember(self, versions: Iterable[Version]) -> None:
        """These were taken over."""
        for version in versions:
            if version.key is None or (version.said is None and not self._of_server):
                continue
            self._forget(version.key)
            self._said[version.key] = version.said or ()
            self._count.update(self._said[version.key])
            if len(self._said) > REMEMBERED:
                self._forget(next(iter(self._said)))

    def _forget(self, key: str) -> None:
        for one in self._said.pop(key, ()):
            self._count[one] -= 1
            if not self._count[one]:
                del self._count[one]
