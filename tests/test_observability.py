"""The page, the alert rules and the dashboard, held against the metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
from documents import ROOT

from app.redis_errors import KINDS, kind_of_error
from app.telemetry.metrics import ALL, Metric

PAGE = (ROOT / "docs/observability.md").read_text()
MONITORING = ROOT / "deploy/monitoring"
NAME = re.compile(r"\bcronspace_[a-z_]+")
ENDINGS = ("", "_bucket", "_count", "_sum")
SERIES = {f"{one.name}{ending}" for one in ALL for ending in ENDINGS}


def row_of(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |".replace("|  |", "| |")


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
def test_each_metric_has_its_row_on_the_page(metric: Metric) -> None:
    assert row_of(metric) in PAGE


def test_the_page_names_no_metric_that_is_not_there() -> None:
    assert set(NAME.findall(PAGE)) <= SERIES


def test_the_dashboard_shows_only_metrics_that_are_there() -> None:
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(shown) > 15
    for expression in shown:
        assert NAME.search(expression)
        assert len(NAME.findall(expression)) == expression.count('{namespace=~"$namespace"')
        assert set(NAME.findall(expression)) <= SERIES


def test_the_alert_rules_ask_only_for_metrics_that_are_there() -> None:
    rules = (MONITORING / "rules.yml").read_text()
    named = set(NAME.findall(rules))
    assert len(named) > 8
    assert named <= SERIES


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool comes with Debian's prometheus")
@pytest.mark.parametrize("command", [["check", "rules", "rules.yml"], ["test", "rules", "rules.test.yml"]])
def test_the_alert_rules_pass_promtool(command: list[str]) -> None:
    done = subprocess.run(["promtool", *command], cwd=MONITORING, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_page_names_each_kind_of_redis_error() -> None:
    for kind in KINDS:
        assert f"`{kind}`" in PAGE
    assert kind_of_error(ConnectionRefusedError()) == "connection"
    assert kind_of_error(TimeoutError()) == "timeout"
    assert kind_of_error(ValueError()) == "refused"
