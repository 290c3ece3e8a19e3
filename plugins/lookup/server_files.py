# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: server_files
short_description: Render what the model servers of a host read at their start
version_added: 0.2.0
description:
  - Renders the templates of the role tfserving_service for each instance, which they see as C(item).
options:
  _terms:
    description: The instances, as M(modelops.tensorflow_serving.serving_host_info) returns them.
    type: list
    elements: dict
    required: true
  group:
    description: The group of the servers, which may read the key of the certificate.
    type: str
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Say which files there are
  ansible.builtin.debug:
    msg: "{{ query('modelops.tensorflow_serving.server_files', *__tfserving_host.servers.instances, group='tfserving')
      | map(attribute='path') }}"
"""

RETURN = r"""
_list:
  description: The files as M(modelops.tensorflow_serving.model_servers) takes them.
  type: list
  elements: dict
"""

from typing import Any

from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.systemd import UNIT_PATH

UNIT_TEMPLATE = "tensorflow-model-server.service.j2"
# What holds a key: only the servers may read it, and no log shows it.
PRIVATE = "ssl.config"


class LookupModule(LookupBase):
    def run(self, terms: list[dict[str, Any]], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[Any]:
        self.set_options(var_options=variables, direct=kwargs)
        template = lookup_loader.get("ansible.builtin.template", loader=self._loader, templar=self._templar)

        def render(name: str, instance: dict[str, Any]) -> str:
            return str(template.run([name], variables, template_vars={"item": instance})[0])

        files = []
        for one in terms:
            for name in one["files"]:
                file = {"unit": one["unit"], "path": f"{one['config_path']}/{name}"}
                text = render(f"{name}.j2", one)
                if name == PRIVATE:
                    files.append({**file, "secret_content": text, "group": self.get_option("group"), "mode": "0640"})
                else:
                    files.append({**file, "content": text})
            unit = f"{UNIT_PATH}/{one['unit']}.service"
            files.append({"unit": one["unit"], "path": unit, "content": render(UNIT_TEMPLATE, one)})
        return files
