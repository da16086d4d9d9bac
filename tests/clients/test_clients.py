"""Mail clients send by the recipes of the guide, and say what goes wrong."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.support import recipes, scan
from tests.support.desk import NO_SUCH_USER, WRONG_PASSWORD
from tests.support.mail_clients import MAIL_CLIENTS, MailClient
from tests.support.recipes import Recipe
from tests.support.sandbox import reply_fault
from tests.support.smart_host_users import MAIL_SERVERS
from xoauth2_proxy.sandbox.faults import Step

if TYPE_CHECKING:
    from tests.clients.conftest import SetUpDesk
    from tests.support.desk import Security
    from tests.support.relay import Relay

pytestmark = pytest.mark.outside

every_client = pytest.mark.parametrize("client", MAIL_CLIENTS, ids=lambda client: client.name)


def test_every_recipe_of_the_guide_is_followed() -> None:
    followed = [one.name for one in MAIL_CLIENTS] + [one.name for one in MAIL_SERVERS]
    assert sorted(recipes.names()) == sorted(followed)


@pytest.mark.parametrize(
    ("client", "security"),
    [(client, security) for client in MAIL_CLIENTS for security in client.securities],
    ids=lambda value: getattr(value, "name", value),
)
async def test_the_message_arrives_whole(
    set_up: SetUpDesk, client: MailClient, security: Security
) -> None:
    desk = await set_up(security)
    said = await desk.follow(client, desk.placed(Recipe.of(client.name)))
    assert said.exit_code == 0, said.text
    content = desk.received().content or b""
    if client.composes:
        scan.assert_composed(content, alters=client.alters)
    else:
        scan.assert_passed_on(content, behind=client.adds)


@pytest.mark.parametrize(
    "client",
    [client for client in MAIL_CLIENTS if "LOGIN" in Recipe.of(client.name).points],
    ids=lambda client: client.name,
)
async def test_the_mechanism_login_sends_it_too(set_up: SetUpDesk, client: MailClient) -> None:
    desk = await set_up("STARTTLS")
    said = await desk.follow(client, desk.placed(Recipe.of(client.name).varied("LOGIN")))
    assert said.exit_code == 0, said.text
    desk.received()
    assert await mechanism_used(desk.relay, "LOGIN")


@every_client
async def test_a_wrong_password_is_told(set_up: SetUpDesk, client: MailClient) -> None:
    desk = await set_up("STARTTLS")
    recipe = Recipe.of(client.name)
    said = await desk.follow(client, desk.placed(recipe, password="mistyped"))
    assert said.exit_code != 0, said.text
    assert recipe.shown("Wrong password", WRONG_PASSWORD) in said.text
    assert desk.relay.sandbox.received.total == 0


@pytest.mark.parametrize(
    "client", [one for one in MAIL_CLIENTS if one.verifies], ids=lambda client: client.name
)
async def test_no_password_goes_to_a_server_of_another_authority(
    set_up: SetUpDesk, client: MailClient
) -> None:
    desk = await set_up("STARTTLS")
    desk.trust_another_authority()
    said = await desk.follow(client, desk.placed(Recipe.of(client.name)))
    assert said.exit_code != 0, said.text
    assert await desk.relay.metric("xoauth2_proxy_auth_attempts_total") == 0
    assert desk.relay.sandbox.received.total == 0


@every_client
async def test_a_refused_recipient_is_told(set_up: SetUpDesk, client: MailClient) -> None:
    desk = await set_up("STARTTLS")
    desk.relay.sandbox.add_fault(reply_fault(Step.RCPT, f"550 {NO_SUCH_USER}", nth=None))
    recipe = Recipe.of(client.name)
    said = await desk.follow(client, desk.placed(recipe))
    assert said.exit_code != 0, said.text
    assert recipe.shown("Refused recipient", NO_SUCH_USER) in said.text
    assert desk.relay.sandbox.received.total == 0


async def mechanism_used(relay: Relay, mechanism: str) -> bool:
    wanted = {"mechanism": mechanism, "result": "ok"}
    return await relay.metric("xoauth2_proxy_auth_attempts_total", **wanted) == 1


async def test_a_pool_sends_several_messages_at_once(set_up: SetUpDesk) -> None:
    (client,) = (one for one in MAIL_CLIENTS if one.name == "Nodemailer")
    desk = await set_up("STARTTLS", limits={"max_connections": 3})
    recipe = desk.placed(Recipe.of(client.name))
    said = await desk.follow(replace(client, command=f"{client.command} 20"), recipe)
    assert said.exit_code == 0, said.text
    kept = list(desk.relay.sandbox.received)
    assert len({one.message_id for one in kept}) == len(kept) == 20
    for one in kept:
        scan.assert_composed(one.content or b"")
