"""What `scripts/flash` is told: names, servers, credentials, settings, tables; and the files made of it."""

import argparse
import json
import tomllib
from pathlib import Path

import pytest

from samd_scripts.flash import cli, device, fleet, imager, tools
from samd_scripts.flash.base import Info
from samd_scripts.flash.errors import FlashError

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0x3mZkq7Q8E1v9v5n7m0Zt3uYw0b3s8s4m5k6q7r8t ward"


def options(**given: object) -> argparse.Namespace:
    names = (
        "server", "source", "wifi", "wifi_password_file", "wifi_country", "ssh_key", "model", "credentials",
        "settings",
    )  # fmt: skip
    return argparse.Namespace(**(dict.fromkeys(names) | {"server": "broker.ward"} | given))


def described(**given: object) -> device.Device:
    return cli.describer(options(**given))({"name": "bed-01"})


@pytest.mark.parametrize(
    "name", ["bed 01", "-bed", "bed-", "bed_01", "", "b" * 64, "bed.01", "bett-ü", "bed/01"]
)
def test_a_name_that_is_no_host_name_is_refused(name):
    with pytest.raises(FlashError, match="host name"):
        device.checked_name(name)


def test_a_name_may_have_63_characters():
    assert device.checked_name("b" * 63) == "b" * 63


@pytest.mark.parametrize(
    ("server", "files", "url"),
    [
        ("broker.ward", {}, "mqtt://broker.ward"),
        ("broker.ward:1884", {}, "mqtt://broker.ward:1884"),
        ("broker.ward", {"ca.crt": b"x"}, "mqtts://broker.ward"),
        ("mqtts://broker.ward:8884", {}, "mqtts://broker.ward:8884"),
        ("broker.ward", {"password": b"x"}, "mqtt://broker.ward"),
    ],
)
def test_the_brokers_url(server, files, url):
    assert device.broker_of(server, name="bed-01", credentials=files).url == url


@pytest.mark.parametrize("server", ["http://x", "a b", "mqtt://user:secret@host", "host:0", ""])
def test_a_server_that_is_none_is_refused(server):
    with pytest.raises(FlashError, match="--server"):
        device.broker_of(server, name="bed-01", credentials={})


def test_certificates_without_encryption_are_refused():
    with pytest.raises(FlashError, match="mqtts"):
        device.broker_of("mqtt://broker.ward", name="bed-01", credentials={"ca.crt": b"x"})


def test_secrets_are_named_and_never_written_into_the_configuration(tmp_path):
    for name, text in (("password", "geheim"), ("ca.crt", "CA"), ("username", "ward-7")):
        (tmp_path / name).write_text(text)
    made = described(credentials=tmp_path)
    assert tomllib.loads(made.config)["broker"] == {
        "url": "mqtts://broker.ward",
        "username": "ward-7",
        "password_file": "/etc/samd/password",
        "ca_file": "/etc/samd/ca.crt",
    }
    assert "geheim" not in made.config


def test_a_folder_without_credentials_and_half_a_pair_are_refused(tmp_path):
    with pytest.raises(FlashError, match="holds none of"):
        device.read_credentials(tmp_path)
    (tmp_path / "client.crt").write_text("x")
    with pytest.raises(FlashError, match="go together"):
        device.read_credentials(tmp_path)


def test_the_default_source_listens_on_the_device_alone():
    assert tomllib.loads(described().config)["source"] == "hl7:2575"


def test_settings_keep_their_comments_and_tables(tmp_path):
    file = tmp_path / "ward.toml"
    file.write_text("# paced patients\nheartbeat_s = 30\n\n[alerts]\nmin_dwell_s = 600\n")
    text = described(settings=file, source="ble:").config
    assert "# paced patients" in text
    assert tomllib.loads(text) == {
        "device": "bed-01",
        "source": "ble:",
        "heartbeat_s": 30,
        "alerts": {"min_dwell_s": 600},
        "broker": {"url": "mqtt://broker.ward"},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("heartbeat_s = ", "no TOML"),
        ("heartbeet_s = 3", "heartbeet_s"),
        ("heartbeat_s = 0", "heartbeat_s"),
        ("device = 'bed-02'", "--name"),
        ("[broker]\nurl = 'mqtt://x'", "--server"),
        ("data_dir = '/tmp/x'", "partition"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path, text, words):
    file = tmp_path / "ward.toml"
    file.write_text(text)
    with pytest.raises(FlashError, match=words):
        described(settings=file)


def test_a_source_given_twice_is_refused(tmp_path):
    file = tmp_path / "ward.toml"
    file.write_text('source = "ble:"')
    with pytest.raises(FlashError, match="say it once"):
        described(settings=file, source="hl7:2575")


def test_the_wifis_key_is_the_one_of_the_standard():
    # IEEE 802.11i, annex H.4
    made = device.wifi_of("IEEE", "password", "DE")
    assert made.psk == "f42c6fc52df0ebef9ebb4b90b38a5f902e83fe1b135a70e23aed762e9710a12e"


@pytest.mark.parametrize(
    ("ssid", "password", "country"),
    [("", "password", None), ("x" * 33, "password", None), ("w", "short", None), ("w", "password", "de")],
)
def test_a_wifi_that_cannot_be_is_refused(ssid, password, country):
    with pytest.raises(FlashError):
        device.wifi_of(ssid, password, country)


def test_the_private_key_is_refused(tmp_path):
    file = tmp_path / "id_ed25519"
    file.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx\n")
    with pytest.raises(FlashError, match=r"public one, id_ed25519\.pub"):
        device.read_ssh_keys(file)
    file.write_text(f"# me\n{KEY}\n")
    assert device.read_ssh_keys(file) == f"{KEY}\n"


def test_a_model_that_is_damaged_is_refused(tmp_path):
    file = tmp_path / "model.samd"
    file.write_bytes(b"PK nothing")
    with pytest.raises(FlashError, match=r"model\.samd"):
        described(model=file)


def test_a_server_that_does_not_answer_is_a_warning():
    broker = device.broker_of("127.0.0.1:9", name="bed-01", credentials={})
    assert "will go on trying" in (device.unreachable(broker, timeout_s=1.0) or "")


# -- fleets --------------------------------------------------------------------------------------------------


def table(tmp_path: Path, text: str) -> list[device.Device]:
    file = tmp_path / "devices.csv"
    file.write_text(text)
    return fleet.read(file, cli.describer(options()))


def test_a_table_of_devices(tmp_path):
    (tmp_path / "ward.toml").write_text("heartbeat_s = 30")
    found = table(tmp_path, "name,server,settings\nbed-01,,ward.toml\nbed-02,mqtt://other,\n")
    assert [(one.name, one.broker.url, one.settings) for one in found] == [
        ("bed-01", "mqtt://broker.ward", "heartbeat_s = 30"),
        ("bed-02", "mqtt://other", ""),
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name\nbed-01\nbed-02\nBed-01\n", "line 4: Bed-01 is the name of line 2 too"),
        ("name\nbed-01\nbed 02\n", "line 3: name 'bed 02'"),
        ("name,colour\nbed-01,red\n", "unknown column 'colour'"),
        ("device\nbed-01\n", "no column 'name'"),
        ("name\n", "names no device"),
        ("name,server\nbed-01,a,b\n", "line 2: more fields than columns"),
        ("name,settings\nbed-01,none.toml\n", "line 2: --settings"),
    ],
)
def test_a_table_that_cannot_be_is_refused_with_its_line(tmp_path, text, words):
    with pytest.raises(FlashError, match=words):
        table(tmp_path, text)


# -- beside an image -----------------------------------------------------------------------------------------


def test_an_imagers_list_keeps_one_entry_for_each_image(tmp_path):
    info = Info(
        profile="core",
        base="debian",
        release="0.1.0-12345678",
        version="0.1.0",
        system="Debian 12",
        root_mib=9,
    )
    for name, size in (("bed-02", 5), ("bed-01", 6), ("bed-02", 7)):
        imager.add(tmp_path, imager.entry(name, info, tmp_path / f"{name}.img", size=size, sha256="ab"))
    entries = json.loads((tmp_path / "os_list.json").read_text())["os_list"]
    assert [(one["name"], one["extract_size"]) for one in entries] == [("samd bed-01", 6), ("samd bed-02", 7)]
    assert entries[0]["url"] == (tmp_path / "bed-01.img").as_uri()
    assert [path.name for path in tmp_path.iterdir()] == ["os_list.json"]


def test_every_missing_tool_is_named_with_one_line_that_installs_them():
    with pytest.raises(FlashError) as caught:
        tools.require(
            "mcopy", "mformat", "mke2fs", "tar", found=lambda tool: "/bin/tar" if tool == "tar" else None
        )
    assert str(caught.value) == (
        "mcopy, mformat, mke2fs are missing on this computer; run: "
        "sudo apt-get install --no-install-recommends mtools e2fsprogs"
    )


def test_the_command_ends_with_2_and_one_line(capsys, tmp_path):
    assert cli.main(["device", "--name", "bed 01", "--server", "x", "--out", str(tmp_path / "a.img")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("scripts/flash device: name 'bed 01': is no host name;")
    assert told.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_an_image_that_is_none_is_refused(capsys, tmp_path):
    file = tmp_path / "a.img"
    file.write_bytes(b"no image" * 100)
    for command in (["run", str(file)], ["test", str(file)], ["write", str(file), "--to", "/dev/null"]):
        assert cli.main(command) == 2
        assert "is no disk image" in capsys.readouterr().err
