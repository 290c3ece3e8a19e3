# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
name: scrape_targets
short_description: Targets of Prometheus for the model servers of hosts
version_added: 0.1.0
description:
  - Reads C(tfserving_service_instances) and the other variables of the role tfserving_service of each host, and returns
    what the C(file_sd_configs) of Prometheus take.
  - A host without metrics has no target. A host with a gateway is asked there.
options:
  _input:
    description: The hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variables of the hosts.
    type: dict
    required: true
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
targets: "{{ groups.tfserving | modelops.tensorflow_serving.scrape_targets(hostvars) }}"
"""

RETURN = r"""
_value:
  description: The targets by scrape job, C(tensorflow-serving) and C(tensorflow-serving-gateway). A job without one
    is left out.
  type: dict
  sample:
    tensorflow-serving:
      - targets: ["web1:8501"]
        labels: {host: web1, server: "", __metrics_path__: /monitoring/prometheus/metrics}
"""

from typing import Any, Callable, Mapping

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean

SERVERS, GATEWAYS = "tensorflow-serving", "tensorflow-serving-gateway"


def scrape_targets(hosts: list[str], hostvars: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the targets that DOCUMENTATION describes.

    Raises AnsibleFilterError for a host whose gateway lets nobody see the metrics.
    """
    jobs: dict[str, list[dict[str, Any]]] = {}
    for host in hosts:
        variables = hostvars[host]
        if not boolean(variables.get("tfserving_service_monitoring_enabled", True)):
            continue
        has_gateway = boolean(variables.get("tfserving_gateway_enabled", False))
        if has_gateway and "metrics" not in variables.get("tfserving_gateway_open", []):
            raise AnsibleFilterError(
                f"Prometheus cannot reach the metrics of {host} behind its gateway. Add metrics to its "
                "tfserving_gateway_open, or remove it from tfserving_monitoring_hosts."
            )
        job = jobs.setdefault(GATEWAYS if has_gateway else SERVERS, [])
        job += (
            _target(host, variables, instance, has_gateway)
            for instance in variables.get("tfserving_service_instances", [{}])
        )
    return jobs


def _target(host: str, variables: Mapping[str, Any], instance: Mapping[str, Any], has_gateway: bool) -> dict[str, Any]:
    """Return the target of one server."""
    address = str(variables.get("tfserving_monitoring_address") or variables.get("ansible_host") or host)
    name = instance.get("name") or ""
    path = variables.get("tfserving_service_monitoring_path", "/monitoring/prometheus/metrics")
    if has_gateway:
        port = variables.get("tfserving_gateway_port", 8443)
        path = f"{path.rstrip('/')}/{name}" if name else path
    else:
        port = instance.get("rest_api_port") or variables.get("tfserving_service_rest_api_port", 8501)
    return {
        "targets": [f"[{address}]:{port}" if ":" in address else f"{address}:{port}"],
        "labels": {"host": host, "server": name, "__metrics_path__": path},
    }


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"scrape_targets": scrape_targets}
