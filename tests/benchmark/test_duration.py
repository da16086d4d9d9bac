from __future__ import annotations

import pytest

from bench.options import duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("40ms", 0.04), ("0ms", 0.0), ("1.5s", 1.5), (" 60s ", 60.0)]
)
def test_a_duration_with_its_unit(text: str, seconds: float) -> None:
    assert duration.seconds(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "40", "ms", "-1s", "4 0ms", "1m", "60.1s", "nans"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is "):
        duration.seconds(text)
