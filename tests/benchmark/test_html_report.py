from __future__ import annotations

import base64
import hashlib
import itertools
import math
import os
import re
from html import unescape
from typing import TYPE_CHECKING, Any, Literal

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from bench.analysis.comparison import compare
from bench.reports import findings, formatting, html_export
from bench.reports.charts import distribution, scales, timeline
from tests.benchmark.runs import command, strict_json
from tests.support import chromium
from tests.support.run_documents import run_document, steady

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from playwright.async_api import Browser, Page

HOSTILE = "\"'><script>alert(1)</script>&{{7*7}}<svg onload=alert(2)>"
SECTIONS = [
    "verdict",
    "assertions",
    "throughput",
    "latency",
    "distribution",
    "phases",
    "errors",
    "provider",
    "generator",
    "conditions",
]


def troubled() -> dict[str, Any]:
    """A run in which everything happened: failures, drops, a stall, losses, a slow generator."""
    outcomes = [
        (at, "421" if number % 40 == 0 else latency * (60 if 7 < at < 9 else 1))
        for number, (at, latency) in enumerate(steady(2000, 0.012))
    ]
    outcomes += [(3.0, "connection refused"), (4.0, HOSTILE), (4.0, "535")]
    return run_document(
        sorted(outcomes, key=lambda one: one[0]),
        dropped_at=[8 + at / 50 for at in range(60)],
        target="127.0.0.1:2525",
        reconciliation__lost=2,
        generator__was_bottleneck=True,
        generator__reason="its CPU was busy for 97 % of the time",
        generator__advice="Use more --processes.",
        assertions=[
            {"expression": "p95<=500ms", "value": 0.03, "is_met": True},
            {"expression": "lost==0", "value": 2, "is_met": False},
            {"expression": "token_requests<5", "value": None, "is_met": False},
        ],
    )


def sweep(
    loads: Sequence[float] = (1, 2, 5, 10, 20, 50), knee: float | None = 10
) -> dict[str, Any]:
    return {
        "schema_version": 2,
        "kind": "sweep",
        "timestamp": "2025-11-20T05:45:00+00:00",
        "target": "127.0.0.1:2525",
        "parameter": "concurrent",
        "steps": [
            {"load": load, "run": run_document(steady(100, 0.01, per_second=min(load, 10) * 20))}
            for load in loads
        ],
        "knee": {"load": knee, "reason": "Throughput rose no more."},
    }


def compared(runs: int = 4) -> dict[str, Any]:
    def side(scale: float) -> list[dict[str, Any]]:
        return [run_document(steady(100 + at, scale, per_second=1 / scale)) for at in range(runs)]

    return compare(side(0.01), side(0.012))


DOCUMENTS: dict[str, Callable[[], dict[str, Any]]] = {
    "troubled": troubled,
    "steady": lambda: run_document(steady(900, 0.012), bin_seconds=0.25),
    "nothing": run_document,
    "only failures": lambda: run_document([(0.5, "535")]),
    "one message": lambda: run_document([(0.2, 0.2)]),
    "equal latencies": lambda: run_document([(at / 10, 0.01) for at in range(1, 50)]),
    "unchecked": lambda: run_document(
        steady(50, 0.01),
        reconciliation=None,
        reconciliation_not_checked_because="there is no sandbox",
        provider=None,
        partial=True,
        interrupted_by="SIGINT",
    ),
    "hours": lambda: run_document(
        [(at * 60.0, 0.01 * at) for at in range(1, 200)], bin_seconds=60.0
    ),
    "comparison": compared,
    "nothing left": lambda: compare(
        [run_document(steady(100 + at, 0.01)) for at in range(4)],
        [run_document([(0.5, "535")]) for _ in range(4)],
    ),
    "pair": lambda: compared(1),
    "nothing compared": lambda: compare([run_document()], [run_document()]),
    "sweep": sweep,
    "one step": lambda: sweep([5], None),
    "no step": lambda: sweep([], None),
}


def text_of(page: str) -> str:
    body = re.sub(
        r"<(style|title|desc)\b.*?</\1>", "", page[page.index("<main>") :], flags=re.DOTALL
    )
    shown = " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())
    return shown.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_page_needs_nothing_from_elsewhere_and_no_script(name: str) -> None:
    page = html_export.render(DOCUMENTS[name]())
    assert "<script" not in page
    assert "javascript:" not in page
    assert not re.search(r"\son\w+=[\"']", page)
    assert not re.search(r"\bstyle=", page)
    assert "://" not in page
    assert set(re.findall(r'(?:src|href)="([^"]*)"', page)) == {"data:,"}
    assert "nan" not in re.findall(r'[\d" ](nan|inf)\b', page)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_picture_is_named_and_described(name: str) -> None:
    page = html_export.render(DOCUMENTS[name]())
    pictures = re.findall(r'<svg class="chart .*?</svg>', page, re.DOTALL)
    for picture in pictures:
        assert 'role="img"' in picture
        (key,) = re.findall(r'aria-labelledby="([^"]+)"', picture)
        assert re.search(rf'<title id="{key}">[^<]+</title>', picture)
        assert re.search(r'<desc id="[^"]+">[^<]+</desc>', picture)
    keys = re.findall(r'\bid="([^"]+)"', page)
    assert len(keys) == len(set(keys))
    for table in re.findall(r"<table.*?</table>", page, re.DOTALL):
        assert "<caption>" in table
        assert "<th>" not in table  # each has its scope


def test_the_policy_admits_the_one_style_sheet_and_nothing_else() -> None:
    page = html_export.render(run_document())
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]+)"', page)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = dict(rule.split(" ", 1) for rule in unescape(policy).split("; "))
    assert rules.pop("style-src") == f"'sha256-{digest}'"
    assert rules.pop("img-src") == "data:"
    assert set(rules.values()) == {"'none'"}
    assert "default-src" in rules
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_words_of_a_server_stay_words() -> None:
    document = run_document(
        steady(10, 0.01),
        errors=[{"step": HOSTILE, "code": HOSTILE, "text": HOSTILE, "count": 1}],
        target=HOSTILE,
        config__scenario=HOSTILE,
        environment__platform=HOSTILE,
        reconciliation=None,
        reconciliation_not_checked_because=HOSTILE,
        generator__reason=HOSTILE,
    )
    page = html_export.render(document)
    assert "<script" not in page
    assert "onload=alert(2)>" not in page
    assert "{{7*7}}" in page  # words of the document are no template
    assert text_of(page).count(HOSTILE) >= 5


def test_the_figures_shown_are_those_of_the_document() -> None:
    document = troubled()
    results, shown = document["results"], text_of(html_export.render(document))
    latency = results["latency"]
    for figure in (
        f"Throughput {formatting.rate(results['throughput_rps'])}/s",
        f"p50 latency {formatting.duration(latency['p50_seconds'])}",
        f"p99.9 ~{formatting.duration(latency['p999_seconds'])}",  # two of 2,000 are beyond it
        f"Success {formatting.percent(results['success_rate'])}",
        "Lost 2 ✕ should be 0",
        "Dropped: no connection in time 60",
        f"Failed {results['failed']}",
        "Token requests 4",
        "p95<=500ms 30.0 ms ✓ met",
        "lost==0 2 ✕ not met",
        "token_requests<5 not known: there was no sandbox, or it gave no answer ✕ not met",
        "421 because 50",
        "CPU, of a core for each 31.00 %",
    ):
        assert figure.replace("\N{NO-BREAK SPACE}", " ") in shown, figure


def test_findings_come_gravest_first_and_in_words() -> None:
    found = findings.findings(troubled())
    assert [one.level for one in found] == ["bad", "bad", "attention", "attention", "attention"]
    sentences = " ".join(one.sentence for one in found)
    assert "2 messages acknowledged and never arrived." in sentences
    assert "Not met: lost==0, token_requests<5." in sentences
    assert "The target may be faster than shown. Use more --processes." in sentences


def test_a_clean_run_is_said_to_be_one() -> None:
    found = findings.findings(run_document(steady(200, 0.01)))
    assert [one.sentence for one in found] == [
        "Every acknowledged message arrived exactly once and unchanged.",
        "All 200 messages were accepted.",
    ]


def test_a_clean_run_with_messages_that_failed_and_arrived_needs_attention() -> None:
    found = findings.findings(run_document(steady(200, 0.01), reconciliation__unexpected=12))
    assert found[0].level == "attention"
    assert found[0].sentence.startswith("12 messages arrived although the client was told")


def test_a_latency_axis_says_whether_it_is_logarithmic() -> None:
    for document, axis in (
        (troubled(), "logarithmic"),
        (run_document(steady(900, 0.01)), "linear"),
    ):
        (picture,) = re.findall(
            r'<svg class="chart wide"[^>]*"latency-wide-title".*?</svg>',
            html_export.render(document),
            re.DOTALL,
        )
        assert f"latency, axis {axis}" in re.sub(r"<desc.*?</desc>", "", picture)


def test_an_axis_of_changes_says_that_it_is_logarithmic() -> None:
    assert ">change against the baseline, axis logarithmic</text>" in forest(compared())


def test_a_knee_at_one_is_told_in_the_singular() -> None:
    document = sweep((0.5, 1, 2), 1) | {"parameter": "arrival_rate_per_second"}
    assert "The knee is at 1 message a second " in text_of(html_export.render(document))
    assert "The knee is at 10 connections at once " in text_of(html_export.render(sweep()))


def test_an_address_breaks_behind_its_at_sign() -> None:
    page = html_export.render(run_document(config__to_email="<b>recipient@outlook.com"))
    assert "<td>&lt;b&gt;recipient@<wbr>outlook.com</td>" in page


def forest(document: dict[str, Any]) -> str:
    (picture,) = re.findall(
        r'<svg class="chart wide"[^>]*"forest-wide-title".*?</svg>',
        html_export.render(document),
        re.DOTALL,
    )
    return str(picture)


def test_a_candidate_without_a_success_is_seen_in_the_picture_of_changes() -> None:
    alive = [run_document(steady(200 + at, 0.01)) for at in range(4)]
    dead = [run_document([(0.5 + at, "535")]) for at in range(4)]
    worse, better = forest(compare(alive, dead)), forest(compare(dead, alive))
    for picture in (worse, better):
        shown = [unescape(one) for one in re.findall(r"<text[^>]*>([^<]*)</text>", picture)]
        assert [row["title"] in shown for row in compare(alive, dead)["figures"]] == [True] * 8  # type: ignore[attr-defined]
        assert picture.count("not drawable: a side does not have it") == 5  # the latencies
        assert picture.count('class="median"') == 2 * 2  # two arrows: throughput and success
    assert "\N{MINUS SIGN}100.0\N{NO-BREAK SPACE}%, worse" in worse
    assert "∞, better" in better


@pytest.mark.parametrize("count", [1, 3])
def test_the_verdict_on_the_page_says_why(count: int) -> None:
    shown = text_of(html_export.render(compared(count)))
    assert f"Too few runs to decide: {count} against {count}." in shown
    assert ("Pairs' change" in shown) is (count == 3)


def test_what_was_not_checked_is_not_called_clean() -> None:
    document = run_document(
        steady(10, 0.01), reconciliation=None, reconciliation_not_checked_because="no sandbox"
    )
    (first, *_) = findings.findings(document)
    assert first.sentence == "Whether mail was lost was not checked: no sandbox."
    assert "Lost – not checked" in text_of(html_export.render(document))


def test_a_run_without_a_success_says_so_and_draws_no_latency() -> None:
    page = html_export.render(run_document([(0.5, "535")]))
    assert "✕ No message succeeded." in text_of(page)
    assert 'id="latency-wide' not in page
    assert 'id="histogram-wide' not in page


@pytest.mark.parametrize(
    "document", [{}, {"schema_version": 2, "kind": "cost"}, run_document() | {"schema_version": 1}]
)
def test_another_document_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a report shows"):
        html_export.render(document)


def test_writing_leaves_a_whole_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    html_export.write(run_document(errors=[{"code": "é\ud800", "text": "", "count": 0}]), path)
    assert "<main>" in path.read_text("utf-8")
    assert os.listdir(tmp_path) == ["report.html"]


# Arithmetic of the pictures


numbers = st.floats(1e-6, 1e9)


@given(numbers, st.integers(3, 12))
def test_an_axis_from_zero_has_even_round_numbers_up_to_above_the_highest(
    highest: float, most: int
) -> None:
    scale = scales.from_zero(highest, 0, 100, most)
    assert scale.ticks[0] == 0
    assert highest <= scale.ticks[-1] * (1 + 1e-6)
    assert len(scale.ticks) <= most
    step = scale.ticks[1]
    assert f"{step:e}"[0] in "125"
    assert float(f"{step:.1e}") == step
    for at, tick in enumerate(scale.ticks):
        assert tick == pytest.approx(at * step)


@given(numbers, numbers)
def test_a_logarithmic_axis_has_its_numbers_within_and_ascending(one: float, other: float) -> None:
    scale = scales.logarithmic(min(one, other), max(one, other), 0, 100)
    assert 2 <= len(scale.ticks) <= 8
    assert list(scale.ticks) == sorted(set(scale.ticks))
    places = [scale(tick) for tick in scale.ticks]
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in places)
    assert all(low < high for low, high in itertools.pairwise(places))


@given(st.lists(st.tuples(st.floats(1e-6, 100), st.integers(1, 10**6)), min_size=1, max_size=50))
def test_bars_hold_every_message_in_its_place(buckets: list[tuple[float, int]]) -> None:
    known = [{"up_to_seconds": seconds, "count": count} for seconds, count in sorted(buckets)]
    low, high = known[0]["up_to_seconds"], known[-1]["up_to_seconds"]
    x = scales.logarithmic(low, high, 0, 700)
    edges, counts = distribution.bars(known, x, 48)
    assert sum(counts) == sum(count for _, count in buckets)
    assert len(edges) == len(counts) + 1
    for at, count in enumerate(counts):
        inside = [
            bucket["count"]
            for bucket in known
            if edges[at] * (1 - 1e-9) <= bucket["up_to_seconds"] <= edges[at + 1] * (1 + 1e-9)
        ]
        assert count <= sum(inside)


def test_a_short_rest_of_the_run_is_no_drop_of_throughput() -> None:
    document = run_document(steady(205, 0.01))  # 100 a second: 5 in a last stretch of 50 ms
    found = timeline.bins(document["results"])
    assert len(found) == 2
    assert found[-1].end_seconds == 2.05
    assert [one.rate(one.successful) for one in found] == pytest.approx([100, 100], rel=0.05)
    assert sum(one.successful for one in found) == 205


def test_a_last_stretch_that_is_not_whole_draws_no_rate_of_its_own() -> None:
    # All that was in flight ends within the last 60 ms: no rate of 500 a second.
    outcomes = [*steady(300, 0.01), *((3.06, 0.01) for _ in range(30))]
    found = timeline.bins(run_document(outcomes, bin_seconds=0.1)["results"])
    assert max(one.rate(one.successful) for one in found) < 260
    assert sum(one.successful for one in found) == 330
    (found_one,) = timeline.bins(run_document(steady(180, 0.01))["results"])
    assert found_one.rate(found_one.successful) == pytest.approx(100)
    (only,) = timeline.bins(run_document(steady(30, 0.01))["results"])
    assert only.rate(only.successful) == pytest.approx(100)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (None, "–"),
        (0, "0 s"),
        (0.0000012, "1.20 µs"),
        (0.00099951, "1.00 ms"),
        (0.0123456, "12.3 ms"),
        (0.9996, "1.00 s"),
        (99.94, "99.9 s"),
        (100, "1 min 40 s"),
        (3725, "1 h 2 min"),
    ],
)
def test_durations_have_three_digits_and_their_unit(seconds: float | None, shown: str) -> None:
    assert formatting.duration(seconds).replace("\N{NO-BREAK SPACE}", " ") == shown


@given(st.floats(0, 1, exclude_min=True, exclude_max=True))
def test_nearly_all_is_not_all_and_hardly_any_is_not_none(share: float) -> None:
    assert float(formatting.percent(share).split("\N{NO-BREAK SPACE}")[0]) not in (0, 100)


@given(numbers)
def test_rounding_keeps_three_digits(number: float) -> None:
    assert math.isclose(
        float(formatting.rate(number).replace(",", "")), number, rel_tol=0.0051, abs_tol=0
    )


# In a real browser

_OVERLAPS = """() => {
  const found = [];
  for (const svg of document.querySelectorAll('svg.chart')) {
    const frame = svg.getBoundingClientRect();
    if (!frame.width) continue;
    const boxes = [...svg.querySelectorAll('text')].map(
      text => [text.textContent, text.getBoundingClientRect()]);
    boxes.forEach(([words, one], index) => {
      if (one.left < frame.left - 1 || one.right > frame.right + 1 || one.top < frame.top - 1
          || one.bottom > frame.bottom + 1) found.push(`cut off: ${words}`);
      for (const [others, other] of boxes.slice(index + 1)) {
        const across = Math.min(one.right, other.right) - Math.max(one.left, other.left);
        const down = Math.min(one.bottom, other.bottom) - Math.max(one.top, other.top);
        if (across > 0.5 && down > 3) found.push(`${words} over ${others}`);
      }
    });
  }
  return found;
}"""
_FAINT = """() => {
  const channel = value => {
    value /= 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  };
  const luminance = colour => {
    const [red, green, blue] = colour.match(/[\\d.]+/g).map(Number);
    return 0.2126 * channel(red) + 0.7152 * channel(green) + 0.0722 * channel(blue);
  };
  const paper = luminance(getComputedStyle(document.body).backgroundColor);
  const found = [];
  let counted = 0;
  for (const element of document.querySelectorAll('body *')) {
    const own = [...element.childNodes].some(n => n.nodeType === 3 && n.textContent.trim());
    if (!own || !element.getClientRects().length) continue;
    counted += 1;
    const style = getComputedStyle(element);
    const ink = luminance(element instanceof SVGElement ? style.fill : style.color);
    const ratio = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName} ${element.textContent}: ${ratio.toFixed(2)}`);
  }
  return counted > 40 ? found : ['hardly any text'];
}"""


class Look:
    """A browser that opens report files, and everything it complained of or asked for."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page = page
        self._folder = folder
        self.complaints: list[str] = []
        self.asked: list[str] = []
        page.on("console", lambda said: self.complaints.append(said.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    async def open(self, document: dict[str, Any]) -> None:
        path = self._folder / "report.html"
        html_export.write(document, path)
        await self.page.goto(path.as_uri())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium.browser() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module")
async def look(browser: Browser, tmp_path: Path) -> AsyncIterator[Look]:
    async with chromium.page_in(browser) as page:
        yield Look(page, tmp_path)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_page(browser: Browser) -> AsyncIterator[Page]:
    """A page for many documents: each test sets all that it relies on."""
    async with chromium.page_in(browser) as page:
        yield page


in_the_shared_browser = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.outside
@in_the_shared_browser
async def test_the_page_opens_without_a_complaint_or_a_request(look: Look) -> None:
    for name, document in DOCUMENTS.items():
        await look.open(document())
        assert look.complaints == [], name
    assert {url.partition(":")[0] for url in look.asked} <= {"file", "data"}
    await look.open(troubled())
    for key in SECTIONS:
        section = look.page.locator(f"#{key}")
        assert await section.is_visible(), key
        assert await section.get_by_role("heading").or_(section.locator("dl")).count(), key
    assert await look.page.get_by_role("img").count() == 5
    assert await look.page.get_by_role("table").count() >= 10


@pytest.mark.outside
@in_the_shared_browser
@pytest.mark.parametrize("name", DOCUMENTS)
async def test_nothing_overflows_overlaps_or_is_cut_off(
    shared_page: Page, name: str, tmp_path: Path
) -> None:
    look = Look(shared_page, tmp_path)
    await look.open(DOCUMENTS[name]())
    for width in (320, 390, 700, 1280):
        await look.page.set_viewport_size({"width": width, "height": 800})
        needed, there = await look.page.evaluate(
            "[document.documentElement.scrollWidth, innerWidth]"
        )
        assert needed <= there == width
        assert await look.page.evaluate(_OVERLAPS) == [], width


@pytest.mark.outside
@in_the_shared_browser
async def test_the_runs_side_by_side_need_no_scrolling_on_a_laptop(look: Look) -> None:
    await look.page.set_viewport_size({"width": 1000, "height": 800})
    long: dict[str, Any] = {"results__throughput_rps": 123_456.0, "config__model": "open"}
    pair = compare(
        [run_document(steady(50, 0.01), **long)], [run_document(steady(50, 0.01), **long)]
    )
    for document in (compared(), pair):
        await look.open(document)
        for table in await look.page.locator(".scroll").all():
            assert await table.evaluate("one => one.scrollWidth <= one.clientWidth")


@pytest.mark.outside
@in_the_shared_browser
async def test_text_is_readable_by_day_and_by_night(look: Look) -> None:
    """WCAG 2.2 §1.4.3: a contrast of 4.5 to 1."""
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for document in (troubled(), compared(), sweep()):
        await look.open(document)
        for scheme in schemes:
            await look.page.emulate_media(color_scheme=scheme)
            assert await look.page.evaluate(_FAINT) == [], scheme


@pytest.mark.outside
@in_the_shared_browser
async def test_on_paper_it_is_dark_on_light_and_whole(look: Look, tmp_path: Path) -> None:
    await look.page.set_viewport_size({"width": 680, "height": 960})  # A4 within its margins
    await look.page.emulate_media(media="print", color_scheme="dark")
    for document in (troubled(), compared(), sweep()):
        await look.open(document)
        paper = await look.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == "rgb(255, 255, 255)"
        assert await look.page.evaluate(_FAINT) == []
        assert await look.page.evaluate(_OVERLAPS) == []
        needed = await look.page.evaluate("document.documentElement.scrollWidth")
        assert needed <= 680
        printed = await look.page.pdf(format="A4")
        pages = len(re.findall(rb"/Type\s*/Page\b", printed))
        assert 2 <= pages <= 8


@pytest.mark.outside
@in_the_shared_browser
async def test_hostile_words_run_nothing_in_the_browser(look: Look) -> None:
    shown: list[str] = []
    look.page.on("dialog", lambda dialog: shown.append(dialog.message))
    errors = [{"step": HOSTILE, "code": HOSTILE, "text": "", "count": 3}]
    await look.open(run_document([(1.0, HOSTILE)], errors=errors, target=HOSTILE))
    assert await look.page.get_by_role("cell", name=HOSTILE).count() == 1
    assert (shown, look.complaints) == ([], [])


@pytest.mark.outside
@in_the_shared_browser
async def test_pictures_for_a_person_to_look_at(look: Look, tmp_path: Path) -> None:
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme, width in zip(schemes, (1100, 390), strict=True):
        await look.page.emulate_media(color_scheme=scheme)
        await look.page.set_viewport_size({"width": width, "height": 800})
        await look.open(troubled())
        picture = tmp_path / f"report-{scheme}-{width}.png"
        await look.page.screenshot(path=picture, full_page=True)
        assert picture.stat().st_size > 50_000


# Of a real run


@pytest.mark.outside
@in_the_shared_browser
async def test_page_json_and_screen_of_a_real_run_agree(tmp_path: Path, look: Look) -> None:
    arguments = (
        *("--num-emails", "60", "--concurrent", "4", "--use-mock-tokens", "--yes"),
        *("--assert", "success==100%", "--output", "run.json", "--html", "run.html"),
        *("--state-dir", "state"),
    )
    async with command(tmp_path, *arguments) as running:
        code, screen, errors = await running.end()
    assert code == 0, errors
    document = strict_json((tmp_path / "run.json").read_text())
    page = (tmp_path / "run.html").read_text()
    assert page == html_export.render(document)
    shown, results = text_of(page), document["results"]
    assert "All 60 messages were accepted." in shown
    assert document["provider_settings"]["behaviour"]["dialect"] == "unlimited"
    assert "Provider: unlimited" in shown
    assert "Provider:                unlimited\n" in screen
    assert "success==100% 100 % ✓ met" in shown
    for key in ("p50", "p95", "p99"):
        latency = formatting.figure(results["latency"], key).replace("\N{NO-BREAK SPACE}", " ")
        assert f"{key} latency {latency}" in shown
        assert re.search(rf"(?m)^  {key.upper()}\b[^:]*: +{re.escape(latency)}$", screen)
    await look.open(document)
    assert look.complaints == []
    assert await look.page.evaluate(_OVERLAPS) == []


def test_settings_are_called_by_the_options_that_set_them() -> None:
    from bench.reports.setting_labels import labelled

    rows = dict(labelled({"max_lateness_seconds": 10.0, "size_bytes": 4096, "a_new_key": 1}))
    assert rows == {"--max-lateness (seconds)": 10.0, "A new key": 1}
