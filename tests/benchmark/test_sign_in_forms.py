from __future__ import annotations

import pytest

from bench.sign_in.forms import form_of, is_refusal

SANDBOX = """
<form method="post" action="/authorize">
  <input type="hidden" name="attempt" value="k1">
  <input name="login" type="email" value="" autocomplete="username">
  <input name="password" type="password">
  <button name="answer" value="login">Sign in</button>
  <button name="answer" value="deny" formnovalidate>Cancel</button>
</form>"""
KEYCLOAK = """
<form action="/search"><input name="q"><input type="submit" value="Search"></form>
<form id="kc" action="https://idp.test/authenticate?x=1&amp;y=2" method="post">
  <input id="username" name="username" type="text">
  <input name="password" type="password">
  <input type="checkbox" name="rememberMe"> <input type="checkbox" name="terms" checked>
  <input type="hidden" name="credentialId"/>
  <input name="reset" type="reset" value="Clear">
  <input name="login" type="submit" value="Sign In"/>
</form>"""
CONSENT = """
<form id="f" method="post" action="/consent"><input type="hidden" name="csrf" value="s"></form>
<button form="f" name="cancel" value="No">No</button>
<button form="f" name="accept" value="Yes" formaction="/yes">Yes</button>"""


@pytest.mark.parametrize(
    ("page", "action", "values"),
    [
        (
            SANDBOX,
            "/authorize",
            {"attempt": "k1", "login": "a@b.test", "password": "pw", "answer": "login"},
        ),
        (
            KEYCLOAK,
            "https://idp.test/authenticate?x=1&y=2",
            {
                "username": "a@b.test",
                "password": "pw",
                "terms": "on",
                "credentialId": "",
                "login": "Sign In",
            },
        ),
        (CONSENT, "/yes", {"csrf": "s", "accept": "Yes"}),
    ],
    ids=["sandbox", "keycloak", "consent"],
)
def test_a_form_is_filled_in_as_a_user_does_who_agrees(
    page: str, action: str, values: dict[str, str]
) -> None:
    form = form_of(page)
    assert form is not None
    assert form.filled("a@b.test", "pw") == (action, values)
    assert form.method == "post"


def test_a_form_that_can_only_refuse_is_left_alone() -> None:
    abort = '<form method="post" action="/abort"><button>Abort</button></form>'
    assert form_of(abort) is None
    form = form_of(abort + CONSENT)
    assert form is not None
    assert form.action == "/consent"


def test_a_page_without_a_form_has_none() -> None:
    assert form_of("<h1>Please enable JavaScript</h1><button>Go</button>") is None
    assert form_of("") is None


@pytest.mark.parametrize("words", ["Cancel", "answer deny Refuse", "No", "Not now", "GO BACK"])
def test_words_that_refuse(words: str) -> None:
    assert is_refusal(words)


@pytest.mark.parametrize("words", ["Sign in", "answer allow Allow", "Yes", "Continue", "Notify me"])
def test_words_that_do_not_refuse(words: str) -> None:
    assert not is_refusal(words)
