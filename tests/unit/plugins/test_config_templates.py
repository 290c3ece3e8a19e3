"""The server's configuration files, as the role's templates write them, read by the server's own protobuf messages."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import jinja2
import pytest
from ansible.plugins.filter.core import comment, to_bool
from google.protobuf import text_format
from tensorflow_serving.config.model_server_config_pb2 import ModelServerConfig

from ansible_collections.modelops.tensorflow_serving.plugins.filter.textproto import FilterModule

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "lab"))

from model_server import text_protos  # noqa: E402 - MonitoringConfig, which tensorflow-serving-api does not ship

NASTY = 'a "b" \\ c\nd é'


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


def models_config(*catalog: dict[str, Any], base_path: str = "/models") -> Any:
    """Return the config entries that the server reads from models.config."""
    text = render("models.config.j2", tfserving_service_catalog=catalog, tfserving_service_models_base_path=base_path)
    return text_format.Parse(text, ModelServerConfig()).model_config_list.config


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        pytest.param(None, "latest { num_versions: 1 }", id="none"),
        pytest.param({}, "latest { num_versions: 1 }", id="empty"),
        pytest.param({"latest": {}}, "latest { num_versions: 1 }", id="latest"),
        pytest.param({"latest": {"num_versions": None}}, "latest { num_versions: 1 }", id="latest of null"),
        pytest.param({"latest": {"num_versions": 2}}, "latest { num_versions: 2 }", id="latest two"),
        pytest.param({"all": {}}, "all { }", id="all"),
        pytest.param({"specific": {"versions": [2, 1]}}, "specific { versions: 1 versions: 2 }", id="specific"),
        pytest.param({"specific": {"versions": ["10", "9"]}}, "specific { versions: 9 versions: 10 }", id="as text"),
        pytest.param({"specific": None, "latest": None, "all": {}}, "all { }", id="null beside it"),
    ],
)
def test_policy_is_written_as_the_server_reads_it(policy: dict[str, Any] | None, wanted: str) -> None:
    (entry,) = models_config({"name": "MLP", "source": "saved", "model_version_policy": policy})
    assert entry.model_version_policy == text_format.Parse(wanted, type(entry.model_version_policy)())


def test_entry_without_options_is_the_latest_version_below_the_base_path() -> None:
    (entry,) = models_config({"name": "MLP", "source": "saved"}, base_path="/srv/my models")
    assert (entry.name, entry.base_path, entry.model_platform) == ("MLP", "/srv/my models/MLP", "tensorflow")
    assert entry.model_version_policy.latest.num_versions == 1
    assert dict(entry.version_labels) == {}


@pytest.mark.parametrize("labels", [None, {}, {"stable": 1}, {"stable": 1, "canary": "2"}])
def test_labels_are_written_as_the_server_reads_them(labels: dict[str, Any] | None) -> None:
    (entry,) = models_config({"name": "MLP", "source": "saved", "version_labels": labels})
    assert dict(entry.version_labels) == {label: int(version) for label, version in (labels or {}).items()}


def test_order_of_labels_and_versions_does_not_change_the_file() -> None:
    def text(labels: dict[str, int], versions: list[int]) -> str:
        entry = {"name": "MLP", "version_labels": labels, "model_version_policy": {"specific": {"versions": versions}}}
        return render("models.config.j2", tfserving_service_catalog=[entry], tfserving_service_models_base_path="/m")

    assert text({"a": 1, "b": 2}, [1, 2]) == text({"b": 2, "a": 1}, [2, 1])


def test_every_model_has_its_entry_in_the_order_of_the_catalogue() -> None:
    assert [entry.name for entry in models_config({"name": "b"}, {"name": "a"})] == ["b", "a"]


def test_catalogue_without_models_is_an_empty_list() -> None:
    assert list(models_config()) == []


def test_any_path_survives_in_models_config() -> None:
    (entry,) = models_config({"name": "MLP"}, base_path=NASTY)
    assert entry.base_path == f"{NASTY}/MLP"


@pytest.mark.parametrize(("enabled", "wanted"), [(True, True), (False, False), ("yes", True), ("no", False)])
def test_monitoring_is_written_as_the_server_reads_it(enabled: Any, wanted: bool) -> None:
    text = render(
        "monitoring.config.j2",
        tfserving_service_monitoring_enabled=enabled,
        tfserving_service_monitoring_path=NASTY,
    )
    config = text_format.Parse(text, text_protos.new("MonitoringConfig")).prometheus_config
    assert (config.enable, config.path) == (wanted, NASTY)
