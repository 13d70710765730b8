"""Kubernetes, Docker and compose: their shapes, and that they name nothing which feed or the repository does not have."""

import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from feed.settings.settings import load_settings, variables
from tests.processes import ROOT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its own imports
    import kubernetes_validate

DEPLOY = ROOT / "deploy"
OPERATORS = {"ServiceMonitor"}
"""Kinds that the Prometheus operator defines."""


def documents() -> list[tuple[str, dict[str, Any]]]:
    found = []
    for file in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            found.append((f"{file.name}:{document['kind']}", document))
    return found


@pytest.mark.parametrize("document", [pytest.param(document, id=name) for name, document in documents()])
@pytest.mark.parametrize("version", ["1.28", kubernetes_validate.latest_version()])
def test_a_manifest_is_what_kubernetes_expects(document: dict[str, Any], version: str) -> None:
    if document["kind"] in OPERATORS:
        pytest.skip("its schema comes with the Prometheus operator")
    kubernetes_validate.validate(document, version, strict=True)


def test_the_kinds_are_complete() -> None:
    assert {document["kind"] for _, document in documents()} >= {
        "Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "Secret", "ServiceMonitor",
    }  # fmt: skip


def test_a_pod_has_the_time_that_its_drain_takes() -> None:
    [deployment] = [document for _, document in documents() if document["kind"] == "Deployment"]
    pod = deployment["spec"]["template"]["spec"]
    settings = load_settings()
    assert pod["terminationGracePeriodSeconds"] >= 5 + settings.drain.deadline + 10


def named(file: Path) -> set[str]:
    return set(re.findall(r"\bFEED_[A-Z0-9_]*[A-Z0-9]\b", file.read_text()))


FILES = [file for file in sorted(DEPLOY.rglob("*")) if file.is_file() and file.suffix != ".env"]


@pytest.mark.parametrize("file", FILES, ids=[str(file.relative_to(DEPLOY)) for file in FILES])
def test_every_setting_that_is_named_exists(file: Path) -> None:
    known = {*variables(), "FEED_KEY"}
    assert named(file) <= known


COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_compose_waits_for_what_is_healthy_and_gives_the_drain_its_time() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        for needed, how in service.get("depends_on", {}).items():
            assert how == {"condition": "service_healthy"}
            assert "healthcheck" in services[needed] or needed == "feed"  # whose image has one
    assert "\nHEALTHCHECK " in (DEPLOY / "Dockerfile").read_text()
    grace = int(services["feed"]["stop_grace_period"].removesuffix("s"))
    assert grace >= load_settings().drain.deadline + 5
    assert (
        services["caddy"]["networks"]["inside"]["ipv4_address"]
        == services["feed"]["environment"]["FEED_TRUSTED_PROXIES"]
    )


def test_compose_holds_no_secret_and_mounts_what_is_there() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    values = {
        name: str(value)
        for service in COMPOSE["services"].values()
        for name, value in service.get("environment", {}).items()
    }
    assert not {name for name in values if re.search("PASSWORD|DATABASE_URL|SECRET", name)}
    assert "ports" not in COMPOSE["services"]["feed"]
    assert "ports" not in COMPOSE["services"]["database"]
    for path in re.findall(r"- \./([^:]+):", text):
        assert (DEPLOY / path).is_file()
    ignored = (ROOT / ".gitignore").read_text()
    assert "deploy/*.env" in ignored
    assert "kubernetes/secret.yaml" in ignored


def test_the_image_is_built_from_files_that_it_is_given() -> None:
    stages = (DEPLOY / "Dockerfile").read_text().split("\nFROM ")
    given = {
        line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")
    }
    copied = {
        name for line in re.findall(r"^COPY (?!--from)(.+) \S+$", stages[1], re.MULTILINE) for name in line.split()
    }
    assert copied == given
    assert all((ROOT / name).exists() for name in copied)
    assert "\nUSER 10001:10001\n" in stages[-1]
    assert "--constraint constraints.txt" in stages[1]
