"""From what sources say to what is judged: readings out of order and twice, values taken back, restarts."""

from datetime import datetime, timedelta
from typing import Final

from samd_data.plausibility import Rejection
from samd_data.reading import FIELDS, Reading
from samd_edge.retraction import Retraction, Withdrawn
from samd_scripts.fuzzing.bedside import START, Bedside
from samd_scripts.fuzzing.choices import Choices, signs, value
from samd_scripts.fuzzing.oracle import insist
from samd_scripts.fuzzing.target import Target

_BEDS: Final[list[Bedside]] = []  # made when first needed: an agent takes a while to begin

Key = tuple[str, datetime]


class Patient:
    """A whole agent's patient, and beside it what sources have said and not taken back."""

    def __init__(self, bed: Bedside) -> None:
        self._bed = bed
        self.said: dict[Key, list[float | bool | str]] = {}
        self.given: list[Reading] = []
        self._in_order = True
        for reading in bed.known:
            self._note(reading)

    def take(self, reading: Reading) -> None:
        self._note(reading)
        self._bed.do(lambda: self._bed.agent.intake.take(reading))

    def reject(self, field: str, *, no_signal: bool) -> None:
        rejection = Rejection(
            *("hl7:1 OBX 1", 0, field, "", "the sensor is off", "place it again"),
            kind="no_signal" if no_signal else "implausible",
        )
        self._bed.do(lambda: self._bed.agent.intake.reject(rejection))

    def retract(self, key: Key, which: float | bool | str | None, instead: tuple[Reading, ...]) -> None:
        field, at = key
        self._in_order = False
        now = [getattr(one, field) for one in instead if one.observed_at == at]
        kept = [one for one in self.said[key] if which is None and one in now]
        self.said[key] = [one for one in self.said[key] if which is not None and one != which] + kept
        for reading in instead:
            self._note(reading)
        retraction = Retraction(
            values=(Withdrawn(field, at, which, "the sender withdraws the value"),),
            by="hl7:1",
            instead=instead,
        )
        self._bed.do(lambda: self._bed.agent.intake.retract(retraction))

    def takeable(self) -> list[Key]:
        """What a source may take back: what it said as measured at the time of its message."""
        return [
            (field, one.observed_at)
            for one in self.given
            for field in one.present()
            if field not in one.ages and self.said[field, one.observed_at]
        ]

    def age(self) -> None:
        admission = self._bed.agent.admission
        assert admission is not None
        self._bed.do(admission.age)

    def restart(self) -> None:
        """The agent ends and begins again, and knows the same, if it heard of things as they came."""
        admission = self._bed.agent.admission
        assert admission is not None
        before = self.known()
        admission.close()
        self._bed.do(lambda: self._bed.agent.open_admission(admission.record))
        after = self.known()
        insist(before == after or not self._in_order, "another picture after a restart", before, after)

    def known(self) -> Reading:
        admission = self._bed.agent.admission
        assert admission is not None
        return admission.assessor.assess(self._bed.wall).snapshot

    def check(self) -> None:
        """What is judged was said, at that time, and was not taken back; and it scores as the chart says."""
        snapshot = self.known()
        for field in snapshot.present():
            at = snapshot.observed_at - timedelta(seconds=snapshot.ages.get(field, 0.0))
            found = [
                one
                for (name, time), values in self.said.items()
                for one in values
                if name == field and abs(time - at) < timedelta(milliseconds=1)
            ]
            insist(getattr(snapshot, field) in found, f"a {field} that nobody stands by", snapshot, found)
        self._bed.well()

    def _note(self, reading: Reading) -> None:
        # judged in another order, a jump is another one
        newest = max((one.observed_at for one in self.given), default=reading.observed_at)
        self._in_order &= newest <= reading.observed_at and not reading.ages and reading not in self.given
        self.given.append(reading)
        for field in reading.present():
            at = reading.observed_at - timedelta(seconds=reading.ages.get(field, 0.0))
            self.said.setdefault((field, at), []).append(getattr(reading, field))


def check_intake_written(data: bytes) -> None:
    """A few things that sources say, in any order."""
    choices = Choices(data)
    if not _BEDS:
        _BEDS.append(Bedside(1.0))
    bed = _BEDS[0]
    bed.fresh(spo2_scale=choices.pick((1, 2)))
    patient = Patient(bed)
    for _ in range(choices.between(1, 8)):
        match choices.below(8):
            case 0 | 1 | 2:
                patient.take(_reading(choices, bed.wall))
            case 3:
                patient.take(choices.pick(patient.given))
            case 4:
                patient.reject(choices.pick(FIELDS), no_signal=choices.flag())
            case 5:
                key = choices.pick(patient.takeable())
                instead = (_reading(choices, bed.wall, key[1]),) if choices.flag() else ()
                patient.retract(key, None if choices.flag() else choices.pick(patient.said[key]), instead)
            case 6:
                bed.wall += timedelta(seconds=choices.below(20_000))
                patient.age()
            case _:
                patient.restart()
        patient.check()


def _reading(choices: Choices, now: datetime, at: datetime | None = None) -> Reading:
    """Of these hours, often of a time of which something was said before."""
    if at is None:
        seconds = choices.pick((0, 60, 3600, choices.below(50_000)))
        at = (START if choices.flag() else now) - timedelta(seconds=seconds)
    fields = {field: value(text) for field, text in signs(choices).items()}
    ages = {field: float(choices.below(20_000)) for field in fields if choices.below(8) == 7}
    return Reading(observed_at=at, ages=ages, **fields)


TARGETS: Final = (
    Target(
        name="intake-written",
        about="what sources say, in any order, up to what is judged",
        check=check_intake_written,
        choices=True,
    ),
)
