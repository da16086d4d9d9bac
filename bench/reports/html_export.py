"""The HTML report: one self-contained file without scripts or external resources.

I1: all text from a document is escaped, and the page's security policy allows only its own style
sheet.
I2: every figure comes from the document; only sentences and charts are made here.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

from bench.analysis import comparability, provider_summary
from bench.analysis.documents import SCHEMA_VERSION
from bench.reports import comparison_table, findings, formatting
from bench.reports.atomic_write import write_atomically
from bench.reports.charts import bars, distribution, relation, timeline
from bench.reports.setting_labels import labelled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from jinja2 import Environment
    from markupsafe import Markup

_PACKAGE = "bench.reports"
_FOLDER = "html"
_HEADLINE = ("p50", "p95", "p99")
_DOTS = ("throughput", "p50", "p95")  # the figures that a comparison draws run by run
_LABELS: dict[str, Callable[[float], str]] = {
    "per_second": formatting.plain,
    "seconds": formatting.tick,
}


def render(document: Mapping[str, Any]) -> str:
    """Return the page of a document of kind run, comparison or sweep.

    Raises:
        ValueError: the document is of another kind or version.
    """
    kind = str(document.get("kind"))
    if kind not in _VIEWS or document.get("schema_version") != SCHEMA_VERSION:
        raise ValueError(
            f"a report shows {', '.join(_VIEWS)} of schema_version {SCHEMA_VERSION}, not "
            f"{kind!r} of {document.get('schema_version')!r}"
        )
    environment, style, policy = _theme()
    template = environment.get_template(f"{kind}.html")
    values = _VIEWS[kind](document)
    return template.render(document=document, style=style, policy=policy, **values)


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write the page to `path`, replacing an existing file.

    Raises:
        ValueError: as `render`.
        OSError: it could not be written; an existing file is unchanged.
    """
    write_atomically(render(document).encode("utf-8", "xmlcharrefreplace"), path)


@cache
def _theme() -> tuple[Environment, Markup, str]:
    """Return the templates, the style sheet, and the security policy that allows only it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # when a page is written
    from markupsafe import Markup

    style = resources.files(_PACKAGE).joinpath(_FOLDER, "report.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = Environment(
        loader=PackageLoader(_PACKAGE, _FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for name in (
        "duration",
        "count",
        "rate",
        "percent",
        "change",
        "figure",
        "in_unit",
        "note",
        "breakable",
    ):
        environment.filters[name] = getattr(formatting, name)
    environment.globals["opened"], environment.globals["logins"] = findings.opened, findings.logins
    environment.filters["labelled"] = labelled
    environment.filters["sureness"] = comparison_table.sureness
    environment.filters["bounds"] = comparison_table.bounds
    return environment, Markup(style), policy  # noqa: S704 - our own file


def _run(document: Mapping[str, Any]) -> dict[str, object]:
    results = document["results"]
    stretches = timeline.bins(results)
    codes: dict[str, int] = {}
    for row in document["errors"]:
        codes[row["code"]] = codes.get(row["code"], 0) + row["count"]
    users = document.get("sign_in") or {"failures": []}
    return {
        "findings": findings.findings(document),
        "sign_in_failures": [(one["reason"], one["count"]) for one in users["failures"]],
        "rough": formatting.note([results["latency"]], _HEADLINE),
        "opened_before": findings.opened_before(document),
        "bottleneck": findings.bottleneck(document["generator"]),
        "stand_in": _provider(document),
        "measured": [findings.measured(one) for one in document["assertions"]],
        "stretches": stretches,
        "throughput_chart": timeline.throughput(stretches),
        "latency_chart": timeline.latency(stretches),
        "histogram_chart": distribution.histogram(results),
        "phases_chart": bars.phases(
            results,
            without="opened in the warm-up" if findings.opened_before(document) else "not measured",
        ),
        "errors_chart": bars.errors(sorted(codes.items(), key=lambda row: -row[1])),
    }


def _comparison(document: Mapping[str, Any]) -> dict[str, object]:
    rows = {row["name"]: row for row in document["figures"]}
    return {
        "forest_chart": relation.forest(document["figures"]),
        "notes": comparison_table.notes(document),
        "conditions": [
            (row["title"], *comparability.sides(row)) for row in document["differences"]
        ],
        "stand_in": _provider(document["baseline"][0]),
        "change_head": comparison_table.CHANGE[
            any(row["change_of"] == "pairs" for row in document["figures"])
        ],
        "dot_charts": [
            (rows[name]["title"], relation.dots(name, rows[name], label, _medians(rows[name])))
            for name in _DOTS
            for label in (_LABELS[rows[name]["unit"]],)
        ],
    }


def _provider(run: Mapping[str, Any]) -> str | None:
    found = provider_summary.settings(run)
    return None if found is None else provider_summary.summary(found)


def _medians(row: Mapping[str, Any]) -> str:
    before, after = (
        formatting.in_unit(row[side]["median"], row["unit"]) for side in ("baseline", "candidate")
    )
    return f"The baseline's median is {before}, the candidate's {after}."


def _sweep(document: Mapping[str, Any]) -> dict[str, object]:
    steps = document["steps"]
    is_one = document["knee"]["load"] == 1
    unit = {"concurrent": "connections at once"}.get(document["parameter"], "messages a second")
    results = [step["run"]["results"] for step in steps]
    return {
        "unit": unit,
        "knee_unit": unit.replace("s ", " ", 1) if is_one else unit,
        "rough": formatting.note((one["latency"] for one in results), _HEADLINE),
        "stand_in": _provider(steps[0]["run"]) if steps else None,
        "curve_chart": relation.curve(
            [step["load"] for step in steps],
            [one["throughput_rps"] for one in results],
            [one["latency"]["p95_seconds"] for one in results],
            document["knee"]["load"],
            f"load: {unit}",
        ),
    }


_VIEWS: dict[str, Callable[[Mapping[str, Any]], dict[str, object]]] = {
    "run": _run,
    "comparison": _comparison,
    "sweep": _sweep,
}
