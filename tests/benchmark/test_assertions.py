from __future__ import annotations

import operator
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analysis.assertions import NAMES, Measure, check, expanded, parse
from tests.support.run_documents import run_document, steady

OPERATORS = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
RUN = run_document([*steady(95, 0.02), *((1.0, "535") for _ in range(3)), (1.0, "timed out")])


def met(document: dict[str, Any], expression: str) -> object:
    (one,) = check(document, [expression])
    assert one["expression"] == expression
    return one["is_met"]


@pytest.mark.parametrize(
    ("expression", "limit"),
    [
        ("success>=0.95", 0.95),
        ("success>=95%", 0.95),
        ("p95<=500ms", 0.5),
        ("p999 < 2s", 2.0),
        ("max<250us", 0.00025),
        ("throughput>=600/min", 10.0),
        ("throughput>=10/s", 10.0),
        ("throughput>=10.5", 10.5),
        (" lost == 0 ", 0.0),
        ("errors.535<=2", 2.0),
    ],
)
def test_an_expression_is_a_name_an_operator_and_a_number_with_its_unit(
    expression: str, limit: float
) -> None:
    assert parse(expression).limit == limit


@pytest.mark.parametrize(
    ("expression", "position", "reason"),
    [
        ("", 1, "a name"),
        ("p96<=1s", 1, "'p96'"),
        ("  speed>1", 3, "'speed'"),
        ("errors.>1", 1, "'errors.'"),
        ("p95", 4, "an operator"),
        ("p95=1s", 4, "an operator"),
        ("p95<=", 6, "a number"),
        ("p95<=-1s", 6, "a number"),
        ("p95<=500", 6, "ms, s or us"),
        ("p95<=5min", 6, "'5min'"),
        ("lost==0.5", 7, "a whole number"),
        ("lost==0%", 7, "'0%'"),
        ("success>=95", 10, "0% to 100%"),
        ("success>=101%", 10, "'101%'"),
        ("throughput>5ms", 12, "'5ms'"),
        ("p95<=1s extra", 8, "nothing is expected"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_place_and_the_names(
    expression: str, position: int, reason: str
) -> None:
    with pytest.raises(ValueError, match="character") as caught:
        parse(expression)
    text = str(caught.value)
    assert f"character {position}:" in text
    assert reason in text
    assert all(name in text for name in NAMES)


def test_every_name_reads_a_figure_of_a_run() -> None:
    units = {Measure.COUNT: "0", Measure.TIME: "0s", Measure.SHARE: "0", Measure.RATE: "0"}
    names = [name.replace("CODE", "535") for name in NAMES]
    expressions = [
        next(f"{name}>={unit}" for unit in units.values() if unit.endswith("s") == is_time(name))
        for name in names
    ]
    assert [one["is_met"] for one in check(RUN, expressions)] == [True] * len(names)


def is_time(name: str) -> bool:
    return name in {"min", "max", "mean"} or (name.startswith("p") and name[1:].isdigit())


def test_values_are_those_of_the_document() -> None:
    results = RUN["results"]
    found = check(RUN, ["success>0", "p95>0s", "throughput>0", "failed>=0", "token_requests>=0"])
    assert [one["value"] for one in found] == [
        results["success_rate"],
        results["latency"]["p95_seconds"],
        results["throughput_rps"],
        4,
        RUN["provider"]["token_requests"],
    ]


def test_errors_are_counted_by_code_whatever_their_words() -> None:
    errors = [
        {"code": "535", "text": "5.7.8 no", "count": 2},
        {"code": "535", "text": "5.7.3 never", "count": 3},
        {"code": "timed out", "text": "", "count": 1},
    ]
    document = run_document(errors=errors)
    values = check(document, ["errors.535==5", "errors.timed-out==1", "errors.421==0"])
    assert [one["is_met"] for one in values] == [True, True, True]


def test_a_code_among_errors_that_were_not_told_apart_is_not_known() -> None:
    document = run_document(errors=[{"code": "other", "text": "", "count": 7}])
    unknown, counted = check(document, ["errors.535==0", "errors.other==7"])
    assert (unknown["value"], unknown["is_met"]) == (None, False)
    assert counted["is_met"] is True


@pytest.mark.parametrize("symbol", OPERATORS)
@pytest.mark.parametrize("name", ["p95", "lost", "token_requests", "throughput", "success"])
def test_a_figure_that_is_null_meets_nothing(name: str, symbol: str) -> None:
    document = run_document(reconciliation=None, provider=None)
    unit = "s" if name == "p95" else ""
    assert check(document, [f"{name}{symbol}0{unit}"]) == [
        {"expression": f"{name}{symbol}0{unit}", "value": None, "is_met": False, "caution": None}
    ]


@pytest.mark.parametrize(
    ("name", "enough"),
    [("p50", 20), ("p90", 100), ("p95", 200), ("p99", 1000), ("p999", 10_000), ("mean", 1)],
)
def test_a_percentile_of_too_few_messages_is_judged_with_a_caution(name: str, enough: int) -> None:
    expression = f"{name}<=1s"
    for count, is_cautious in ((enough, False), (enough - 1, True)):
        (one,) = check(run_document(steady(count, 0.01)), [expression])
        assert one["is_met"] is (count > 0)
        assert (one["caution"] is not None) is (is_cautious and count > 0)
    if name == "p99":
        (quick,) = check(run_document(steady(100, 0.01)), [expression])
        assert quick["caution"] == (
            "too few messages for a p99: 100 succeeded, 1 of them beyond it; it takes 1000 to "
            "rest on 10"
        )


def test_one_wrong_expression_spoils_all_before_any_is_checked() -> None:
    with pytest.raises(ValueError, match="lst"):
        check({}, ["lost==0", "lst==0"])


@given(st.integers(0, 10**10), st.sampled_from(sorted(OPERATORS)))
def test_a_time_in_any_unit_is_the_very_number_of_the_document(
    microseconds: int, symbol: str
) -> None:
    value = microseconds / 1e6
    document = run_document(results__latency={"p95_seconds": value})
    expected = OPERATORS[symbol](value, value)
    milliseconds = f"{microseconds // 1000}.{microseconds % 1000:03}ms"
    for written in (f"{microseconds}us", milliseconds, f"{microseconds / 1e6:.6f}s"):
        assert met(document, f"p95{symbol}{written}") is expected


@given(st.floats(0, 1), st.integers(0, 10**6))
def test_exactly_one_of_less_equal_and_more_is_met(value: float, millionths: int) -> None:
    document = run_document(results__success_rate=value)
    limit = f"{millionths // 10**6}.{millionths % 10**6:06}"
    found = [
        one["is_met"] for one in check(document, [f"success{s}{limit}" for s in ("<", "==", ">")])
    ]
    assert found.count(True) == 1
    at_most, at_least, other = check(document, [f"success{s}{limit}" for s in ("<=", ">=", "!=")])
    assert at_most["is_met"] is not found[2]
    assert at_least["is_met"] is not found[0]
    assert other["is_met"] is not found[1]


@settings(max_examples=settings().max_examples // 3)
@given(st.text(max_size=30) | st.from_regex(r"[a-z0-9]{1,8}[<>=!]{1,2}[0-9.]{1,5}[a-z%/]{0,4}"))
def test_any_text_is_read_or_refused_in_words(text: str) -> None:
    try:
        parsed = parse(text)
    except ValueError as error:
        assert "character" in str(error)  # noqa: PT017 - either end is right
    else:
        assert parsed.limit >= 0


def test_the_documents_name_every_figure_that_can_be_asserted() -> None:
    text = (Path(__file__).parents[2] / "docs" / "benchmarker.md").read_text("utf-8")
    (table,) = re.findall(r"(?m)^\| name in `--assert` .*\n(?:\|.*\n)+", text)
    named = [
        name
        for row in table.splitlines()[2:]
        for name in re.findall(r"`([^`]+)`", row.split("|")[1])
    ]
    assert sorted(named) == sorted(NAMES)


def test_a_preset_stands_for_its_expressions_in_its_place() -> None:
    assert expanded(["lost==0", "@default", "failed<=3"]) == [
        *("lost==0", "success>=95%", "p95<=500ms", "mean<=200ms", "failed<=3")
    ]
    assert [parse(one).limit for one in expanded(["@default"])] == [0.95, 0.5, 0.2]


def test_a_preset_that_does_not_exist_is_told_with_those_that_do() -> None:
    with pytest.raises(ValueError, match=r"'@fast'; there is @default"):
        expanded(["@fast"])
