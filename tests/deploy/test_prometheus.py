"""Alerts and dashboard: promtool's word on the rules, and no metric that feed does not have."""

import asyncio
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from tests.deploy.fronts import program
from tests.processes import ROOT, serving

RULES = ROOT / "deploy" / "prometheus" / "alerts.yml"
TESTS = ROOT / "deploy" / "prometheus" / "alerts_test.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "feed.json"


def promtool(*arguments: str, folder: Path = RULES.parent, read: str | None = None) -> None:
    verdict = subprocess.run(
        [program("promtool"), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        input=read,
    )
    assert verdict.returncode == 0, verdict.stdout + verdict.stderr


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", RULES.name)


def test_every_rule_fires_for_what_it_is_for_and_no_other_day() -> None:
    promtool("test", "rules", TESTS.name)
    names = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    assert names == set(re.findall(r'alertname="?(\w+)', TESTS.read_text())), "a rule without a test, or the reverse"


def rules() -> list[str]:
    return [rule["expr"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads(DASHBOARD.read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries() -> list[str]:
    return [target["expr"] for panel in panels() for target in panel["targets"]]


async def test_every_metric_that_is_asked_for_is_one_of_a_running_feed(dsn: str) -> None:
    async with serving(dsn, metrics="open", canary_interval=1) as service, httpx.AsyncClient(trust_env=False) as client:
        text = (await client.get(f"{service.url}/metrics")).raise_for_status().text
    has = set()
    for name, kind in re.findall(r"^# TYPE (feed_\w+) (\w+)$", text, re.MULTILINE):
        has |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    asked = {name for expression in rules() + queries() for name in re.findall(r"\bfeed_\w+", expression)}
    assert asked
    assert asked <= has, sorted(asked - has)


@pytest.mark.parametrize("flags", [(), ("--workers", "2")], ids=["one process", "workers"])
async def test_promtool_finds_nothing_wrong_with_the_metrics(dsn: str, flags: tuple[str, ...]) -> None:
    program("promtool")  # skips before anything is started
    async with (
        serving(dsn, metrics="open", flags=flags) as service,
        httpx.AsyncClient(base_url=service.url, trust_env=False) as client,
    ):
        await client.get("/v1/jobs")  # a metric without a series would not be shown
        text = (await client.get("/metrics")).raise_for_status().text
    await asyncio.to_thread(promtool, "check", "metrics", read=text)


def test_every_panel_has_a_description_a_unit_and_a_place_of_its_own() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    taken: set[tuple[int, int]] = set()
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells
    for panel in panels():
        assert panel["title"]
        assert panel["description"], panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"datasource", "job", "instance"}


@pytest.mark.parametrize("expression", sorted(set(queries())) if DASHBOARD.exists() else [])
def test_promtool_understands_every_query_of_the_dashboard(expression: str, tmp_path: Path) -> None:
    plain = (
        re.sub(r"\$__rate_interval|\$__interval", "1m", expression).replace("$job", "feed").replace("$instance", ".*")
    )
    rule = {"groups": [{"name": "dashboard", "rules": [{"record": "feed:try", "expr": plain}]}]}
    (tmp_path / "rules.yml").write_text(yaml.safe_dump(rule))
    promtool("check", "rules", "rules.yml", folder=tmp_path)
