"""Who is admitted on which device, as the devices answered. A bed holds one patient.

A command only asks: the admission begins and ends with the device's own answer, and that answer's place among
the device's messages, `(boot, seq)`, says which of them are of this patient. Nothing of one patient is ever
shown as another's.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, select

from samd_gateway import schema
from samd_gateway.queries import at, moment, rows
from samd_gateway.ward.answers import AdmissionOut
from samd_protocol.messages import Result

TABLE = schema.admissions
OPEN = ("pending", "active")
GONE = "no patient"
"""A device's reason where a patient that we believe there has been discharged at the device itself."""


def open_ones(connection: Connection, devices: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """The admission that is pending or active on each device."""
    query = select(TABLE).where(TABLE.c.state.in_(OPEN))
    if devices is not None:
        query = query.where(TABLE.c.device.in_(devices))
    return {row["device"]: row for row in rows(connection, query)}


def last_ends(connection: Connection, devices: Sequence[str] | None = None) -> dict[str, tuple[int, int]]:
    """Where the latest discharge of each device stands among its messages: what is older is of the past."""
    query = select(TABLE.c.device, TABLE.c.end_boot, TABLE.c.end_seq).where(TABLE.c.end_boot.is_not(None))
    if devices is not None:
        query = query.where(TABLE.c.device.in_(devices))
    ends: dict[str, tuple[int, int]] = {}
    for device, boot, seq in connection.execute(query):
        ends[device] = max(ends.get(device, (-1, -1)), (boot, seq))
    return ends


def of_device(connection: Connection, device: str, *, limit: int = 100) -> list[dict[str, Any]]:
    """All admissions of a device, the latest first."""
    query = select(TABLE).where(TABLE.c.device == device).order_by(TABLE.c.admitted_at.desc()).limit(limit)
    return rows(connection, query)


def answered(
    connection: Connection, device: str, result: Result, *, place: tuple[int, int], at: float
) -> None:
    """Follow a device's answer, in the transaction of its message. Others' commands change nothing."""
    of_it = TABLE.c.device == device
    begun = next(iter(rows(connection, select(TABLE).where(of_it, TABLE.c.command == result.command))), None)
    if begun is not None:
        _admitted(connection, begun, result, place, at)
        return
    query = select(TABLE).where(of_it, TABLE.c.discharge_command == result.command)
    ended = next(iter(rows(connection, query)), None)
    if ended is not None and ended["state"] != "ended":
        _discharged(connection, ended, result, place, at)


def _admitted(
    connection: Connection, row: Mapping[str, Any], result: Result, place: tuple[int, int], at: float
) -> None:
    if row["state"] not in ("pending", "refused"):
        return
    if result.status == "done":
        # an answer that came after we had given up counts too, unless the bed is promised to another by now
        other = open_ones(connection, [row["device"]]).get(row["device"])
        if other is not None and other["id"] != row["id"]:
            _set(connection, row, reason="the device took this patient after another had been admitted here")
            return
        _set(connection, row, state="active", reason=None, boot=place[0], seq=place[1], discharged_at=None)
    elif result.status in ("rejected", "failed", "expired"):
        _set(connection, row, state="refused", reason=result.reason or result.status, discharged_at=at)


def _discharged(
    connection: Connection, row: Mapping[str, Any], result: Result, place: tuple[int, int], at: float
) -> None:
    if result.status == "done":
        _set(connection, row, state="ended", discharged_at=at, end_boot=place[0], end_seq=place[1])
    elif result.status == "rejected" and result.reason == GONE:
        reason = "discharged at the device itself, before"
        _set(
            connection,
            row,
            state="ended",
            discharged_at=at,
            end_boot=place[0],
            end_seq=place[1],
            reason=reason,
        )
    elif result.status in ("rejected", "failed", "expired"):
        _set(
            connection,
            row,
            discharge_command=None,
            reason=f"not discharged: {result.reason or result.status}",
        )


def give_up(connection: Connection, now: float) -> list[str]:
    """Admissions whose device has not answered in time were never begun; returns their devices."""
    sent = schema.commands
    query = (
        select(TABLE.c.id, TABLE.c.device)
        .outerjoin(sent, sent.c.id == TABLE.c.command)
        .where(TABLE.c.state == "pending", (sent.c.expires_at < now) | sent.c.id.is_(None))
    )
    found = connection.execute(query).all()
    for admission, _ in found:
        connection.execute(
            TABLE.update()
            .where(TABLE.c.id == admission, TABLE.c.state == "pending")
            .values(state="refused", reason="the device has not answered in time", discharged_at=now)
        )
    return [device for _, device in found]


def set_up_anew(connection: Connection, device: str) -> None:
    """A device counts its messages from one again; all that it says from now on is of now."""
    of_it = TABLE.c.device == device
    connection.execute(TABLE.update().where(of_it, TABLE.c.state == "active").values(boot=-1, seq=-1))
    connection.execute(
        TABLE.update().where(of_it, TABLE.c.end_boot.is_not(None)).values(end_boot=-1, end_seq=-1)
    )


def _set(connection: Connection, row: Mapping[str, Any], **values: Any) -> None:
    connection.execute(TABLE.update().where(TABLE.c.id == row["id"]).values(**values))


def answer(row: Mapping[str, Any]) -> AdmissionOut:
    """A row as the API shows it."""
    return AdmissionOut(
        id=row["id"],
        device=row["device"],
        bed=row["bed"],
        ward=row["ward"],
        spo2_scale=row["spo2_scale"],
        monitoring_interval_s=row["monitoring_interval_s"],
        consent_to_training=row["consent_to_training"],
        state=row["state"],
        reason=row["reason"],
        admitted_at=at(row["admitted_at"]),
        admitted_by=row["admitted_by"],
        discharged_at=moment(row["discharged_at"]),
        discharged_by=row["discharged_by"],
    )
