#!/usr/bin/python
# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

DOCUMENTATION = r"""
module: model_server_package
short_description: Install, upgrade, downgrade or replace the TensorFlow Serving package, with a rollback
version_added: 0.1.0
description:
  - Downloads the C(.deb) of the new package, and saves that of the previous one for a rollback, before anything is
    changed. Then it removes the other variant, installs the package and asks the new program for its C(--version), as
    the user that will run it. When that fails, the previous package is restored, and the error says what the failure
    means.
  - It does not restart the server, which runs on with the old program. Once the restarted server serves,
    M(modelops.tensorflow_serving.model_servers) forgets the previous package; when it does not, O(state=restored)
    restores it.
  - The next run repairs a run that was killed at any point.
  - Packages come from apt's signed lists, whatever C(apt.conf.d) allows, or are one given C(.deb) whose SHA256 is
    pinned. No other package is removed for them; a change that would need this is refused.
  - Where the previous C(.deb) cannot be downloaded, it is built from the installed files. Where these have been
    modified since, the change is refused.
extends_documentation_fragment:
  - modelops.tensorflow_serving.model_server_package
options:
  state:
    description:
      - V(present) installs the package, unless it is there.
      - V(restored) rolls back to the package before the change that is not over, where there is one.
    type: str
    choices: [present, restored]
    default: present
  hold:
    description: Whether apt holds the package. Null leaves that as it is; a change of package takes its hold along.
    type: bool
  user:
    description: The user that asks the new program for its version. Not root.
    type: str
  group:
    description: Its group.
    type: str
  deb_url:
    description: Where each host downloads the C(.deb) with O(deb_sha256). Without it, the file has to lie in
      O(directory) as C(sent.deb), of which the module takes a copy of its own.
    type: str
  deb_url_credentials:
    description: User and password for O(deb_url), as V(user:password), percent-encoded as in a URL.
    type: str
  proxy:
    description: URL of a proxy for O(deb_url). Without it, the environment's proxy variables are used.
    type: str
  no_proxy:
    description: Hosts and domains that are reached without O(proxy).
    type: list
    elements: str
    default: []
  lists_renewable:
    description: Whether the apt cache may be updated when it does not have the version.
    type: bool
    default: true
attributes:
  check_mode:
    description: Says what would be installed, also where the apt cache does not have it yet.
    support: full
  diff_mode:
    description: Shows name and version of the package before and after.
    support: full
seealso:
  - module: modelops.tensorflow_serving.serving_host_info
author:
  - The modelops.tensorflow_serving authors
"""

EXAMPLES = r"""
- name: Install the newest 2.19
  modelops.tensorflow_serving.model_server_package:
    version: 2.19.*
    user: tfserving
    group: tfserving
    directory: /var/lib/tensorflow-serving/packages

- name: Restore the previous package
  modelops.tensorflow_serving.model_server_package:
    state: restored
    directory: /var/lib/tensorflow-serving/packages
"""

RETURN = r"""
package:
  description: What is installed now.
  returned: success, except in check mode where the apt cache does not have it yet
  type: dict
  sample: {name: tensorflow-model-server, version: 2.19.1, sha256: ""}
answer:
  description: What the new program answered to C(--version).
  returned: when a package was installed
  type: str
  sample: |-
    TensorFlow ModelServer: 2.19.1-rc0
    TensorFlow Library: 2.19.1
pending:
  description: The change that is not over, with the previous package. None where there is none.
  returned: success
  type: dict
  sample:
    new: {name: tensorflow-model-server, version: 2.20.0, sha256: ""}
    previous: {name: tensorflow-model-server, version: 2.19.1, sha256: ""}
    is_installed: true
    is_failed: false
    is_held: false
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.package_change import (
    PACKAGE_ARGUMENTS,
    Changer,
    Store,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._package.variants import (
    Host,
    Package,
    PackageError,
    check_given,
    describe_unknown,
    is_change_needed,
    is_undone_by,
    wanted_package,
)


def difference(host: Host, after: str) -> dict[str, str]:
    """Return what ansible-playbook --diff shows."""
    before = "".join(f"{one}\n" for one in host.installed)
    return {"before_header": "package", "after_header": "package", "before": before, "after": f"{after}\n"}


def present(module: AnsibleModule, changer: Changer) -> dict[str, Any]:
    """Install what is wanted. Returns the module's results. Raises PackageError."""
    host = changer.observe()
    version, sha256 = module.params["version"], module.params["deb_sha256"] or ""
    wanted = wanted_package(host, module.params["variant"], version, sha256)
    if wanted and not is_change_needed(host, wanted):
        return {"changed": False, "package": wanted.as_dict()}
    if module.check_mode:
        return would_install(module, changer, host, wanted)
    if host.change and wanted and is_undone_by(host, wanted):
        changer.put_back(host.change)
        return {"changed": True, "package": wanted.as_dict(), "diff": difference(host, str(wanted))}
    changer.store.prepare()
    if sha256:
        wanted = bring_given(module, changer, host, sha256)
    elif wanted is None:
        wanted = look_again(module, changer)
    answer = changer.install(wanted)
    return {"changed": True, "package": wanted.as_dict(), "answer": answer, "diff": difference(host, str(wanted))}


def would_install(module: AnsibleModule, changer: Changer, host: Host, wanted: Package | None) -> dict[str, Any]:
    """Return the module's results in check mode. Raises PackageError where it is sure that the change would fail."""
    if wanted is None and module.params["deb_sha256"]:
        return {"changed": True, "diff": difference(host, f"the package with SHA256 {module.params['deb_sha256']}")}
    if wanted is None and module.params["lists_renewable"]:
        version = module.params["version"] or "in the newest version"
        return {"changed": True, "diff": difference(host, f"TensorFlow Serving {version}")}
    wanted = wanted or look_again(module, changer)
    return {"changed": True, "package": wanted.as_dict(), "diff": difference(host, str(wanted))}


def bring_given(module: AnsibleModule, changer: Changer, host: Host, sha256: str) -> Package:
    """Return the given package, once its .deb is on the host and found to be what it should be."""
    if module.params["deb_url"]:
        names = ("deb_url", "deb_url_credentials", "proxy", "no_proxy")
        changer.download(*(module.params[name] for name in names))
    given = changer.read_given(sha256)
    check_given(host, given, module.params["variant"], module.params["version"])
    return given


def look_again(module: AnsibleModule, changer: Changer) -> Package:
    """Return what apt knows after an update of its cache, or without one where that is not possible."""
    variant, version, is_renewable = (module.params[name] for name in ("variant", "version", "lists_renewable"))
    complaints = changer.update_apt_cache() if is_renewable else ""
    host = changer.observe()
    wanted = wanted_package(host, variant, version)
    if wanted is None:
        text = describe_unknown(host, variant, version, is_key_expired=not is_renewable)
        raise PackageError(f"{text} apt-get update said: {complaints}" if complaints else text)
    return wanted


def hold(module: AnsibleModule, changer: Changer, result: dict[str, Any]) -> dict[str, Any]:
    """Hold the package, or release it, where that is asked for; returns the module's results with that."""
    wanted, is_held = module.params["hold"], bool(changer.observe().held)
    if wanted is None or wanted == is_held:
        return result
    words = {"before": f"held: {is_held}\n".lower(), "after": f"held: {wanted}\n".lower()}
    diff = [*([result["diff"]] if "diff" in result else []), {"before_header": "hold", "after_header": "hold", **words}]
    if not module.check_mode:
        command = ["apt-mark", "hold" if wanted else "unhold", result["package"]["name"]]
        module.run_command(command, check_rc=True)
    return {**result, "changed": True, "diff": diff}


def restored(module: AnsibleModule, changer: Changer) -> dict[str, Any]:
    """Restore the previous package, if there is one. Returns the module's results. Raises PackageError."""
    change = changer.store.change()
    if change is None or change.previous is None:
        return {"changed": False}
    host = changer.observe()
    if not module.check_mode:
        changer.put_back(change)
    return {"changed": True, "package": change.previous.as_dict(), "diff": difference(host, str(change.previous))}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            **PACKAGE_ARGUMENTS,
            "state": {"type": "str", "choices": ["present", "restored"], "default": "present"},
            "hold": {"type": "bool"},
            "user": {"type": "str"},
            "group": {"type": "str"},
            "deb_url": {"type": "str"},
            "deb_url_credentials": {"type": "str", "no_log": True},
            "proxy": {"type": "str", "no_log": True},
            "no_proxy": {"type": "list", "elements": "str", "default": []},
            "lists_renewable": {"type": "bool", "default": True},
        },
        required_if=[("state", "present", ("user", "group"))],
        supports_check_mode=True,
    )
    store = Store(module.params["directory"])
    changer = Changer(module, store, module.params["user"], module.params["group"])
    act = {"present": present, "restored": restored}[module.params["state"]]
    try:
        result = act(module, changer)
        if module.params["state"] == "present":
            result = hold(module, changer, result)
    except (OSError, PackageError) as error:
        module.fail_json(msg=str(error))
    change = store.change()
    module.exit_json(pending=change.as_dict() if change else None, **result)


if __name__ == "__main__":
    main()
