"""Which versions of TLS a listener speaks, with the Python of this test and with Debian's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

ROOT = Path(__file__).parents[2]
VERSIONS = ["TLSv1", "TLSv1.1", "TLSv1.2", "TLSv1.3"]

# A server for each `tls_min`, and a client for each version, which speaks no other.
SHAKE_HANDS = """
import socket, ssl, sys, threading, warnings
from pathlib import Path
from xoauth2_proxy.submission.server_tls import TlsVersion, server_context

authority, file = sys.argv[1], Path(sys.argv[2])

def client(version):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        made.minimum_version = made.maximum_version = version
    made.load_verify_locations(authority)
    return made

def answer(context, connection):
    try:
        context.wrap_socket(connection, server_side=True).close()
    except OSError:
        connection.close()

for oldest in TlsVersion:
    spoken = []
    for name in ("TLSv1", "TLSv1_1", "TLSv1_2", "TLSv1_3"):
        here, there = socket.socketpair()
        thread = threading.Thread(target=answer, args=(server_context(file, file, oldest), there))
        thread.start()
        try:
            secure = client(ssl.TLSVersion[name]).wrap_socket(here, server_hostname="localhost")
            spoken.append(secure.version())
            secure.close()
        except OSError:
            here.close()
        thread.join()
    print(oldest.value, *spoken)
"""


@pytest.fixture(scope="module", params=trustme.KeyType, ids=lambda kind: str(kind.name))
def certificate(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, str]:
    """The files of an authority, and of a certificate with its key."""
    directory = tmp_path_factory.mktemp("tls")
    authority, file = directory / "ca.pem", directory / "relay.pem"
    made = trustme.CA(key_type=request.param)
    made.cert_pem.write_to_path(str(authority))
    issued = made.issue_cert("localhost", key_type=request.param)
    issued.private_key_and_cert_chain_pem.write_to_path(str(file))
    return str(authority), str(file)


@pytest.mark.parametrize(
    "python",
    [sys.executable, pytest.param("/usr/bin/python3", marks=pytest.mark.outside)],
    ids=["this", "the distribution's"],
)
def test_tls_min_is_the_oldest_version_that_is_spoken(
    certificate: tuple[str, str], python: str
) -> None:
    if shutil.which(python) is None:
        pytest.skip(f"{python} is missing")
    done = subprocess.run(
        [python, "-W", "error", "-c", SHAKE_HANDS, *certificate],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.splitlines() == [
        " ".join([oldest, *VERSIONS[place:]])
        for place, oldest in enumerate(["1.0", "1.1", "1.2", "1.3"])
    ]
