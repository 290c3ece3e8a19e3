"""monitoring.config, as the role's template writes it, read by the server's own protobuf message."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from google.protobuf import text_format
from rendered_templates import render

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "lab"))

from model_server import text_protos  # noqa: E402 - MonitoringConfig, which tensorflow-serving-api does not ship

NASTY = '/a "b" \\ c\nd é'


@pytest.mark.parametrize(("enabled", "wanted"), [(True, True), (False, False), ("yes", True), ("no", False)])
def test_monitoring_is_written_as_the_server_reads_it(enabled: Any, wanted: bool) -> None:
    text = render(
        "tfserving_service",
        "monitoring.config.j2",
        ansible_managed="Managed by Ansible,\nin two lines",
        tfserving_service_monitoring_enabled=enabled,
        tfserving_service_monitoring_path=NASTY,
    )
    config = text_format.Parse(text, text_protos.new("MonitoringConfig")).prometheus_config
    assert (config.enable, config.path) == (wanted, NASTY)
