#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_server_package_info
short_description: Say which TensorFlow Serving package a host has, should have and could have
version_added: 0.1.0
description:
  - Asks the CPU, dpkg, apt's lists and the store of M(modelops.tensorflow_serving.model_server_package) in one go. It
    fetches nothing.
extends_documentation_fragment:
  - modelops.tensorflow_serving.read_only
  - modelops.tensorflow_serving.model_server_package
options:
  cpu_only:
    description: Whether to read the CPU's flags and nothing else, as where apt's sources are yet to be put right.
    type: bool
    default: false
seealso:
  - module: modelops.tensorflow_serving.model_server_package
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Find out whether the server's package has to change
  modelops.tensorflow_serving.model_server_package_info:
    version: 2.19.*
    directory: /var/lib/tensorflow-serving/packages
  register: package
"""

RETURN = r"""
missing_cpu_flags:
  description: What the optimized build needs and the CPU lacks, as C(/proc/cpuinfo) calls it.
  returned: success
  type: list
  elements: str
  sample: [avx2, fma]
installed:
  description: The packages that are wholly installed. RV(installed[].sha256) is empty for one that apt knows.
  returned: success, without O(cpu_only)
  type: list
  elements: dict
  sample: [{name: tensorflow-model-server, version: 2.19.1, sha256: ""}]
wanted:
  description: The package that should be installed. None where apt's lists, or the given C(.deb), are needed to tell.
  returned: success, without O(cpu_only)
  type: dict
  sample: {name: tensorflow-model-server, version: 2.19.1, sha256: ""}
change_needed:
  description: Whether the host has anything but that package, whole.
  returned: success, without O(cpu_only)
  type: bool
known:
  description: The versions that apt's lists have, by package, newest first.
  returned: success, without O(cpu_only)
  type: dict
  sample: {tensorflow-model-server: [2.19.1, 2.18.0], tensorflow-model-server-universal: [2.19.1]}
held:
  description: The packages that are held.
  returned: success, without O(cpu_only)
  type: list
  elements: str
pending:
  description: The change that is not over, from this run or an earlier one that was killed, with its way back. None
    where there is none.
  returned: success, without O(cpu_only)
  type: dict
  sample:
    new: {name: tensorflow-model-server, version: 2.20.0, sha256: ""}
    previous: {name: tensorflow-model-server, version: 2.19.1, sha256: ""}
    is_installed: true
    is_failed: false
    is_held: false
rsync:
  description: Whether rsync, by which models arrive, is installed, and whether apt's lists have it.
  returned: success, without O(cpu_only)
  type: dict
  sample: {installed: true, known: true}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.package_change import (
    PACKAGE_ARGUMENTS,
    Store,
    observe,
    read_missing_cpu_flags,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.variants import (
    PackageError,
    is_change_needed,
    wanted_package,
)


def rsync_state(module: AnsibleModule) -> dict[str, bool]:
    """Return whether rsync is there and, where it is not, whether apt could install it."""
    if module.get_bin_path("rsync"):
        return {"installed": True, "known": True}
    _, known, _ = module.run_command(["apt-cache", "madison", "rsync"])
    return {"installed": False, "known": bool(known.strip())}


def main() -> None:
    module = AnsibleModule(
        argument_spec={**PACKAGE_ARGUMENTS, "cpu_only": {"type": "bool", "default": False}}, supports_check_mode=True
    )
    if module.params["cpu_only"]:
        module.exit_json(changed=False, missing_cpu_flags=read_missing_cpu_flags())
    host = observe(module, Store(module.params["directory"]))
    try:
        wanted = wanted_package(
            host, module.params["variant"], module.params["version"], module.params["deb_sha256"] or ""
        )
    except PackageError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        missing_cpu_flags=list(host.missing_cpu_flags),
        installed=[one.as_dict() for one in host.installed],
        wanted=wanted.as_dict() if wanted else None,
        change_needed=is_change_needed(host, wanted),
        known=host.known,
        held=list(host.held),
        pending=host.change.as_dict() if host.change else None,
        rsync=rsync_state(module),
    )


if __name__ == "__main__":
    main()
