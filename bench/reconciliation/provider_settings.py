"""The sandbox's settings: behaviour, faults, token endpoint and seed."""

from __future__ import annotations

from collections.abc import Mapping

from bench.targets.http_client import FetchFailed, fetch_object

_ENDPOINT = ("ttl_seconds", "rotation")  # only these: others may contain a client's secret


async def read(sandbox_url: str) -> dict[str, object] | None:
    """Return the settings; None without a valid answer from the sandbox."""
    try:
        answer = await fetch_object(f"{sandbox_url}/settings")
    except FetchFailed:
        return None
    behaviour, endpoint = answer.get("behaviour"), answer.get("token_endpoint")
    faults, seed = answer.get("faults"), answer.get("seed")
    if not isinstance(behaviour, Mapping) or not isinstance(endpoint, Mapping):
        return None
    if not isinstance(faults, list) or not all(isinstance(one, Mapping) for one in faults):
        return None
    if not isinstance(seed, int):
        return None
    return {
        "behaviour": dict(behaviour),
        "faults": faults,
        "token_endpoint": {name: endpoint.get(name) for name in _ENDPOINT},
        "seed": seed,
    }
