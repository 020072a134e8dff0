"""An image for one named device: the base, a configuration that a person can edit, and secrets apart from it.

What is secret goes into the ext4, for the agent's account alone; the FAT partition, which any computer shows,
holds none of it.
"""

import hashlib
import re
import socket
import tempfile
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from samd_edge.config import ConfigError
from samd_edge.config import load as load_settings
from samd_protocol import bundle as bundles
from samd_protocol.broker import Broker
from samd_protocol.errors import BrokerError, BundleError
from samd_scripts.flash import disk, imager, raspios, sbom
from samd_scripts.flash.base import Base, Info
from samd_scripts.flash.cache import whole
from samd_scripts.flash.disk import Disk, Put, link, open_disk
from samd_scripts.flash.errors import FlashError
from samd_scripts.flash.overlay import UID, UNITS

SOURCE: Final = "hl7:2575"
"""Without another one: a listener on the device's own loopback address, to which nothing comes by itself."""
CONFIG: Final = "samd.toml"
SECRETS: Final = "/etc/samd"
MODEL: Final = "/opt/samd/model.samd"
CREDENTIALS: Final = {
    "password": "password_file",
    "ca.crt": "ca_file",
    "client.crt": "cert_file",
    "client.key": "key_file",
}
"""Files of a folder of credentials, and the setting that names each; `username` is read besides."""

_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_PUBLIC_KEY: Final = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-\S+|sk-\S+) [A-Za-z0-9+/=]+( .*)?")
_COUNTRY: Final = re.compile(r"[A-Z]{2}")


@dataclass(frozen=True, kw_only=True)
class Wifi:
    """A network and the key derived from its passphrase: the passphrase itself is on no card."""

    ssid: str
    psk: str
    country: str | None = None


@dataclass(frozen=True, kw_only=True)
class Device:
    """One device as it was asked for, checked. `credentials`: the files' contents by name."""

    name: str
    broker: Broker
    settings: str = ""
    source: str | None = None
    wifi: Wifi | None = None
    ssh_keys: str | None = None
    model: Path | None = None
    credentials: dict[str, bytes] = field(default_factory=dict)

    @property
    def config(self) -> str:
        """`samd.toml`."""
        return config_text(self)


# -- checks of what was asked for ---------------------------------------------------------------------------


def checked_name(name: str) -> str:
    """Raises FlashError unless this can be the name of a host."""
    if not _NAME.fullmatch(name):
        raise FlashError(
            f"name {name!r}: is no host name; use 1 to 63 letters, digits and dashes, as in bed-01, "
            "never a patient's name"
        )
    return name


def broker_of(server: str, *, name: str, credentials: dict[str, bytes]) -> Broker:
    """The broker of HOST, HOST:PORT or a URL: with TLS where there are certificates. Raises FlashError."""
    tls = bool({"ca.crt", "client.crt"} & set(credentials))
    url = server if "://" in server else f"{'mqtts' if tls else 'mqtt'}://{server}"
    files = {CREDENTIALS[file]: f"{SECRETS}/{file}" for file in credentials if file in CREDENTIALS}
    user = credentials.get("username", name.encode()).decode(errors="replace").strip()
    broker = Broker(url=url, username=user if {"password", "username"} & set(credentials) else None, **files)
    try:
        _, _, encrypted = broker.address
    except BrokerError as error:
        raise FlashError(f"--server: {error}") from error
    if tls and not encrypted:
        raise FlashError(
            f"--server {server}: is not encrypted, yet certificates are given; write mqtts://HOST"
        )
    return broker


def read_credentials(folder: Path | None) -> dict[str, bytes]:
    """The files of a folder of credentials. Raises FlashError."""
    if folder is None:
        return {}
    if not folder.is_dir():
        raise FlashError(f"--credentials {folder}: is no folder")
    known = (*CREDENTIALS, "username")
    found = {name: (folder / name).read_bytes() for name in known if (folder / name).is_file()}
    if not found:
        raise FlashError(f"--credentials {folder}: holds none of {', '.join(known)}")
    if ("client.crt" in found) != ("client.key" in found):
        raise FlashError(
            f"--credentials {folder}: client.crt and client.key go together; give both or neither"
        )
    return found


def read_ssh_keys(path: Path | None) -> str | None:
    """Public keys, one a line. Raises FlashError for a private key, which belongs onto no card."""
    if path is None:
        return None
    text = _text(path, "--ssh-key")
    if "PRIVATE KEY" in text:
        raise FlashError(f"--ssh-key {path}: is the private key; give the public one, {path.name}.pub")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines or not all(_PUBLIC_KEY.fullmatch(line.strip()) for line in lines):
        raise FlashError(f"--ssh-key {path}: holds no public SSH key, as in ~/.ssh/id_ed25519.pub")
    return "\n".join(line.strip() for line in lines) + "\n"


def wifi_of(ssid: str, passphrase: str, country: str | None) -> Wifi:
    """Raises FlashError for what no access point takes."""
    if not 1 <= len(ssid.encode()) <= 32 or not ssid.isprintable():
        raise FlashError(f"--wifi {ssid!r}: the name of a network has 1 to 32 characters")
    if not 8 <= len(passphrase) <= 63 or not (passphrase.isascii() and passphrase.isprintable()):
        raise FlashError("the Wi-Fi's password has 8 to 63 letters, digits and signs")
    if country is not None and not _COUNTRY.fullmatch(country):
        raise FlashError(f"--wifi-country {country}: write two letters, as in DE")
    psk = hashlib.pbkdf2_hmac("sha1", passphrase.encode(), ssid.encode(), 4096, 32).hex()
    return Wifi(ssid=ssid, psk=psk, country=country)


def read_settings(path: Path | None) -> str:
    """The text of a file of settings, which must be TOML without what the command line says."""
    if path is None:
        return ""
    text = _text(path, "--settings")
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FlashError(f"--settings {path}: is no TOML ({error})") from error
    for key, option in (("device", "--name"), ("broker", "--server and --credentials"), ("data_dir", None)):
        if key in values:
            told = f"it comes from {option}" if option else "the image has a partition for it"
            raise FlashError(f"--settings {path}: {key} does not belong there; {told}")
    return text


def check_model(path: Path | None) -> None:
    """Raises FlashError for a bundle that is not whole."""
    if path is not None:
        try:
            bundles.read(path)
        except BundleError as error:
            raise FlashError(f"--model {path}: {error}") from error


def unreachable(broker: Broker, timeout_s: float = 2.0) -> str | None:
    """A warning where the broker does not answer from here; the device may well reach it."""
    host, port, _ = broker.address
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return None
    except OSError as error:
        reason = error.strerror or error
        return f"{host}:{port} does not answer from here ({reason}); the device will go on trying"


# -- the configuration ---------------------------------------------------------------------------------------


def config_text(device: Device) -> str:
    """The file that a person may edit: keys first, then what --settings says, then the broker.

    Raises FlashError for a setting that the client does not take.
    """
    values = tomllib.loads(device.settings)
    top: dict[str, Any] = {"device": device.name}
    if device.source is not None or "source" not in values:
        top["source"] = device.source or SOURCE
    if device.model is not None:
        top["model"] = MODEL
    twice = [key for key in top if key in values]
    if twice:
        raise FlashError(f"--settings: {twice[0]} is set there and by an option; say it once")
    table = {name: value for name, value in msgspec.to_builtins(device.broker).items() if value is not None}
    text = (
        "# The device's configuration, read when it starts; no secret belongs here. The settings are in\n"
        "# docs/flash.md; after editing, start the device again.\n\n"
        f"{_lines(top)}\n{device.settings.strip()}\n\n[broker]\n{_lines(table)}"
    )
    _check_config(text)
    return text


def _check_config(text: str) -> None:
    """By the client's own reader; the secrets' files are on the device alone."""
    values = tomllib.loads(text)
    plain = {**values, "broker": {"url": values["broker"]["url"]}}
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(_as_toml(plain))
        file.flush()
        try:
            load_settings(Path(file.name), {})
        except ConfigError as error:
            reason = str(error).replace(f"{file.name}: ", "")
            raise FlashError(f"--settings: {reason}") from error


def _as_toml(values: dict[str, Any]) -> str:
    return "\n".join(f"{key} = {inline(value)}" for key, value in values.items()) + "\n"


def inline(value: Any) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{inline(key)} = {inline(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(inline, value)) + "]"
    return msgspec.json.encode(value).decode()


def _lines(values: dict[str, Any]) -> str:
    return "".join(f"{key} = {inline(value)}\n" for key, value in values.items())


# -- the image -----------------------------------------------------------------------------------------------


def make(
    device: Device, base: Base, out: Path, *, step: Callable[[str], None] = lambda _text: None
) -> dict[str, Any]:
    """Write the image with its hash, its packages and its entry for Raspberry Pi Imager; returns a summary.

    Raises FlashError; no half image is left under its name.
    """
    config = device.config
    try:
        with whole(out) as partial:
            step("copying the base image")
            disk.copy_sparse(base.image, partial)
            step("writing the configuration")
            personalise(open_disk(partial), device, base.info, config)
            step("hashing")
            with partial.open("rb") as file:
                sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = partial.stat().st_size
    except OSError as error:
        raise FlashError(
            f"{out}: cannot be written ({error.strerror}); name another place by --out"
        ) from error
    beside = out.with_suffix("")
    out.with_name(f"{out.name}.sha256").write_text(f"{sha256}  {out.name}\n")
    document = sbom.document(
        base.packages(), name=f"samd {device.name}", version=base.info.version, sha256=sha256
    )
    beside.with_suffix(".cdx.json").write_bytes(sbom.encode(document))
    imager.add(out.parent, imager.entry(device.name, base.info, out, size=size, sha256=sha256))
    return {
        "name": device.name, "image": str(out), "size": size, "sha256": sha256, "broker": device.broker.url,
        "client": base.info.release, "system": base.info.system, "packages": len(document["components"]),
    }  # fmt: skip


def personalise(found: Disk, device: Device, info: Info, config: str) -> None:
    """Everything that is one device's own."""
    boot = {CONFIG: config.encode()}
    files: dict[str, Put] = {
        "/etc/hostname": Put(f"{device.name}\n".encode()),
        "/etc/hosts": Put(
            f"127.0.0.1\tlocalhost\n127.0.1.1\t{device.name}\n::1\tlocalhost ip6-localhost\n".encode()
        ),
    }
    for name, content in device.credentials.items():
        if name in CREDENTIALS:
            files[f"{SECRETS}/{name}"] = Put(content, 0o600, UID)
    if device.model is not None:
        files[MODEL] = Put(device.model.read_bytes())
    if info.cloud_init:
        wifi = device.wifi
        boot["user-data"] = raspios.user_data(device.name, device.ssh_keys).encode()
        boot["meta-data"] = f"instance-id: samd-{device.name}\n".encode()
        network = (
            raspios.network_config(None, None, None)
            if wifi is None
            else raspios.network_config(wifi.ssid, wifi.psk, wifi.country)
        )
        if wifi is None:
            boot["network-config"] = network.encode()
        else:
            # The partition is open to everybody: the key goes to where only root reads.
            files["/etc/netplan/80-samd.yaml"] = Put(f"network:\n{_indented(network)}".encode(), 0o600)
    elif device.wifi is not None:
        files |= _network_manager(device.wifi) if info.firstrun else _wpa(device.wifi)
    if device.ssh_keys is not None:
        files["/root/.ssh/authorized_keys"] = Put(device.ssh_keys.encode(), 0o600)
        files[f"{UNITS}/multi-user.target.wants/ssh.service"] = link("/usr/lib/systemd/system/ssh.service")
    found.boot.put(boot)
    found.root.put(files, {"/root/.ssh": (0o700, 0)} if device.ssh_keys is not None else None)


def _wpa(wifi: Wifi) -> dict[str, Put]:
    country = f"country={wifi.country}\n" if wifi.country else ""
    text = (
        f"ctrl_interface=/run/wpa_supplicant\n{country}"
        f"network={{\n  ssid={wifi.ssid.encode().hex()}\n  psk={wifi.psk}\n"
        "  key_mgmt=WPA-PSK WPA-PSK-SHA256\n"
        "  ieee80211w=1\n}\n"
    )
    return {
        "/etc/wpa_supplicant/wpa_supplicant-wlan0.conf": Put(text.encode(), 0o600),
        f"{UNITS}/multi-user.target.wants/wpa_supplicant@wlan0.service": link(
            "/usr/lib/systemd/system/wpa_supplicant@.service"
        ),
    }


def _network_manager(wifi: Wifi) -> dict[str, Put]:
    """Raspberry Pi OS before trixie leaves the Wi-Fi to NetworkManager."""
    text = (
        "[connection]\nid=samd\ntype=wifi\n\n"
        f"[wifi]\nmode=infrastructure\nssid={';'.join(str(byte) for byte in wifi.ssid.encode())};\n\n"
        f"[wifi-security]\nkey-mgmt=wpa-psk\npsk={wifi.psk}\n\n[ipv4]\nmethod=auto\n\n[ipv6]\nmethod=auto\n"
    )
    files = {"/etc/NetworkManager/system-connections/samd.nmconnection": Put(text.encode(), 0o600)}
    if wifi.country is not None:
        rule = f"options cfg80211 ieee80211_regdom={wifi.country}\n"
        files["/etc/modprobe.d/samd-wifi.conf"] = Put(rule.encode())
    return files


def _indented(text: str) -> str:
    return "".join(f"  {line}\n" for line in text.splitlines())


def _text(path: Path, option: str) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FlashError(
            f"{option} {path}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
