"""``samd-edge doctor``: is this device fit to run? Each check ends in ok, warn or fail, with the remedy."""

# ruff: noqa: T201  (what it prints is its purpose)

import argparse
import base64
import json
import os
import shutil
import socket
import sys
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

from samd_edge import device_db
from samd_edge.clock import clock_synced
from samd_protocol.broker import DEFAULT_URL, Broker, make_client
from samd_protocol.errors import BrokerError, BundleError

Status = Literal["ok", "warn", "fail"]

LOW_MB: Final = 500.0
"""A year of readings every minute takes 400 MB; below this the card fills within months."""
FULL_MB: Final = 50.0
SLOW_SYNC_S: Final = 0.2
"""An alert waits for one such write before it is sent; good SD cards take 5-50 ms, worn ones seconds."""
CONNECT_S: Final = 5.0


# The smallest graph, y = x + x over two numbers: an interpreter can import well and fail at its first tensor.
_PROBE: Final = (
    b"c-m!A!Ab&A6g{Jp2@WPG;X=rT>mki(7l;}Nqk;{s0u!9YEF8h6C}`~mv})0^WuMVPqA!S+eMi%IZ|=xM7Y=jhym!yN=e`;M_"
    b"slt}ppF`<sGtOkTplKKkc$x#4FhNsy$p~=98A$BOyVnwB2)4*(H)O2`jhj)cr+dM-A=FLcBpG<?L1<Q<nF=`rmLGE^cUXr)>"
    b"~cs%K$s%Ux^punRt-<kJ9IgD9Ido6t}vHYiKs7xt!Fgu(lpe?Q?T_@;O@{l(XW+)Kx&sZZ+-0{~AiWX&=W&5^q0Iv>`r-J^l"
    b"}!!KB_@2J{hna~oWl-X%C=(p_m5g;)E%6hCw6vzYmTsz}#Xbbkv4sTJ=9OLB*MF{CDwn$Jifc{5k~yt76fl|)0GRf#9^YL|n"
    b"#$43e8@ke)G`+zu!W0!2)F3~dN`z>?br8ErvW@-jg&+!X(bV`^"
)


class Check(NamedTuple):
    """One answer; ``remedy`` is empty when there is nothing to do."""

    name: str
    status: Status
    text: str
    remedy: str = ""


def add_parsers(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "doctor",
        help="check clock, broker, disk, runtime and model",
        description="Check whether this device can run: clock, broker, disk, runtime, model. "
        "Exit code 0 when nothing fails (warnings do not), 1 when something does.",
    )
    parser.add_argument("--broker", default=DEFAULT_URL, metavar="URL", help=f"default {DEFAULT_URL}")
    parser.add_argument("--username", metavar="NAME", help="name at the broker")
    parser.add_argument("--password-file", metavar="FILE", help="password at the broker, a file of mode 0600")
    parser.add_argument("--ca-file", metavar="FILE", help="certificate authority of an mqtts:// broker")
    parser.add_argument("--cert-file", metavar="FILE", help="this device's certificate")
    parser.add_argument("--key-file", metavar="FILE", help="this device's key, a file of mode 0600")
    parser.add_argument(
        "--data-dir", type=Path, default=Path(".samd/edge"), metavar="DIR", help="default .samd/edge"
    )
    parser.add_argument("--model", type=Path, metavar="FILE", help="a model to check too, NAME.samd")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.set_defaults(function=run)


def run(arguments: argparse.Namespace) -> int:
    """Run all checks and print them; 1 when one fails."""
    broker = Broker(
        url=arguments.broker,
        username=arguments.username,
        password_file=arguments.password_file,
        ca_file=arguments.ca_file,
        cert_file=arguments.cert_file,
        key_file=arguments.key_file,
    )
    checks = [
        check_clock(),
        *check_broker(broker),
        *check_disk(arguments.data_dir),
        *check_runtime(),
        *(check_model(arguments.model) if arguments.model else ()),
    ]
    failed = sum(check.status == "fail" for check in checks)
    if arguments.json:
        body = {"ok": not failed, "checks": [check._asdict() for check in checks]}
        print(json.dumps(body, indent=2))
    else:
        for check in checks:
            remedy = f"; {check.remedy}" if check.remedy else ""
            print(f"{check.status:<4}  {check.name:<8}  {check.text}{remedy}")
        warned = sum(check.status == "warn" for check in checks)
        print(f"{len(checks)} checks: {failed} failed, {warned} to look at", file=sys.stderr)
    return 1 if failed else 0


def check_clock(synced: Callable[[], Literal["synced", "unsynced"]] = clock_synced) -> Check:
    """Whether a time service keeps the clock."""
    if synced() == "synced":
        return Check("clock", "ok", "kept by a time service")
    return Check(
        "clock",
        "warn",
        "not kept by a time service, or that cannot be told: messages say 'unsynced'",
        "enable one, for example: timedatectl set-ntp true",
    )


def check_broker(broker: Broker, timeout_s: float = CONNECT_S) -> Iterator[Check]:
    """A TCP connection, then an MQTT 5 one under a name of its own that disturbs no device."""
    try:
        host, port, tls = broker.address
        client = make_client(broker, f"doctor-{uuid.uuid4().hex[:12]}")
    except BrokerError as error:
        yield Check("broker", "fail", str(error), "correct the options")
        return
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            pass
    except OSError as error:
        yield Check(
            "broker",
            "fail",
            f"{host}:{port} does not answer ({error.strerror or error})",
            "start it (samd-gateway broker), or give its address with --broker",
        )
        return
    yield Check("broker", "ok", f"{host}:{port} answers by TCP")

    answered = threading.Event()
    reasons: list[str] = []

    def on_connect(_client: Any, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        reasons.append("" if not reason.is_failure else str(reason))
        answered.set()

    client.on_connect = on_connect
    began = time.monotonic()
    try:
        client.connect(host, port, keepalive=10, clean_start=True)
    except (OSError, ValueError) as error:
        reason = "TLS" if tls else "MQTT"
        yield Check("mqtt", "fail", f"no {reason} connection ({error})", "check port and certificates")
        return
    client.loop_start()
    try:
        if not answered.wait(timeout_s):
            yield Check("mqtt", "fail", f"no answer within {timeout_s:g} s", "is it an MQTT 5 broker?")
        elif reasons[0]:
            yield Check("mqtt", "fail", f"refused: {reasons[0]}", "check name, password and access list")
        else:
            yield Check("mqtt", "ok", f"MQTT 5 in {(time.monotonic() - began) * 1000:.0f} ms")
    finally:
        client.disconnect()
        client.loop_stop()


def check_disk(folder: Path) -> Iterator[Check]:
    """Whether ``folder`` can be written, who can read it, the space, and how long a synced write takes."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    # What is above the devices' folders holds names and no data.
    devices = sorted(path.parent for path in folder.glob(f"*/{device_db.FILE}"))
    own = [folder] if folder.is_dir() and (not devices or (folder / device_db.FILE).exists()) else []
    for holder in (*own, *devices):
        mode = holder.stat().st_mode & 0o777
        if mode & 0o077:
            remedy = f"run: chmod 700 {holder}"
            yield Check("disk", "warn", f"{holder} has mode {mode:03o}: others can read it", remedy)
    free_mb = shutil.disk_usage(existing).free / 1e6
    status: Status = "ok" if free_mb >= LOW_MB else "warn" if free_mb >= FULL_MB else "fail"
    yield Check("disk", status, f"{free_mb:,.0f} MB free", "" if status == "ok" else "make room")
    probe = existing / f".samd-doctor-{os.getpid()}"
    try:
        began = time.perf_counter()
        handle = os.open(probe, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600)
        try:
            os.write(handle, b"x" * 4096)
            os.fsync(handle)
        finally:
            os.close(handle)
        spent = time.perf_counter() - began
    except OSError as error:
        yield Check(
            "disk", "fail", f"{existing} cannot be written ({error.strerror})", "give another --data-dir"
        )
        return
    finally:
        probe.unlink(missing_ok=True)
    text = f"a synced write takes {spent * 1000:.1f} ms in {existing}"
    if spent > SLOW_SYNC_S:
        yield Check("disk", "warn", text, "alerts wait for it: use a better card or disk")
    else:
        yield Check("disk", "ok", text)


def check_runtime() -> Iterator[Check]:
    """Which interpreter there is, which numpy, and whether the two work together."""
    import numpy as np

    from samd_edge.runtime import RuntimeUnavailable, choose, open_interpreter, runtime_version

    try:
        name, module = choose()
    except RuntimeUnavailable as error:
        yield Check("runtime", "fail", str(error))
        return
    text = f"{name} {runtime_version(name)}, numpy {np.__version__}"
    try:
        interpreter = open_interpreter(module, zlib.decompress(base64.b85decode(_PROBE)))
        interpreter.allocate_tensors()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], np.array([1, 2], np.float32))
        interpreter.invoke()
        answer = interpreter.get_tensor(interpreter.get_output_details()[0]["index"]).tolist()
    except (ValueError, RuntimeError, SystemError) as error:
        yield Check("runtime", "fail", f"{text}: cannot compute ({error})", "install the two anew")
        return
    if answer != [2.0, 4.0]:
        yield Check("runtime", "fail", f"{text}: computes wrongly", "use another machine or another wheel")
        return
    yield Check("runtime", "ok", f"{text}, computes")


def check_model(path: Path) -> Iterator[Check]:
    """Hashes, whether it was trained, whether it can be used here, and one real inference."""
    from samd_edge.assessment import ModelRefused, load_model, refusal
    from samd_edge.runtime import RuntimeUnavailable
    from samd_protocol import bundle as bundles

    try:
        bundle = bundles.read(path)
    except BundleError as error:
        yield Check("model", "fail", str(error))
        return
    name = f"{bundle.manifest.name} version {bundle.manifest.version}"
    yield Check("model", "ok", f"{name}: whole, sha256 {bundle.sha256[:16]}")
    reason = refusal(bundle.manifest)
    if reason is not None:
        trainable = refusal(bundle.manifest, allow_untrained=True) is None
        yield Check("model", "warn" if trainable else "fail", f"{name} does not assess here: {reason}")
    try:
        began = time.perf_counter()
        load_model(bundle, allow_untrained=True, task=bundle.manifest.task)
    except (ModelRefused, RuntimeUnavailable) as error:
        yield Check("model", "fail", str(error))
    else:
        yield Check("model", "ok", f"loaded and asked in {(time.perf_counter() - began) * 1000:.1f} ms")
