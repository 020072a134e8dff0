"""What each command does on this device: one function for each, and the reasons for which it is refused."""

import logging
import sqlite3
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from samd_data.carry import CARRY_SECONDS
from samd_data.plausibility import RANGES, check, remedy
from samd_data.reading import FIELDS, VITALS, Reading
from samd_data.tasks import SEVERITY, TASKS
from samd_edge import heartbeat
from samd_edge.admission import Admission, Record, folder_of
from samd_edge.clock import AHEAD
from samd_edge.commands import Answer, CommandFailed, Refused
from samd_edge.database import StoreError
from samd_edge.models import ModelError
from samd_protocol.messages import (
    CommandBody,
    Correction,
    ModelActivate,
    ModelRollback,
    ObservationAdd,
    PatientAdmit,
    PatientDischarge,
    Report,
    TrainingStart,
    TrainingStop,
)
from samd_protocol.topics import valid_name

if TYPE_CHECKING:
    from samd_edge.agent import Agent

log = logging.getLogger(__name__)

SAME_S: Final = 1.0
"""A value is the one that a correction names when its time lies this close to the time named."""


def execute(agent: "Agent", body: CommandBody) -> Answer:
    """Carry out a command. Raises Refused with the reason, or CommandFailed."""
    try:
        match body:
            case TrainingStart():
                return training_start(agent, body)
            case TrainingStop():
                return training_stop(agent, body)
            case ModelActivate():
                return model_activate(agent, body)
            case ModelRollback():
                return model_rollback(agent, body)
            case ObservationAdd():
                return observation_add(agent, body)
            case PatientAdmit():
                return patient_admit(agent, body)
            case PatientDischarge():
                return patient_discharge(agent, body)
            case Report():
                return report(agent)
    except (StoreError, OSError) as error:
        raise CommandFailed(str(error)) from error
    except sqlite3.Error as error:
        raise CommandFailed(f"the store cannot be written ({error}); check the disk") from error
    except (Refused, CommandFailed):
        raise
    except Exception as error:
        # the last net: whatever a command meets, its sender is answered and the readings go on
        log.error("a command failed in the client (%s); please report it", type(error).__name__)
        raise CommandFailed(f"a fault of the client ({type(error).__name__}); report it") from error


def training_start(agent: "Agent", body: TrainingStart) -> Answer:
    """Take part in a run, or say why not. Reasons are checked cheaply: the answer is due within a second."""
    admission = agent.admission
    if admission is None:
        raise Refused("no patient")
    if not admission.record.consent:
        raise Refused("opted out")
    running = agent.participation.running()
    if running is not None and running.id != body.run:
        raise Refused("in another run")
    if body.task not in TASKS:
        raise Refused(f"wrong model: this device trains {' and '.join(TASKS)}, not {body.task!r}")
    held = agent.shelf.with_graph(body.graph_sha256, task=body.task)
    if held is None:
        raise Refused("wrong model: its graph is not held here")
    if admission.alert.active and not agent.settings.train_during_alert:
        raise Refused("an alert is active")
    rows = admission.store.num_readings()
    if rows < agent.settings.min_rows:
        raise Refused("no data" if rows == 0 else f"too few rows: {rows} of {agent.settings.min_rows}")
    if heartbeat.on_battery():
        raise Refused("on battery")
    temperature = heartbeat.temperature_c()
    if temperature is not None and temperature >= heartbeat.HOT_C:
        raise Refused(f"too hot: {temperature:.0f} °C")
    active = agent.shelf.active(body.task)
    agent.participation.join(body.run, held, admission.store.path, None if active is None else active.path)
    return Answer(accepted=True, rows=rows)


def training_stop(agent: "Agent", body: TrainingStop) -> Answer:
    """Leave a run."""
    running = agent.participation.running()
    if running is None or running.id != body.run:
        raise Refused("not in this run")
    agent.participation.leave()
    return Answer()


def model_activate(agent: "Agent", body: ModelActivate) -> Answer:
    """Use a version that is held."""
    held = agent.shelf.find(body.version, task=body.task)
    if held is None:
        other = "" if body.task == SEVERITY else f" for {body.task!r}"
        raise Refused(f"model {body.version} is not held here{other}")
    try:
        agent.use(held)
    except ModelError as error:
        raise Refused(str(error)) from error
    return Answer(model_version=held.version)


def model_rollback(agent: "Agent", body: ModelRollback) -> Answer:
    """Go back to the version that was active before for a task."""
    held = agent.shelf.previous(body.task)
    if held is None:
        raise Refused("there is no model to go back to")
    try:
        agent.use(held)
    except ModelError as error:
        raise Refused(str(error)) from error
    return Answer(model_version=held.version)


def observation_add(agent: "Agent", body: ObservationAdd) -> Answer:
    """What a person observed, at the patient's time."""
    admission = agent.admission
    if admission is None:
        raise Refused("no patient")
    nothing = body.supplemental_oxygen is None and body.consciousness is None
    if nothing and body.correction is None:
        raise Refused("nothing was observed: give oxygen, consciousness, or both")
    if not body.by.strip():
        raise Refused("by whom? an observation carries a name")
    if body.correction is not None:
        if not nothing:
            raise Refused("an observation and a correction are two commands; send them apart")
        return _correct(agent, admission, body.correction, body.by)
    wall = agent.wall()
    ago = timedelta(0) if body.observed_at is None else wall - body.observed_at
    if ago < -AHEAD:
        raise Refused("its time lies in the future")
    if ago > timedelta(seconds=CARRY_SECONDS["consciousness"]):
        raise Refused("its time is more than 12 h ago: it says nothing of now")
    clock = agent.source.clock
    reading = Reading(
        observed_at=clock.now() - max(ago, timedelta(0)) * clock.speed,
        supplemental_oxygen=body.supplemental_oxygen,
        consciousness=body.consciousness,
    )
    admission.observe(reading, by=body.by, entered_at=wall)
    return Answer()


def _correct(agent: "Agent", admission: Admission, correction: Correction, by: str) -> Answer:
    """A wrong value struck through, with name and reason; the right one in its place if it is known."""
    field, value = correction.field, correction.value
    if field not in FIELDS:
        raise Refused(f"there is no {field!r} in a reading; the fields are {', '.join(FIELDS)}")
    if not correction.reason.strip():
        raise Refused("why? a correction carries its reason")
    if value is not None:
        if field in VITALS and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if check(field, value) is not None:
            # without the value itself: results are logged
            raise Refused(f"the right value of {field} is not plausible: {_plausible(field)}")
    clock = agent.source.clock
    at = None
    if correction.observed_at is not None:
        try:
            at = clock.now() - (agent.wall() - correction.observed_at) * clock.speed
        except OverflowError as error:
            raise Refused(f"no value of {field} was measured then: that is outside the calendar") from error
    struck = admission.correct(
        field,
        at,
        value,
        by=by,
        reason=correction.reason,
        corrected_at=agent.wall(),
        tolerance=timedelta(seconds=SAME_S * max(1.0, clock.speed)),
    )
    if struck is None:
        raise Refused(f"no value of {field} was measured then; name the time that its assessment gave")
    wrong, measured = struck
    return Answer(here={"struck": {"field": field, "value": wrong, "measured_at": clock.to_wall(measured)}})


def _plausible(field: str) -> str:
    if field in RANGES:
        limits = RANGES[field]
        return f"give a number from {limits.low:g} to {limits.high:g} {limits.unit}"
    return remedy(field)


def patient_admit(agent: "Agent", body: PatientAdmit) -> Answer:
    """Begin an admission with a store of its own."""
    if agent.admission is not None:
        raise Refused("a patient is admitted: discharge first")
    if not valid_name(body.admission):
        raise Refused("the admission's id is no name: letters, digits, dots, dashes and underscores")
    if folder_of(agent.folder, body.admission).exists():
        raise Refused("this admission was here before: an id is used once")
    interval = body.monitoring_interval_s
    if interval is not None and not 60 <= interval <= 86_400:
        raise Refused("the monitoring interval lies between 60 s and a day")
    record = Record(
        id=body.admission,
        spo2_scale=body.spo2_scale,
        monitoring_interval_s=interval,
        consent=body.consent_to_training,
    )
    agent.open_admission(record)
    agent.presence.tell_config()
    return Answer()


def patient_discharge(agent: "Agent", body: PatientDischarge) -> Answer:
    """End the admission."""
    admission = agent.admission
    if admission is None:
        raise Refused("no patient")
    if admission.record.id != body.admission:
        raise Refused("another patient is admitted")
    agent.close_admission(keep=body.keep)
    agent.presence.tell_config()
    return Answer()


def report(agent: "Agent") -> Answer:
    """Say everything again: state, configuration, health, and the latest assessment."""
    agent.presence.tell_state()
    agent.presence.tell_config()
    agent.presence.beat()
    if agent.admission is not None:
        agent.admission.tell()
    return Answer()
