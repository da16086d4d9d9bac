"""Run inside a network of nothing but loopback: the proxy with its sandbox, and one message.

A program: `python offline_session.py DIRECTORY [guard]`. With `guard` the network is not cut off
by the system, so every process refuses to look up or connect to anything but loopback itself.
Prints a JSON object: the reply to the message, the token refreshes of /metrics, the proxy's log.
"""

from __future__ import annotations

import json
import os
import signal
import smtplib
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

_PATIENCE_SECONDS = 120.0  # as in tests.support.waiting, which cannot be imported here
_GUARD = """
import ipaddress, socket

def _check(host):
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost") or ipaddress.ip_address(name).is_loopback:
        return
    raise OSError(f"no network: {name}")

def _guarded(function, host_of):
    def guarded(*arguments, **options):
        _check(host_of(arguments))
        return function(*arguments, **options)
    return guarded

socket.getaddrinfo = _guarded(socket.getaddrinfo, lambda arguments: arguments[0])

class _Socket(socket.socket):
    def connect(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6):
            _check(address[0])
        return super().connect(address)

socket.socket = _Socket
"""


def main() -> None:
    directory = Path(sys.argv[1])
    environ = dict(os.environ)
    options = []
    if "guard" in sys.argv[2:]:
        (directory / "sitecustomize.py").write_text(_GUARD)
        environ["PYTHONPATH"] = str(directory)
        options = ["--loop", "asyncio"]  # uvloop does not ask Python's socket module
    ready_file, log = directory / "ready.json", directory / "log"
    with log.open("wb") as stderr:
        proxy = subprocess.Popen(
            [
                *(sys.executable, "-m", "xoauth2_proxy", "--sandbox", "--log-level", "debug"),
                *("--port", "0", "--admin-port", "0", "--state-dir", str(directory)),
                *("--ready-file", str(ready_file), *options),
            ],
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            env=environ,
        )
    try:
        report = session(proxy, ready_file) | {"is_cut_off": is_cut_off(environ)}
        proxy.send_signal(signal.SIGTERM)
        report["exit_code"] = proxy.wait(_PATIENCE_SECONDS)
    finally:
        proxy.kill()
        proxy.wait()
    print(json.dumps(report | {"log": log.read_text()}))


def is_cut_off(environ: dict[str, str]) -> bool:
    """Whether a process in this surroundings cannot even try to reach another machine."""
    attempt = "import socket; socket.create_connection(('192.0.2.1', 9), 1)"  # RFC 5737: no one's
    done = subprocess.run(
        [sys.executable, "-c", attempt], env=environ, capture_output=True, text=True, check=False
    )
    return "unreachable" in done.stderr or "no network" in done.stderr


def session(proxy: subprocess.Popen[bytes], ready_file: Path) -> dict[str, object]:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while not ready_file.exists() and proxy.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    ready = json.loads(ready_file.read_text())
    host, _, port = ready["smtp"].rpartition(":")
    with smtplib.SMTP(host, int(port), "client.example", timeout=_PATIENCE_SECONDS) as client:
        client.login("test.account1@gmail.com", "secret")
        client.mail("a@example.com")
        client.rcpt("b@example.net")
        code, text = client.data(b"Subject: offline\r\n\r\nx\r\n")
    with urllib.request.urlopen(f"{ready['admin']}/metrics", timeout=_PATIENCE_SECONDS) as answer:
        metrics = answer.read().decode()
    with urllib.request.urlopen(
        f"{ready['sandbox']['http']}/messages", timeout=_PATIENCE_SECONDS
    ) as answer:
        messages = json.load(answer)["total"]
    name = "xoauth2_proxy_token_refreshes_total{"
    refreshes = [line for line in metrics.splitlines() if line.startswith(name)]
    return {"reply": [code, text.decode()], "refreshes": refreshes, "messages": messages}


if __name__ == "__main__":
    main()
