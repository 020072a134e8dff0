"""Keeps a client running as systemd does (Restart=always), for the tests of updates.

update_keeper.py keep FOLDER COMMAND...    run it, start it anew when it ends, count that in FOLDER/restarts
update_keeper.py restart FOLDER            end the client and start it again; returns once that is done
"""

import os
import select
import signal
import subprocess
import sys
import threading
from pathlib import Path


def keep(folder: Path, command: list[str]) -> None:
    """Until SIGTERM. SIGHUP starts the client anew, and resets the count, as systemctl restart does."""
    asked: list[int] = []
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, lambda number, _frame: asked.append(number))
    crashes, starts = 0, 0
    while True:
        (folder / "restarts").write_text(f"{crashes}\n")
        with (folder / "client.log").open("ab") as log:
            client = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        (folder / "client.pid").write_text(str(client.pid))
        starts += 1
        written = folder / "starts.new"
        written.write_text(str(starts))
        written.replace(folder / "starts")
        while client.poll() is None and not set(asked) & {signal.SIGHUP, signal.SIGTERM}:
            if select.select([heard], [], [], 1.0)[0]:
                os.read(heard, 100)
        if client.poll() is None:
            client.terminate()
            try:
                client.wait(5)
            except subprocess.TimeoutExpired:
                client.kill()
                client.wait()
            if signal.SIGTERM in asked:
                return
            crashes = 0
        else:
            crashes += 1
            threading.Event().wait(0.2)
            if signal.SIGTERM in asked:
                return
        asked.clear()


def restart(folder: Path) -> int:
    """Ask the keeper, and wait until it has started the client."""
    before = (folder / "starts").read_text()
    os.kill(int((folder / "keeper.pid").read_text()), signal.SIGHUP)
    for _ in range(1000):
        if (folder / "starts").read_text() != before:
            return 0
        threading.Event().wait(0.02)
    return 1


if __name__ == "__main__":
    if sys.argv[1] == "keep":
        keep(Path(sys.argv[2]), sys.argv[3:])
    else:
        sys.exit(restart(Path(sys.argv[2])))
