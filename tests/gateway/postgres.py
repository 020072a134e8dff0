"""A real PostgreSQL server of one test run: in a temporary folder, on a free port of 127.0.0.1, as a user
that is not root (the server refuses to be)."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import uuid
from pathlib import Path

import psycopg
from gateway_peers import until
from sqlalchemy.engine import make_url

PASSWORD = "only-for-tests"  # noqa: S105 - of a server that no other program can reach for long


def binaries() -> Path | None:
    """Where the newest installed server is; None where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: path.parts[-3].zfill(3))
    if found:
        return found[-1].parent
    beside = shutil.which("initdb")
    return None if beside is None else Path(beside).parent


def _user() -> int | None:
    """Whom to become: PostgreSQL's own user or nobody while we are root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_uid
        except KeyError:
            continue
    raise AssertionError("neither a user postgres nor a user nobody")


class PostgreSQL:
    """One server, which can be stopped and started again. Its user `samd` signs in by a password."""

    def __init__(self) -> None:
        found = binaries()
        assert found is not None
        self.bin = found
        self._as = {} if _user() is None else {"user": _user(), "group": pwd.getpwuid(_user()).pw_gid}
        self.folder = Path(tempfile.mkdtemp(prefix="samd-postgresql-"))
        if self._as:
            os.chown(self.folder, _user(), -1)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            self.port = sock.getsockname()[1]
        self.password_file = self.folder / "password"
        self.password_file.write_text(PASSWORD)
        self.password_file.chmod(0o600)
        if self._as:
            os.chown(self.password_file, _user(), -1)
        self._run(
            "initdb",
            *("--pgdata", str(self.folder / "data"), "--username", "samd", "--encoding", "UTF8"),
            *("--pwfile", str(self.password_file), "--auth", "scram-sha-256", "--no-sync", "--locale", "C"),
        )
        if self._as:
            os.chown(self.password_file, 0, -1)  # whoever runs the gateway owns its secret
        self._server: subprocess.Popen[bytes] | None = None
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.bin / program), *arguments],
            check=False,
            capture_output=True,
            text=True,
            cwd=self.folder,
            timeout=60,
            **self._as,
        )
        assert done.returncode == 0, done.stderr

    def start(self) -> None:
        options = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self.folder),
            "fsync": "off",  # of this test run alone: nothing here outlives it
        }
        with (self.folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [
                    str(self.bin / "postgres"),
                    *("-D", str(self.folder / "data")),
                    *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
                ],
                stdout=subprocess.DEVNULL,
                stderr=log,
                cwd=self.folder,
                **self._as,
            )
        until(self._answers, 30.0, "PostgreSQL")

    def _answers(self) -> bool:
        try:
            self.connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """At once; connections are dropped."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)
            self._server.wait(30.0)
            self._server = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def connect(self, database: str) -> "psycopg.Connection[tuple[object, ...]]":
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user="samd",
            password=PASSWORD,
            dbname=database,
            autocommit=True,
            connect_timeout=2,
        )

    def processes(self, database: str) -> int:
        """How many connections there are to a database."""
        with self.connect("postgres") as connection:
            query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s"
            return int(connection.execute(query, (database,)).fetchone()[0])

    def create(self) -> str:
        """A new database; its URL, without the password."""
        name = f"t{uuid.uuid4().hex[:8]}"
        with self.connect("postgres") as connection:
            connection.execute(f"CREATE DATABASE {name}")
        connection.close()
        return f"postgresql+psycopg://samd@127.0.0.1:{self.port}/{name}"

    def environment(self, url: str) -> dict[str, str]:
        """What a gateway on that database is started with."""
        return {"SAMD_DATABASE_URL": url, "SAMD_DATABASE_PASSWORD_FILE": str(self.password_file)}


def connect_as(environment: dict[str, str]) -> "psycopg.Connection[tuple[object, ...]]":
    """Into the database that a gateway of this environment uses."""
    url = make_url(environment["SAMD_DATABASE_URL"])
    password = Path(environment["SAMD_DATABASE_PASSWORD_FILE"]).read_text()
    return psycopg.connect(
        host=url.host, port=url.port, user=url.username, password=password, dbname=url.database
    )
