"""Where the gateway may listen: each way that is not safe is refused, each that is works."""

import ssl
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from access_peers import PASSWORD, field
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from gateway_peers import Gateway, Process, free_port

from samd_gateway.cli import main
from samd_gateway.errors import UsageError
from samd_gateway.listen import check_web
from samd_gateway.web import Web

EVERYWHERE = "0.0.0.0"  # noqa: S104 - what is tested
TLS = {"tls_cert": "cert.pem", "tls_key": "key.pem"}


@pytest.mark.parametrize(
    ("web", "users", "why"),
    [
        (Web(host=EVERYWHERE), True, "cross the network in clear; give --tls-cert"),
        (Web(host="::"), True, "cross the network in clear"),
        (Web(host="192.168.1.5"), False, "cross the network in clear"),
        (Web(host=EVERYWHERE, **TLS), False, "no user is set up"),
        (Web(host=EVERYWHERE, behind_proxy=("10.0.0.5",)), False, "no user is set up"),
        (Web(behind_proxy=("127.0.0.1",)), False, "--behind-proxy: no user is set up"),
        (Web(oidc="file.toml"), False, "add an admin with a password first"),
        (Web(host=EVERYWHERE, behind_proxy=("0.0.0.0/0",)), True, "that is everybody"),
        (Web(host=EVERYWHERE, behind_proxy=("proxy",)), True, "write the proxy's address"),
        (Web(host=EVERYWHERE, behind_proxy=("10.0.0.5",), **TLS), True, "either the proxy speaks TLS or"),
        (Web(tls_cert="cert.pem"), True, "go together"),
        (Web(tls_key="key.pem"), True, "go together"),
        (Web(host="gateway"), True, "write an address"),
        (Web(hostnames=("https://ward.example",)), True, "write the name alone"),
    ],
)
def test_what_is_refused(web: Web, users: bool, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        check_web(web, lambda: users)


@pytest.mark.parametrize(
    ("web", "users", "host"),
    [
        (Web(), False, "127.0.0.1"),
        (Web(host="localhost"), False, "127.0.0.1"),
        (Web(host="::1"), False, "::1"),
        (Web(**TLS), False, "127.0.0.1"),
        (Web(host=EVERYWHERE, **TLS), True, EVERYWHERE),
        (Web(host="192.168.1.5", behind_proxy=("10.0.0.0/24", "fd00::5")), True, "192.168.1.5"),
        (Web(hostnames=("ward.example", "ward-7")), False, "127.0.0.1"),
    ],
)
def test_what_is_allowed(web: Web, users: bool, host: str) -> None:
    assert check_web(web, lambda: users) == host


def test_on_loopback_the_database_is_not_asked() -> None:
    def asked() -> bool:
        raise AssertionError

    assert check_web(Web(), asked) == "127.0.0.1"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert, secret = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.touch(mode=0o600)
    secret.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return str(cert), str(secret)


def add_root(folder: Path, tmp_path: Path) -> None:
    """The first admin, on the folder, before any gateway runs."""
    password = tmp_path / "password"
    password.touch(mode=0o600)
    password.write_text(PASSWORD)
    arguments = ["users", "add", "root", "--role", "admin", "--data", str(folder)]
    assert main([*arguments, "--password-file", str(password)]) == 0


def test_the_program_refuses_before_it_listens(tmp_path: Path, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    port = free_port()
    for options, why in (
        (["--host", EVERYWHERE], "--tls-cert"),
        (["--host", EVERYWHERE, "--tls-cert", cert, "--tls-key", key], "no user is set up"),
        (["--tls-cert", key, "--tls-key", key], "cannot be used as certificate"),
        (["--tls-cert", cert, "--tls-key", cert], "chmod 600"),
    ):
        Path(cert).chmod(0o644)
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "samd_gateway",
                "serve",
                "--port",
                str(port),
                "--data",
                tmp_path / "g",
                *options,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 2
        assert done.stdout == ""
        assert why in done.stderr
        assert "Traceback" not in done.stderr


def test_it_says_that_it_is_open(shared_gateway: Gateway) -> None:
    assert "no user is set up: only 127.0.0.1 is served" in "".join(shared_gateway.process.errors)


def test_tls_beyond_loopback_and_a_command_with_a_token(
    broker_url: str, tmp_path: Path, certificate: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = certificate
    folder = tmp_path / "gateway"
    add_root(folder, tmp_path)
    token = tmp_path / "token"
    made = ["tokens", "add", "commands", "--user", "root", "--scope", "read", "--scope", "users"]
    assert main([*made, "--data", str(folder), "--out", str(token)]) == 0
    options = ["--no-pages", "--host", EVERYWHERE, "--port", "0", "--tls-cert", cert, "--tls-key", key]
    process = Process("serve", "--broker", broker_url, "--data", str(folder), *options)
    try:
        address = process.ready()
        assert address.startswith(f"https://{EVERYWHERE}:")
        url = address.replace(EVERYWHERE, "127.0.0.1")
        assert "no user is set up" not in "".join(process.errors)
        trusting = httpx.Client(
            base_url=url, verify=ssl.create_default_context(cafile=cert), trust_env=False, timeout=20.0
        )
        with trusting as http:
            assert http.get("/api/me").status_code == 401
            csrf = field(http.get("/login").text, "csrf")
            answer = http.post("/login", data={"name": "root", "password": PASSWORD, "csrf": csrf})
            assert answer.status_code == 303
            session = next(each for each in answer.headers.get_list("set-cookie") if "_session=" in each)
            assert session.startswith("__Host-samd_session=")
            assert "Secure" in session
            assert "HttpOnly" in session
            assert http.get("/api/me").json()["name"] == "root"
        capsys.readouterr()
        at = ["users", "list", "--json", "--gateway", url]
        assert main([*at, "--token-file", str(token)]) == 2
        assert "--gateway-ca-file FILE" in capsys.readouterr().err
        assert main([*at, "--gateway-ca-file", cert]) == 2
        assert "--token-file FILE" in capsys.readouterr().err
        assert main([*at, "--gateway-ca-file", cert, "--token-file", str(token)]) == 0
        assert '"root"' in capsys.readouterr().out
        runs = ["runs", "start", "--gateway", url, "--gateway-ca-file", cert, "--token-file", str(token)]
        assert main(runs) == 2
        assert "needs the permission 'runs'" in capsys.readouterr().err
        assert main(["devices", "--gateway", "http://gateway.example", "--token-file", str(token)]) == 2
        assert "in clear; write https" in capsys.readouterr().err
        token.chmod(0o644)
        assert main([*at, "--gateway-ca-file", cert, "--token-file", str(token)]) == 2
        assert "chmod 600" in capsys.readouterr().err
    finally:
        assert process.end() == 0


def test_behind_a_proxy(
    broker_url: str, make_gateway: Callable[..., Gateway], tmp_path: Path, enter: Callable
) -> None:
    add_root(tmp_path / "gateway", tmp_path)
    options = ("--no-pages", "--behind-proxy", "127.0.0.1", "--hostname", "ward.example")
    gateway = make_gateway(broker_url, *options)
    said = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https", "host": "ward.example"}

    def get(**headers: str) -> httpx.Response:
        return gateway.http.get("/api/me", headers={k.replace("_", "-"): v for k, v in headers.items()})

    assert get(**said).status_code == 401
    assert get().status_code == 401  # from this machine itself, such as a command
    without = {name: value for name, value in said.items() if name != "x-forwarded-proto"}
    assert "X-Forwarded-Proto: https" in get(**without).json()["detail"]
    assert get(**said | {"x-forwarded-proto": "http"}).status_code == 403
    assert get(**said | {"x-forwarded-for": ""}).status_code == 403
    assert get(**said | {"host": "other.example"}).status_code == 421
    # the session is the proxy's visitor's, by TLS, and what is audited is the address that the proxy said
    browser = enter(gateway.url)
    browser.http.headers.update(said | {"origin": "https://ward.example"})
    page = browser.http.get("/login")
    form = next(each for each in page.headers.get_list("set-cookie") if "_form=" in each)
    assert form.startswith("__Host-samd_form=")
    cookie = form.partition(";")[0]  # which a client without TLS does not send by itself
    wrong = {"name": "root", "password": "x" * 12, "csrf": field(page.text, "csrf")}
    refused = browser.http.post("/login", data=wrong, headers={"cookie": cookie})
    assert refused.status_code == 401
    right = wrong | {"password": PASSWORD}
    answer = browser.http.post("/login", data=right, headers={"cookie": cookie})
    assert answer.status_code == 303
    session = next(each for each in answer.headers.get_list("set-cookie") if "_session=" in each)
    assert "Secure" in session
    sent = {"cookie": session.partition(";")[0]}
    found = browser.http.get("/api/audit", params={"action": "session.refuse"}, headers=sent)
    assert found.json()["entries"][0]["after"] == {"address": "203.0.113.9"}
    foreign = browser.http.get("/api/me", headers=sent | {"origin": "http://ward.example"})
    assert foreign.status_code == 403  # by another scheme it is another site


def test_only_the_proxy_is_believed(
    broker_url: str, make_gateway: Callable[..., Gateway], tmp_path: Path
) -> None:
    add_root(tmp_path / "gateway", tmp_path)
    gateway = make_gateway(broker_url, "--no-pages", "--behind-proxy", "10.11.12.13")
    said = {"x-forwarded-for": "203.0.113.9", "x-forwarded-proto": "https"}
    answer = gateway.http.get("/healthz", headers=said)
    assert answer.status_code == 403
    assert "through its proxy" in answer.json()["detail"]
