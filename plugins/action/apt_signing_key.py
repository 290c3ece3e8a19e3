# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Gets a signing key to a host; documented by the module of the same name."""

from __future__ import annotations

import base64
import hashlib
import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleFileNotFound
from ansible.plugins.action import ActionBase

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.http_client import (
    DownloadError,
    download,
    has_environment_proxy,
)
from ansible_collections.modelops.tensorflow_serving.plugins.plugin_utils.run_cache import remembered

NEVER = "never"  # after every date
MODULE = "modelops.tensorflow_serving.apt_signing_key"

ARGUMENT_SPEC = {
    "path": {"type": "path", "required": True},
    "fingerprint": {"type": "str", "required": True},
    "url": {"type": "str"},
    "fetch": {"type": "str", "choices": ["controller", "host"], "default": "controller"},
    "src": {"type": "path"},
    "content": {"type": "str"},
    "proxy": {"type": "str"},
    "no_proxy": {"type": "list", "elements": "str", "default": []},
    "renew_before_days": {"type": "int", "default": 30},
    "expired_key": {"type": "str", "choices": ["fail", "keep"], "default": "fail"},
    "timeout_seconds": {"type": "int", "default": 30},
}


class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec=ARGUMENT_SPEC,
            mutually_exclusive=[("url", "src", "content")],
        )
        if not (args["url"] or args["src"] or args["content"] is not None):
            raise AnsibleActionFail("one of url, src and content is required, and not empty")
        common = {name: args[name] for name in ("path", "fingerprint", "renew_before_days")}
        if args["src"] or args["content"] is not None:
            result = self._on_host(task_vars, **common, content=self._given(args))
        else:
            before = result = self._on_host(task_vars, **common)
            if not before.get("failed") and before["due"]:
                result = self._renewed(task_vars, common, args, before)
                result["changed"] = result.get("changed", False) or before["changed"]  # it may have set the mode
        if not result.get("failed"):
            self._judge(args, result)
        result.pop("due", None)
        return result

    def _on_host(self, task_vars: dict[str, Any] | None, **module_args: Any) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=module_args, task_vars=task_vars)
        return result

    def _given(self, args: dict[str, Any]) -> str:
        """Return the key that needs no download, as the module takes it."""
        if not args["src"]:
            return str(args["content"])
        try:
            return base64.b64encode(Path(self._find_needle("files", args["src"])).read_bytes()).decode()
        except AnsibleFileNotFound as error:
            raise AnsibleActionFail(f"src: there is no file {args['src']} on the controller") from error
        except OSError as error:
            raise AnsibleActionFail(f"src: {error}") from error

    def _renewed(
        self, task_vars: dict[str, Any] | None, common: dict[str, Any], args: dict[str, Any], before: dict[str, Any]
    ) -> dict[str, Any]:
        """Return the module's result with the published key; where it cannot be had, a copy on the host goes on."""
        way = {name: args[name] for name in ("url", "proxy", "no_proxy", "timeout_seconds")}
        if args["fetch"] == "host":
            result = self._on_host(task_vars, **common, **way)
        else:
            try:
                key = download_once(**way)
            except DownloadError as error:
                result = {**before, "failed": True, "reason": "unreachable", "msg": f"{error}, asked by the controller"}
            else:
                result = self._on_host(task_vars, **common, url=args["url"], content=base64.b64encode(key).decode())
        if result.get("reason") == "unreachable" and before["key"]:
            warning = f"The key on the host is due for renewal, and {result['msg']}."
            return {**before, "warnings": [*before.get("warnings", []), warning]}
        return result

    def _judge(self, args: dict[str, Any], result: dict[str, Any]) -> None:
        """Fail, or warn, for a key that has expired or soon will, and of which no better one was published.

        A copy that is still good goes on when the key is published as revoked, as nobody has verified that.
        """
        key, published = result["key"], result["published"]
        where = f"at {args['url']}" if args["url"] else "that was given"
        said = []
        if key and published and (published["expires"] or NEVER) < (key["expires"] or NEVER):
            said.append(
                f"The key {where} is older than the host's copy: it expires on {published['expires']}, the copy on "
                f"{key['expires'] or 'no day'}. The copy stays; check whether an old key is published there."
            )
        if result["usable"]:
            if published and published["revoked"]:
                said.append(f"The signing key {key['fingerprint']} is published as revoked. Ask its owner why.")
            if result["due"]:
                found = "no renewed key is published" if published else "a renewed key could not be downloaded"
                said.append(
                    f"The signing key {key['fingerprint']} expires on {key['expires']} (days left: {key['days_left']})"
                    f", and {found}."
                )
        else:
            over = self._over(key, published, given=not args["url"])
            if args["expired_key"] != "keep":
                result.update(failed=True, reason="expired", msg=over)
            else:
                said.append(f"{over}. Continuing with what is installed.")
        result["warnings"] = [*result.get("warnings", []), *said]
        if said:
            data = {"warning": " ".join(said)}
            result["ansible_stats"] = {"data": data, "per_host": True, "aggregate": False}

    @staticmethod
    def _over(copy: dict[str, Any] | None, published: dict[str, Any] | None, given: bool) -> str:
        """Return why neither the host's copy nor what is published can be used."""
        key = max((one for one in (published, copy) if one), key=lambda one: (not one["revoked"], one["expires"] or ""))
        end = "is revoked" if key["revoked"] else f"expired on {key['expires']}"
        if not key["revoked"] and datetime.fromisoformat(key["expires"].replace("Z", "+00:00")) > datetime.now(
            timezone.utc
        ):
            end = f"expires on {key['expires']}, which is past by the host's clock but not by the controller's"
        how = "as given" if given else "as published now"
        return f"The signing key {key['fingerprint']} {end}" + (
            f", {how}" if published else ", and a renewed key could not be downloaded"
        )


def download_once(url: str, proxy: str | None, no_proxy: list[str], timeout_seconds: int) -> bytes:
    """Return what url answers, asking once in a run of Ansible, for all hosts and batches.

    A refusal is remembered as well, lest a fleet waits for it host by host. Raises DownloadError.
    """
    if has_environment_proxy(url):
        proxy = None
    way = json.dumps([proxy, no_proxy if proxy else []])
    with remembered("signing-key", url) as key:
        refusal = key.with_suffix(f".{hashlib.sha256(way.encode()).hexdigest()[:16]}")
        if key.exists():
            return key.read_bytes()
        if refusal.exists():
            raise DownloadError(refusal.read_text(encoding="utf-8"))
        try:
            data = download(url, proxy, no_proxy, timeout_seconds)
        except DownloadError as error:
            refusal.write_text(str(error), encoding="utf-8")
            raise
        key.write_bytes(data)
        return data
