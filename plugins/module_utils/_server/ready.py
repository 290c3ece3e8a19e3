# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Waits until a server serves what its models.config says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.config_files import (
    parse_models_config,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.live_config import (
    expected_versions,
    unservable,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.rest import ServingClient
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.serving_wait import (
    NotServed,
    SystemdUnit,
    as_results,
    last_words,
    wait_until_served,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._server.text_format import TextFormatError


class NotReady(Exception):
    """A server that does not serve. The text has its log; refused are versions as a module returns them."""

    def __init__(self, text: str, refused: list[dict[str, Any]] | None = None) -> None:
        super().__init__(text)
        self.refused = refused or []


def wait_until_ready(
    client: ServingClient,
    unit: SystemdUnit,
    models_config: Path,
    samples: dict[str, list[dict[str, Any]]],
    timeout_seconds: float,
) -> dict[str, list[int]]:
    """Return the versions of each model that are served, once they are all, and answer the samples. Raises NotReady."""
    try:
        models = parse_models_config(models_config.read_bytes())
        problems = unservable(models)
        if problems:
            raise NotReady("; ".join([*problems, "publish a version first"]))
        expected = expected_versions(models)
        wait_until_served(client, unit, expected, samples, timeout_seconds)
    except (OSError, TextFormatError) as error:
        raise NotReady(f"{models_config} cannot be read: {error}") from error
    except NotServed as error:
        raise NotReady(
            f"{error}\nThe last lines of journalctl --unit={unit.name}, without chatter:\n{last_words(unit.log(0))}",
            as_results(error.refused, {name: Path(model["base_path"]) for name, model in models.items()}),
        ) from error
    return expected
