"""What is sealed can be opened with the key, with an older key, and with nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from keyring.backends import fail, null

from tests.support.keyrings import Keyring, keyring_in_use
from xoauth2_proxy.oauth.stores import encryption
from xoauth2_proxy.oauth.stores.encryption import NO_ENCRYPTION, GrantCipher, key_from_keyring

if TYPE_CHECKING:
    from collections.abc import Callable

    from keyring.backend import KeyringBackend

TEXT = "correct-horse-battery-staple"
OLD_TEXT = "an-older-key-of-the-operator"
GENERATED = Fernet.generate_key().decode()
OCTETS = b'{"refresh_token": "rt-secret"}'
KEYS = [pytest.param(TEXT, id="text"), pytest.param(GENERATED, id="generated")]


@pytest.fixture(autouse=True)
def _keys_are_stretched_less(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the relay stretches them, each takes a fifth of a second."""
    monkeypatch.setitem(encryption._SCRYPT, "n", 2**10)


def salt_of(document: bytes) -> bytes:
    return document.splitlines()[1]


@given(st.binary())
def test_what_is_sealed_opens_again(octets: bytes) -> None:
    cipher = GrantCipher(GENERATED)
    assert cipher.decrypt(cipher.encrypt(octets)) == octets


@pytest.mark.parametrize("key", KEYS)
def test_another_process_with_the_key_opens_it(key: str) -> None:
    sealed = GrantCipher(key).encrypt(OCTETS)
    assert b"secret" not in sealed
    assert GrantCipher(key).decrypt(sealed) == OCTETS


@pytest.mark.parametrize("key", KEYS)
def test_no_two_documents_look_the_same(key: str) -> None:
    cipher = GrantCipher(key)
    assert cipher.encrypt(OCTETS) != cipher.encrypt(OCTETS)


def test_without_a_key_nothing_is_sealed() -> None:
    assert NO_ENCRYPTION.encrypt(OCTETS) == OCTETS
    assert NO_ENCRYPTION.decrypt(OCTETS) == OCTETS
    assert not NO_ENCRYPTION
    assert GrantCipher(TEXT)


def test_what_was_kept_before_there_was_a_key_is_read() -> None:
    assert GrantCipher(TEXT).decrypt(OCTETS) == OCTETS


@pytest.mark.parametrize("key", KEYS)
def test_a_sealed_document_needs_a_key(key: str) -> None:
    with pytest.raises(ValueError, match=r"store\.key"):
        NO_ENCRYPTION.decrypt(GrantCipher(key).encrypt(OCTETS))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("other", [OLD_TEXT, Fernet.generate_key().decode()], ids=["text", "key"])
def test_another_key_does_not_open_it(key: str, other: str) -> None:
    with pytest.raises(ValueError, match="another key") as caught:
        GrantCipher(other).decrypt(GrantCipher(key).encrypt(OCTETS))
    assert key not in str(caught.value)
    assert other not in str(caught.value)


@pytest.mark.parametrize("key", KEYS)
def test_a_changed_document_does_not_open(key: str) -> None:
    cipher = GrantCipher(key)
    sealed = cipher.encrypt(OCTETS)
    for place in (30, 60, len(sealed) - 10):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(ValueError, match="damaged"):
            cipher.decrypt(bytes(changed))
    with pytest.raises(ValueError, match="damaged"):
        cipher.decrypt(sealed[:-20])


@pytest.mark.parametrize(
    ("new", "old"),
    [(TEXT, OLD_TEXT), (TEXT, GENERATED), (GENERATED, OLD_TEXT)],
    ids=["text for text", "text for key", "key for text"],
)
def test_a_new_key_takes_over_from_an_old_one(new: str, old: str) -> None:
    both = GrantCipher(f"{new},{old}")
    assert both.decrypt(GrantCipher(old).encrypt(OCTETS)) == OCTETS
    assert GrantCipher(new).decrypt(both.encrypt(OCTETS)) == OCTETS


@pytest.mark.parametrize("separator", [",", " ", ", ", "\n"])
def test_keys_may_be_separated_as_one_likes(separator: str) -> None:
    older = Fernet.generate_key().decode()
    both = GrantCipher(f"{GENERATED}{separator}{older}{separator}")
    assert both.decrypt(GrantCipher(older).encrypt(OCTETS)) == OCTETS


def test_those_who_share_a_place_come_to_share_a_salt() -> None:
    """Stretching a key anew for each of a thousand mailboxes would take minutes."""
    first, second = GrantCipher(TEXT), GrantCipher(TEXT)
    sealed = first.encrypt(OCTETS)
    assert salt_of(second.encrypt(OCTETS)) != salt_of(sealed), "it is chance"
    third = GrantCipher(TEXT)
    third.decrypt(sealed)
    assert salt_of(third.encrypt(OCTETS)) == salt_of(sealed) == salt_of(first.encrypt(OCTETS))


@pytest.mark.parametrize("key", ["hunter2", f"{TEXT},short", "correct horse battery staple"])
def test_a_short_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(ValueError, match="16 characters") as caught:
        GrantCipher(key)
    assert not any(word in str(caught.value) for word in key.replace(",", " ").split())


def test_a_seal_does_not_show_its_key() -> None:
    assert TEXT not in repr(GrantCipher(TEXT))


def test_the_keyring_keeps_one_key() -> None:
    kept = Keyring()
    with keyring_in_use(kept):
        key = key_from_keyring()
        assert key_from_keyring() == key
    assert list(kept.kept) == [("xoauth2-proxy", "store key")]
    assert GrantCipher(key).decrypt(GrantCipher(key).encrypt(OCTETS)) == OCTETS


@pytest.mark.parametrize("backend", [fail.Keyring, null.Keyring])
def test_a_machine_without_a_keyring_says_so(backend: Callable[[], KeyringBackend]) -> None:
    with keyring_in_use(backend()), pytest.raises(ValueError, match="keyring"):
        key_from_keyring()


def test_a_missing_module_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keyring", None)
    with pytest.raises(ValueError, match=r"pip install keyring"):
        key_from_keyring()
