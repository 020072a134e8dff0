"""PostgreSQL's own `pg_dump` and `pg_restore`, as the backup uses them. The password goes by the environment
of the child alone."""

import os
import shutil
import subprocess
from pathlib import Path

from sqlalchemy.engine import URL

from samd_gateway.errors import UsageError

PATIENCE_S = 6 * 3600


def find(program: str) -> str:
    """Where a program of PostgreSQL is. Raises UsageError."""
    beside = shutil.which(program)
    if beside is not None:
        return beside
    # Debian keeps those of each version apart
    installed = sorted(
        Path("/usr/lib/postgresql").glob(f"*/bin/{program}"), key=lambda path: path.parts[-3].zfill(4)
    )
    if not installed:
        raise UsageError(
            f"{program} is not installed here, which a backup of PostgreSQL needs; "
            "apt install postgresql-client, of the server's version or a later one"
        )
    return str(installed[-1])


def dump(url: URL, target: Path) -> None:
    """Everything in the database, as of one moment. Raises UsageError."""
    arguments = ["--format=custom", "--no-owner", "--no-privileges", f"--file={target}"]
    _run("pg_dump", url, [*arguments, f"--dbname={_address(url)}"])


def restore(url: URL, source: Path) -> None:
    """Into a database without these tables, wholly or not at all. Raises UsageError."""
    arguments = ["--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error"]
    _run("pg_restore", url, [*arguments, f"--dbname={_address(url)}", str(source)])


def _address(url: URL) -> str:
    return url.set(drivername="postgresql", password=None).render_as_string(hide_password=False)


def _run(program: str, url: URL, arguments: list[str]) -> None:
    environment = dict(os.environ)
    if url.password is not None:
        environment["PGPASSWORD"] = str(url.password)
    done = subprocess.run(
        [find(program), "--no-password", *arguments],
        check=False,
        capture_output=True,
        text=True,
        errors="replace",
        env=environment,
        stdin=subprocess.DEVNULL,
        timeout=PATIENCE_S,
    )
    if done.returncode != 0:
        reason = next(iter(reversed(done.stderr.strip().splitlines())), f"exit code {done.returncode}")
        raise UsageError(f"{program} failed: {reason}")
