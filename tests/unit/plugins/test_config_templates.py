"""monitoring.config, as the role's template writes it, read by the server's own protobuf message."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
from ansible.plugins.filter.core import comment, to_bool
from google.protobuf import text_format

from ansible_collections.modelops.tensorflow_serving.plugins.filter.server_config import FilterModule

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "lab"))

from model_server import text_protos  # noqa: E402 - MonitoringConfig, which tensorflow-serving-api does not ship

NASTY = '/a "b" \\ c\nd é'


def render(name: str, **variables: Any) -> str:
    """Render a template of the role as the template module does."""
    loader = jinja2.FileSystemLoader(ROOT / "roles" / "tfserving_service" / "templates")
    environment = jinja2.Environment(  # noqa: S701 - no HTML
        loader=loader, trim_blocks=True, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
    )
    environment.filters |= {"bool": to_bool, "comment": comment}
    for short, function in FilterModule().filters().items():
        environment.filters[f"modelops.tensorflow_serving.{short}"] = function
    return environment.get_template(name).render(ansible_managed="Managed by Ansible,\nin two lines", **variables)


@pytest.mark.parametrize(("enabled", "wanted"), [(True, True), (False, False), ("yes", True), ("no", False)])
def test_monitoring_is_written_as_the_server_reads_it(enabled: Any, wanted: bool) -> None:
    text = render(
        "monitoring.config.j2",
        tfserving_service_monitoring_enabled=enabled,
        tfserving_service_monitoring_path=NASTY,
    )
    config = text_format.Parse(text, text_protos.new("MonitoringConfig")).prometheus_config
    assert (config.enable, config.path) == (wanted, NASTY)
