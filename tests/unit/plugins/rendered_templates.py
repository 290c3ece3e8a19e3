"""The roles' templates, rendered as Ansible's template lookup does."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import jinja2
from ansible.plugins.filter.core import comment, to_bool

from ansible_collections.modelops.tensorflow_serving.plugins.filter import nginx_word, server_config

ROLES = Path(__file__).resolve().parents[3] / "roles"


@lru_cache(maxsize=None)
def _environment(role: str) -> jinja2.Environment:
    """Return what compiles the templates of a role, each of them once."""
    environment = jinja2.Environment(  # noqa: S701 - no HTML
        loader=jinja2.FileSystemLoader(ROLES / role / "templates"),
        trim_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"bool": to_bool, "comment": comment}
    for plugin in (nginx_word, server_config):
        for short, function in plugin.FilterModule().filters().items():
            environment.filters[f"modelops.tensorflow_serving.{short}"] = function
    return environment


def render(role: str, name: str, **variables: Any) -> str:
    """Render a template of a role. Raises an error for a variable that is not given."""
    template = _environment(role).get_template(name)
    return template.render(**{"ansible_managed": "Managed by Ansible", **variables})
