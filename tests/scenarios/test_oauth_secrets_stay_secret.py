"""No secret of OAuth leaves the relay: not in its log, pages, answers, arguments or files.

The real process at its most talkative, every way to a token walked, with endpoints, programs and
mail servers that give back what they were told.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, urlsplit

import pytest
from cryptography.fernet import Fernet

from tests.support.command_line import said_here
from tests.support.exposed import ECHOED, SCRIPTED, Exposed, echo
from tests.support.exposed_visits import (
    look_at_everything,
    post,
    send_from_all,
    sign_in,
    speak_no_http,
)
from tests.support.peers import serving
from tests.support.person import Person
from tests.support.planted import Planted
from tests.support.proxy_process import ROOT
from tests.support.sandbox import Sandbox
from tests.support.sign_ins import ALICE
from tests.support.token_endpoint import TokenEndpoint
from tests.support.treachery import TREACHERIES
from tests.support.waiting import PATIENCE_SECONDS, until
from xoauth2_proxy.oauth.stores import StoredGrant
from xoauth2_proxy.oauth.stores.encryption import GrantCipher

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import trustme

    from tests.scenarios.conftest import StartProcess
    from tests.support.identity_server import IdentityProvider
    from tests.support.proxy_process import ProxyProcess

pytest_plugins = ["tests.support.identity"]
pytestmark = [
    pytest.mark.one_loop,
    # Of the service account's, which the token endpoint verifies.
    pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning"),
]

TOKEN_VARIABLE = "XOAUTH2_PROXY_ADMIN_TOKEN"


@pytest.fixture
async def exposed(
    identity_provider: IdentityProvider, authority: trustme.CA, tmp_path: Path
) -> AsyncIterator[Exposed]:
    (tmp_path / "mail").mkdir()
    async with (
        TokenEndpoint(authority) as endpoint,
        Sandbox(tmp_path / "mail", http_port=None) as mail,
        serving(echo) as echo_port,
    ):
        yield Exposed(Planted(), endpoint, identity_provider, mail, echo_port, tmp_path)


def processes(pid: int) -> list[Path]:
    """Return the process and all that descend from it."""
    proc = Path(f"/proc/{pid}")
    children = " ".join(map(text_of, proc.glob("task/*/children"))).split()
    return [proc, *(each for child in children for each in processes(int(child)))]


def text_of(file: Path) -> str:
    """Return what a file of /proc says; "" if its process has ended."""
    with suppress(OSError):
        return file.read_text()
    return ""


@asynccontextmanager
async def command(*words: str, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run a sub-command; it is killed if the test does not wait for its end."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "xoauth2_proxy", *words),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=os.environ | {"COLUMNS": "400"} | environ,
        cwd=ROOT,
    )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def said_by(*words: str, **environ: str) -> str:
    said = await asyncio.to_thread(said_here, *words, environ={"COLUMNS": "400"} | environ)
    return said.stdout + said.stderr


async def said_by_process(*words: str, **environ: str) -> str:
    async with command(*words, **environ) as process:
        return (await process.communicate())[0].decode()


async def log_in(exposed: Exposed, mailbox: str, code: str, *words: str, **environ: str) -> str:
    """Sign in with `login --paste`, at the identity provider unless there is a code already."""
    async with command(*words, "login", mailbox, "--paste", **environ) as process:
        assert process.stdout is not None
        said = ""
        while (found := re.search(r"https://\S+state=\S+", said)) is None:
            line = (await process.stdout.readline()).decode()
            assert line, said
            said += line
        query = parse_qs(urlsplit(found[0]).query)
        address = f"{query['redirect_uri'][0]}?state={query['state'][0]}&code={quote(code)}"
        if not code:
            async with Person(exposed.identity) as person:
                address = await person.sign_in(found[0], mailbox)
            exposed.planted.add("a code", parse_qs(urlsplit(address).query)["code"][0])
        rest, _ = await process.communicate(f"{address}\n".encode())
    return said + rest.decode()


@asynccontextmanager
async def some_webhook(*, is_there: bool) -> AsyncIterator[str]:
    """Give the address of a webhook that knows nothing of it, or of none at all."""
    if not is_there:
        yield "http://127.0.0.1:1"
        return
    async with TokenEndpoint() as server:
        yield server.url


def note_grants(planted: Planted, directory: Path, key: str) -> None:
    """Search for what the store holds, too, sealed or not."""
    cipher = GrantCipher(key)
    files = [*directory.glob("*.json")]
    assert len(files) > 10
    for file in files:
        document = json.loads(cipher.decrypt(file.read_bytes()))
        grant = StoredGrant.from_json(document["grant"])
        planted.add("a stored refresh token", grant.refresh_token)
        planted.add("a stored access token", grant.access_token)


def open_files(state: Path, *, is_sealed: bool) -> str:
    """Return all that the state directory holds where no secret may be."""
    said = []
    for file in state.rglob("*"):
        if not file.is_file():
            continue
        is_closed = not is_sealed and file.relative_to(state).parts[0] in {"tokens", "accounts"}
        if is_closed and ".json" in file.name:  # a draft has more behind its name, for a moment
            assert file.stat().st_mode & 0o077 == 0, file
        else:
            said.append(f"{file}: " + file.read_bytes().decode("latin-1"))
    return "\n".join(said)


def check_log(proxy: ProxyProcess, log_format: str) -> None:
    """See that the log tells of all that was to be walked."""
    for words in (
        *("client turned away", "no access token", "Unrecognized command"),
        *("mailbox added", "mailbox removed", "mailbox signed in", "mailbox refreshed"),
        *("wrong token on the sign-in page", "mailbox needs a person", "Error handling request"),
    ):
        assert words in proxy.stderr, words
    if log_format == "json":
        assert all(json.loads(line) for line in proxy.stderr.splitlines())


@pytest.mark.parametrize(("log_format", "workers"), [("text", 1), ("json", 2)])
async def test_no_secret_of_oauth_leaves_the_relay(
    start_process: StartProcess, exposed: Exposed, log_format: str, workers: int
) -> None:
    """With several workers the store is sealed, and the webhook is out of reach."""
    planted, state = exposed.planted, exposed.directory / "state"
    token = planted.new("the admin's token", is_plain=True)
    key = planted.add("the store's key", Fernet.generate_key().decode())
    is_sealed = workers > 1
    async with some_webhook(is_there=workers == 1) as url:
        secrets = [planted.new(name, is_plain=True) for name in ("a path", "a query")]
        proxy = await start_process(
            exposed.document(
                admin={"token": "${" + TOKEN_VARIABLE + "}"},
                alerts={"webhook": "{}/{}?key={}".format(url, *secrets)},
                store={"key": key} if is_sealed else {},
            ),
            *("--log-level", "debug", "--log-format", log_format, "--workers", str(workers)),
            *("--state-dir", str(state)),
            environ={TOKEN_VARIABLE: token} | ({} if is_sealed else {"PYTHONASYNCIODEBUG": "1"}),
        )
        places = {
            "answers to clients": await send_from_all(proxy, exposed),
            "sign-in pages": await sign_in(proxy, exposed, token),
            "answers to programs": await post(proxy, exposed, token),
            "pages": await look_at_everything(proxy, exposed, token),
        }
        await speak_no_http(proxy, exposed)
        await until(lambda: "webhook failed" in proxy.stderr)
        family = processes(proxy.process.pid)
        assert len(family) >= (1 if workers == 1 else 1 + workers)
        for name in ("cmdline", "comm"):
            places[name] = [text_of(one / name) for one in family]
        inherited = "\n".join(text_of(one / "environ") for one in family[1:])
        places["state directory"] = [open_files(state, is_sealed=is_sealed)]
        assert await proxy.stop() == 0
    exposed.note()
    note_grants(planted, state / "tokens", key)
    assert len(planted.values) > 250
    places["state directory"].append(open_files(state, is_sealed=is_sealed))
    places["ready file"] = [(exposed.directory / "ready.json").read_text()]
    places["output"], places["log"] = [proxy.stdout], [proxy.stderr]
    places["commands' surroundings"] = [exposed.command_saw]
    assert all(any(said) for name, said in places.items() if name != "output"), places
    found = {name: planted.leaks("\n".join(said)) for name, said in places.items()}
    assert {name: names for name, names in found.items() if names} == {}
    # What the operator put into the environment, the relay's own processes inherit; nothing else.
    assert planted.leaks(inherited) <= {"the admin's token"}
    check_log(proxy, log_format)


async def test_no_command_tells_a_secret(start_process: StartProcess, exposed: Exposed) -> None:
    """Each is run beside a relay whose mailboxes have failed in every way, and goes on."""
    planted, state = exposed.planted, str(exposed.directory / "state")
    token = planted.new("the admin's token", is_plain=True)
    right = {TOKEN_VARIABLE: token}
    wrong = {TOKEN_VARIABLE: planted.new("a wrong admin token", is_plain=True)}
    proxy = await start_process(
        exposed.document(admin={"token": "${" + TOKEN_VARIABLE + "}"}),
        *("--state-dir", state),
        environ=right,
    )
    await send_from_all(proxy, exposed)
    exposed.betrays("/scripted/token", TREACHERIES["invalid_grant plainly"])
    given = ("--config", str(exposed.directory / "proxy.json"), "--state-dir", state)
    said = [
        await said_by(*given, "check", **right),
        await said_by(*given, "status", "--all", **right),
        await said_by(*given, "status", "--json", **right),
        await said_by(*given, "status", "--url", proxy.admin_url, **wrong),
        await said_by("health", "--url", proxy.admin_url, **wrong),
        await said_by_process(*given, "doctor", exposed.bad[0], "--json", **right),
        await said_by_process(*given, "doctor", ECHOED, **right),
        await log_in(exposed, ALICE, "", *given, **right),
        await log_in(exposed, SCRIPTED, planted.new("a code"), *given, **right),
    ]
    assert "no problems found" in said[0]
    assert all(mailbox in said[1] for mailbox in exposed.passwords)
    assert len(json.loads(said[2])["mailboxes"]) == len(exposed.passwords)
    assert "Signed in" in said[-2], said[-2]
    assert "was not signed in" in said[-1], said[-1]
    exposed.note()
    note_grants(planted, exposed.directory / "state" / "tokens", "")
    assert planted.leaks("\n".join(said)) == set()
