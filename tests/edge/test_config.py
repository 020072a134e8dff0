"""Settings: options go before the file, and what is misspelt is an error with its place."""

from pathlib import Path

import pytest

from samd_edge.config import ConfigError, Settings, load

GOOD = 'device = "bed-01"\nsource = "-"\nheartbeat_s = 3\n[broker]\nurl = "mqtts://b:1"\nusername = "u"\n'


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "edge.toml"


def test_options_go_before_the_file(file: Path) -> None:
    file.write_text(GOOD)
    settings = load(file, {"heartbeat_s": 0.5, "device": None, "broker_url": "mqtt://h:2"})
    assert (settings.device, settings.heartbeat_s, settings.share_signs) == ("bed-01", 0.5, False)
    assert (settings.broker.url, settings.broker.username) == ("mqtt://h:2", "u")
    assert settings.folder == Path(".samd/edge/bed-01")


def test_defaults() -> None:
    settings = load(None, {"device": "bed-01", "source": "-"})
    assert settings == Settings(device="bed-01", source="-")
    assert (settings.heartbeat_s, settings.trainer, settings.consent) == (10.0, "litert", None)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("hearbeat_s = 3\n" + GOOD, "unknown key hearbeat_s"),
        (GOOD + 'user = "x"\n', "unknown key broker.user"),
        ("x = ", "is no TOML"),
        (GOOD.replace("= 3", '= "3"'), "heartbeat_s"),
        (GOOD.replace("= 3", "= 0.0"), "heartbeat_s is 0.0; it must lie between"),
        (GOOD.replace("bed-01", "Mr. Smith/1"), "never a patient's name"),
        (GOOD.replace('"-"', '""'), "no source"),
        (GOOD.replace("mqtts://b:1", "mqtts://u:secret@b:1"), "into the URL"),
        ('trainer = "torch"\n' + GOOD, "trainer"),
        ('device = "d"\nsource = "-"\nbroker = "mqtt://h"\n', "broker is a table"),
    ],
)
def test_what_cannot_be_is_said_with_its_place(file: Path, text: str, complaint: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as error:
        load(file, {})
    assert complaint in str(error.value)
    assert str(error.value).startswith(f"{file}: ")
    assert "secret" not in str(error.value)


def test_a_missing_file(file: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(file, {})


def test_a_password_is_nobody_elses_to_read(file: Path, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("secret\n")
    secret.chmod(0o644)
    file.write_text(GOOD + f'password_file = "{secret}"\n')
    with pytest.raises(ConfigError, match="chmod 600"):
        load(file, {})
    secret.chmod(0o600)
    assert load(file, {}).broker.password_file == str(secret)


def test_a_key_has_more_lines_than_a_password_and_is_as_private(file: Path, tmp_path: Path) -> None:
    key = tmp_path / "bed.key"
    key.write_text("-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n")
    file.write_text(GOOD + f'cert_file = "bed.crt"\nkey_file = "{key}"\n')
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="others can read this secret"):
        load(file, {})
    key.chmod(0o600)
    assert load(file, {}).broker.key_file == str(key)
