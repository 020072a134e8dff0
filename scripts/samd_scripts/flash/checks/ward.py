"""The place of the checks: a real broker, gateway and server here, the machine with a copy of the image, and
two devices of this computer beside it."""

import time
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from samd_data.reading import Recording
from samd_protocol import bundle as bundles
from samd_protocol.errors import BundleError
from samd_scripts.flash import device, disk, machine
from samd_scripts.flash.checks import guest, models
from samd_scripts.flash.checks.guest import FOLDER, Guest
from samd_scripts.flash.checks.hearing import Hearing
from samd_scripts.flash.disk import Disk, Put, open_disk
from samd_scripts.flash.errors import CheckFailed, FlashError
from samd_scripts.network import untrained
from samd_scripts.recordings import Recordings, prepare, usual_labels
from samd_scripts.stack import Stack

PLAYED: Final = 60
"""So many readings are played in `PLAYED_S`, where the recording has most of them; stays lie years apart."""
PLAYED_S: Final = 60.0
PATIENTS: Final = 3
CARD_MIB: Final = 4096
MODELS: Final = (0, 900)
"""Versions of the models that the checks bring along; a run here releases one between the two."""


@dataclass(frozen=True)
class Identity:
    """What the image itself says it is."""

    device: str
    release: str
    settings: dict[str, Any]
    own_model: int | None


def identity(found: Disk) -> Identity:
    """Raises FlashError for an image that is none of ours."""
    if device.CONFIG not in found.boot.names():
        raise FlashError(f"{found.path}: holds no {device.CONFIG}; make it by scripts/flash device")
    try:
        settings = tomllib.loads(found.boot.read(device.CONFIG).decode())
        name = str(settings["device"])
    except (KeyError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise FlashError(f"{found.path}: its {device.CONFIG} cannot be read ({error})") from error
    release = found.root.resolve("/opt/samd/current").rpartition("/")[2]
    own = None
    if found.root.exists(device.MODEL):
        try:
            bundle = bundles.unpack(found.root.read(device.MODEL))
        except BundleError as error:
            raise FlashError(f"{found.path}: its model is damaged ({error})") from error
        own = bundle.manifest.version if bundle.manifest.trained else None
    return Identity(name, release, settings, own)


def densest(recording: Recording) -> tuple[datetime, int]:
    """Where live play begins, after a third of the readings, and how fast: the shortest stretch of `PLAYED`
    readings takes `PLAYED_S`."""
    times = [reading.observed_at for reading in recording.readings]
    first, count = len(times) // 3, min(PLAYED, len(times) // 3)
    if count < 1:
        raise FlashError(f"patient {recording.patient}: {len(times)} readings are too few; give other --data")
    start = min(range(first, len(times) - count), key=lambda number: times[number + count] - times[number])
    span = (times[start + count] - times[start]).total_seconds()
    return times[start], max(1, round(span / PLAYED_S))


@dataclass
class Ward:
    """Use as a `with` block: whatever happens, the machine and every program end."""

    image: Path
    folder: Path
    kind: machine.Kind
    memory_mib: int
    data: str
    step: Callable[[str], None]
    measured: dict[str, Any] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self.stack = Stack(self.folder / "stack")
        self.copy = self.folder / "card.img"
        self._prepare()
        self.stack.broker()
        self.hearing = Hearing(self.stack.broker_url)
        self.hearing.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "machine"):
            self.machine.cut_power()
        if hasattr(self, "hearing"):
            self.hearing.__exit__()
        self.stack.stop()
        self.copy.unlink(missing_ok=True)

    # -- before the first boot -----------------------------------------------------------------------------

    def _prepare(self) -> None:
        self.step("recordings and models")
        self.recordings: Recordings = prepare(self.data, self.folder / "recordings", PATIENTS)
        self.patients = [recording.patient for recording in self.recordings.taking_part]
        if len(self.patients) < PATIENTS:
            raise FlashError(f"--data {self.data}: {len(self.patients)} patients; the checks take {PATIENTS}")
        self.untrained = untrained(usual_labels(self.recordings))
        base = bundles.read(self.untrained)
        self.models = [self.folder / f"model-{version}.samd" for version in MODELS]
        for path, version, epochs in zip(self.models, MODELS, (3, 6), strict=True):
            models.train(base, self.recordings.others, path, version=version, epochs=epochs)
        self.step("a copy of the image for the machine")
        disk.copy_sparse(self.image, self.copy)
        machine.enlarge(self.copy, self.kind, CARD_MIB)
        found = open_disk(self.copy)
        self.identity = identity(found)
        self.device = self.identity.device
        self.host_device = f"{self.device}-on-host"
        _, gateway_port = self.stack.gateway_url.rsplit(":", 1)
        files = guest.files(int(gateway_port), with_shell=self.kind == "virt")
        files[f"{FOLDER}/recordings/{self.patients[0]}.csv"] = Put(
            (self.recordings.folder / f"{self.patients[0]}.csv").read_bytes()
        )
        for path in self.models:
            files[f"{FOLDER}/{path.name}"] = Put(path.read_bytes())
        found.root.put(files)
        found.boot.put({device.CONFIG: self.config(self.replay(f"{FOLDER}/recordings"), 0).encode()})
        spec = machine.Spec(
            image=self.copy, kind=self.kind, memory_mib=self.memory_mib, processors=machine.processors()
        )
        self.machine = machine.Machine(spec, self.folder / "machine")
        self.guest = Guest(self.machine.channel, lambda: self.machine.alive)

    def config(self, source: str, model: int) -> str:
        """The image's own configuration, with the stack here, this source, and a model of the checks."""
        _, port = self.stack.broker_url.rsplit(":", 1)
        values = self.identity.settings | {
            "source": source,
            "model": f"{FOLDER}/{self.models[model].name}",
            "share_signs": True,
            "train_during_alert": True,
            "consent": True,
            "heartbeat_s": 5,
            "broker": {"url": f"mqtt://{machine.HOST}:{port}"},
        }
        return "".join(f"{key} = {device.inline(value)}\n" for key, value in values.items())

    def replay(self, folder: str, patient: int = 0) -> str:
        moment, speed = densest(self.recordings.taking_part[patient])
        begin = moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return f"replay:{folder}?patient={self.patients[patient]}&speed={speed}&from={begin}"

    # -- the machine ---------------------------------------------------------------------------------------

    def boot(self) -> float:
        """Switch the machine on and wait until it is online; returns the seconds that took."""
        since, started = self.hearing_now(), self.hearing.boot(self.device)
        self.guest.close()
        self.guest = Guest(self.machine.channel, lambda: self.machine.alive)
        self.machine.start()
        heard = self.wait_state("online", since=since, timeout_s=900, after_boot=started)
        return float(heard.at - since)

    def hearing_now(self) -> float:
        return time.monotonic()

    def wait_state(self, status: str, *, since: float, timeout_s: float, after_boot: int = -1) -> Any:
        return self.hearing.wait(
            self.device, "state", lambda data: data["status"] == status,
            since=since, timeout_s=timeout_s, after_boot=after_boot, check=self.check,
        )  # fmt: skip

    def check(self) -> None:
        """Raises CheckFailed when the machine or a program ended by itself."""
        self.stack.check()
        if not self.machine.alive:
            raise CheckFailed(f"the machine ended by itself:\n{self.machine.tail()}")

    def settle(self, source: str, model: int) -> float:
        """Give the device in the machine another configuration, and start its agent anew; returns when."""
        text = self.config(source, model)
        since, started = self.hearing_now(), self.hearing.boot(self.device)
        self.guest.run(
            "mount -o remount,rw /boot/firmware && cat >/boot/firmware/samd.toml <<'SAMD-END'\n"
            f"{text}SAMD-END\nsync && mount -o remount,ro /boot/firmware && systemctl restart samd-edge"
        )
        self.wait_state("online", since=since, timeout_s=600, after_boot=started)
        return since

    def look(self) -> list[dict[str, Any]]:
        """What the stores in the machine hold, the newest last."""
        found: list[dict[str, Any]] = self.guest.json(f"{guest.PYTHON} {FOLDER}/look.py stores")
        return found

    # -- the others ----------------------------------------------------------------------------------------

    def host_agents(self) -> None:
        """Two devices on this computer, with patients of their own."""
        for number in (1, 2):
            source = self.replay(str(self.recordings.folder), number)
            agent = self.stack.agent(f"bed-host-{number}", source, "--train-during-alert")
            self.stack.wait_ready(agent, 120)

    def twin(self) -> None:
        """The same client with the same recording and model on this computer."""
        source = self.replay(str(self.recordings.folder))
        agent = self.stack.agent(
            self.host_device, source, "--train-during-alert", "--share-signs", "--model", str(self.models[0])
        )
        self.stack.wait_ready(agent, 120)

    def end(self, name: str) -> None:
        self.stack.programs.pop(name).kill()


Step = Callable[[Ward], Mapping[str, Any]]
"""One check: raises CheckFailed, or returns what it measured and saw."""
