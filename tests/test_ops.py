"""What operators are given: Prometheus takes it, its names exist, and it answers under load."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from server.app import Running
from server.config import describe, load_settings
from server.metrics import Metrics
from soak.load import Load, crowd
from soak.server import free_port

ROOT = Path(__file__).parents[1]
OPS = ROOT / "ops"
ALERTS = re.findall(r"- alert: (\w+)", (OPS / "alerts.yml").read_text(encoding="utf-8"))
FOUR = (
    "roomscribe:first_text_seconds:p95",
    "roomscribe:final_seconds:p95",
    "roomscribe:audio_dropped:ratio",
    "roomscribe:admissible_speakers",
)
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None, reason="prometheus is not installed"
)


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_prometheus
def test_prometheus_takes_its_settings() -> None:
    promtool("check", "config", "ops/prometheus.yml")


@needs_prometheus
def test_the_rules_give_what_they_say() -> None:
    promtool("test", "rules", "ops/rules.test.yml")


def series() -> set[str]:
    names = set()
    for name, kind, _labels, _meaning in Metrics().describe():
        endings = ("_bucket", "_sum", "_count") if kind == "histogram" else ("",)
        names |= {name + ending for ending in endings}
    return names


@pytest.mark.parametrize("file", sorted(OPS.glob("*.*")), ids=lambda file: file.name)
def test_what_is_asked_for_exists(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert set(re.findall(r"\broomscribe_\w+", text)) <= series()
    recorded = re.findall(r"record: (\S+)", (OPS / "rules.yml").read_text(encoding="utf-8"))
    asked = re.findall(r"\broomscribe:\w+:\w+|\broomscribe:admissible_speakers", text)
    assert set(asked) <= set(recorded)


def test_the_dashboard_is_one() -> None:
    board = json.loads((OPS / "grafana-dashboard.json").read_text(encoding="utf-8"))
    asked = [t["expr"] for panel in board["panels"] for t in panel["targets"]]
    assert set(FOUR) <= set(asked)


def test_every_alert_is_tested_and_explained() -> None:
    tested = (OPS / "rules.test.yml").read_text(encoding="utf-8")
    told = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    alerts = (OPS / "alerts.yml").read_text(encoding="utf-8")
    assert len(ALERTS) > 5
    for alert in ALERTS:
        assert f"alertname: {alert}}}" in tested
        assert f"### {alert}\n" in told
        assert f"docs/operations.md#{alert.lower()}:" in alerts


def test_the_metrics_document_is_what_the_code_says() -> None:
    command = [sys.executable, "-m", "server", "metrics"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    document = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    block = re.search(r"<!-- metrics:begin -->\n(.*?)<!-- metrics:end -->", document, re.DOTALL)
    assert block is not None
    assert block[1] == told.stdout, "run `python -m server metrics`"


def test_what_compose_starts_is_given_settings_that_there_are(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compose = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    server, others = compose.split("\n  coturn:\n")
    assert "mem_limit: 2g" in server
    block = re.search(r"    environment:\n((?:      .*\n)+)", server)
    assert block is not None
    environment = dict(re.findall(r"^ +([A-Z_]+): (.+)$", block[1], re.MULTILINE))
    known = {name for name, *_ in describe()}
    assert set(environment) <= known
    monkeypatch.chdir(tmp_path)
    for name, told in environment.items():
        asked = re.sub(r"\$\{(\w+):\?[^}]+\}", r"a-\1-of-more-than-32-characters", told)
        monkeypatch.setenv(name, asked.strip("'\""))
    settings = load_settings()
    assert settings.server.trusted_proxies
    (relay,) = settings.media.ice_servers
    assert "PUBLIC_ADDRESS" in relay.urls[0]
    # coturn has the same secret
    assert environment["MEDIA__TURN_SECRET"] in others
    for path in re.findall(r"- (\./[^:]+):", others):
        assert (ROOT / path).exists()


@needs_prometheus
@pytest.mark.slow
async def test_prometheus_answers_the_four_numbers_under_load(
    server: Running, tmp_path: Path
) -> None:
    port = free_port()
    settings = (OPS / "prometheus.yml").read_text(encoding="utf-8")
    settings = settings.replace("127.0.0.1:8080", f"127.0.0.1:{server.port}").replace("15s", "1s")
    (tmp_path / "prometheus.yml").write_text(settings)
    for name in ("rules.yml", "alerts.yml"):
        shutil.copy(OPS / name, tmp_path)
    with (tmp_path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            "prometheus",
            f"--config.file={tmp_path}/prometheus.yml",
            f"--storage.tsdb.path={tmp_path}/data",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=log,
            stderr=log,
        )
    try:
        async with (
            crowd(Load(server.url, speakers=6, rooms=2)) as people,
            aiohttp.ClientSession() as session,
        ):
            await people.gather()
            async with asyncio.timeout(60):
                found = {name: await _answer(session, port, name) for name in FOUR}
    finally:
        process.terminate()
        await process.wait()
    assert 0 < found["roomscribe:first_text_seconds:p95"] < 10
    assert 0 < found["roomscribe:final_seconds:p95"] < 10
    assert found["roomscribe:audio_dropped:ratio"] == 0
    assert found["roomscribe:admissible_speakers"] > 0


async def _answer(session: aiohttp.ClientSession, port: int, query: str) -> float:
    """Once there is one that is a number."""
    while True:
        try:
            url = f"http://127.0.0.1:{port}/api/v1/query"
            async with session.get(url, params={"query": query}) as answer:
                told: dict[str, Any] = await answer.json()
        except aiohttp.ClientError:
            told = {}
        for result in told.get("data", {}).get("result", ()):
            if result["value"][1] != "NaN":
                return float(result["value"][1])
        await asyncio.sleep(0.2)
