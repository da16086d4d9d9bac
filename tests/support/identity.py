"""Fixtures: the identity provider, one process for all tests, as new for each of them.

A module of tests asks for them with `pytest_plugins = ["tests.support.identity"]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.support.identity_server import IdentityProvider

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trustme


@pytest.fixture(scope="session")
def shared_identity_provider(
    tmp_path_factory: pytest.TempPathFactory, authority: trustme.CA
) -> Iterator[IdentityProvider]:
    with IdentityProvider(tmp_path_factory.mktemp("idp"), authority) as provider:
        yield provider


@pytest.fixture
def identity_provider(shared_identity_provider: IdentityProvider) -> IdentityProvider:
    """The provider with its usual behaviour and all counters at zero."""
    shared_identity_provider.reset()
    return shared_identity_provider
