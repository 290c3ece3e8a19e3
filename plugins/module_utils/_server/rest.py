# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A client for TensorFlow Serving's REST interface with nothing but Python's own library, as it runs on the hosts."""

from __future__ import annotations

import http.client
import json
import time
import urllib.error
import urllib.request
from typing import Any, Callable, TypeVar
from urllib.parse import quote

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import printable
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.listening_sockets import check_port

T = TypeVar("T")
REST_SECONDS = 1.0  # by which REST is open after gRPC, at the latest

REST_ARGUMENTS: dict[str, dict[str, Any]] = {
    "host": {"type": "str", "default": "127.0.0.1"},
    "rest_api_port": {"type": "int", "required": True},
    "request_timeout_seconds": {"type": "int", "default": 10},
}


class ServingError(Exception):
    """An answer other than 200. status is the HTTP status, the text is the server's own, on one line."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """TensorFlow Serving sends nobody elsewhere, and what answers elsewhere is not that server."""

    def redirect_request(self, *_: Any) -> None:
        return None


class ServingClient:
    """Talks to one server. Every method raises ServingError, or OSError where the server cannot be reached.

    With cgroup, which returns the control group of the server's unit, an answer counts only if all that listens on its
    ports is in there, before and after; grpc_port is 0 where it has none. Else check_port's errors are raised.
    """

    def __init__(
        self,
        host: str,
        port: int,
        timeout_seconds: float,
        cgroup: Callable[[], str] | None = None,
        grpc_port: int = 0,
    ) -> None:
        self.url = f"http://{host}:{port}/v1/models/"
        self._ports = {"REST": port, **({"gRPC": grpc_port} if grpc_port else {})}
        self._timeout_seconds = timeout_seconds
        self._cgroup = cgroup
        # Straight to the server: a proxy in the environment is for the world outside.
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())

    @classmethod
    def of(cls, params: dict[str, Any], cgroup: Callable[[], str] | None = None, grpc_port: int = 0) -> ServingClient:
        """Return the client that a module's REST_ARGUMENTS ask for; the rest is as for the class."""
        return cls(params["host"], params["rest_api_port"], params["request_timeout_seconds"], cgroup, grpc_port)

    def status(self, model: str) -> dict[int, dict[str, str]]:
        """Return {version: {state, error_code, error_message}} of a model; unloaded versions stay, as END.

        Each is on one line: a message can hold whatever a model brings, a newline or the codes of a terminal.
        """
        return self._request(
            lambda answer: {
                int(one["version"]): {
                    name: printable(str(text)) for name, text in {**one["status"], "state": one["state"]}.items()
                }
                for one in answer["model_version_status"]
            },
            quote(model),
        )

    def label_version(self, model: str, label: str) -> int | None:
        """Return the version that a label leads to, None for a label that is unknown or whose version is not loaded.

        The metadata say it; the status of a label is that of all versions, whether the label exists or not.
        """
        try:
            return self._request(
                lambda answer: int(answer["model_spec"]["version"]), f"{quote(model)}/labels/{quote(label)}/metadata"
            )
        except ServingError as error:
            if error.status in (400, 404, 503):
                return None
            raise

    def predict(self, model: str, version: int | None, signature_name: str, instances: list[Any]) -> list[Any]:
        """Return one prediction for each instance, in row form."""
        path = quote(model) + (f"/versions/{version}" if version is not None else "") + ":predict"
        body = {"signature_name": signature_name, "instances": instances}
        return self._request(lambda answer: list(answer["predictions"]), path, body)

    def predict_seconds(self, model: str, version: int, signature_name: str, instances: list[Any]) -> float:
        """Return how long a prediction takes. What listens is looked at outside of that time."""
        body = {"signature_name": signature_name, "instances": instances}
        path = f"{quote(model)}/versions/{version}:predict"
        self.check_identity()
        start = time.perf_counter()
        self._ask(lambda _: None, path, body)
        seconds = time.perf_counter() - start
        self.check_identity()
        return seconds

    def text(self, path: str) -> str:
        """Return a page of the server that is no JSON, empty where there is none."""
        self.check_identity()
        try:
            with self._opener.open(f"{self.url.partition('/v1/')[0]}{path}", timeout=self._timeout_seconds) as answer:
                return answer.read().decode(errors="replace")
        except urllib.error.HTTPError:
            return ""
        except http.client.HTTPException as error:
            raise ConnectionError(f"what answers at {self.url} is not TensorFlow Serving: {error!r}") from error
        finally:
            self.check_identity()

    def check_identity(self) -> None:
        """Raise ConnectionError unless the ports are the server's own."""
        if self._cgroup:
            cgroup = self._cgroup()
            for port in self._ports.values():
                check_port(port, cgroup)

    def lacks_rest(self) -> bool:
        """Say whether the server has opened gRPC and not REST, which comes right after: its port was taken then.

        It goes on without REST until it is restarted (model_servers/server.cc).
        """
        cgroup = self._cgroup() if self._cgroup else ""
        for _ in range(2):
            try:
                check_port(self._ports.get("gRPC", 0), cgroup)
            except OSError:
                return False
            try:
                check_port(self._ports["REST"], cgroup)
                return False
            except ConnectionRefusedError:
                time.sleep(REST_SECONDS)
            except OSError:
                return False
        return True

    def port_states(self) -> list[str]:
        """Return what can be seen of the ports: whether each is the server's own, and whether REST says anything."""
        states = []
        for name, port in self._ports.items():
            try:
                check_port(port, self._cgroup() if self._cgroup else "")
                states.append(f"{name} has port {port} open")
            except OSError as error:
                states.append(str(error))
        try:
            self._ask(lambda _: None, "")
        except (ServingError, OSError) as error:
            is_silent = not isinstance(error, ServingError)
            states.append(f"REST is silent ({reason(error)})" if is_silent else "REST answers")
        return states

    def _request(self, read: Callable[[Any], T], path: str, body: dict[str, Any] | None = None) -> T:
        """Return what read makes of the JSON that is answered."""
        self.check_identity()
        try:
            return self._ask(read, path, body)
        finally:
            self.check_identity()

    def _ask(self, read: Callable[[Any], T], path: str, body: dict[str, Any] | None = None) -> T:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})  # noqa: S310
        try:
            with self._opener.open(request, timeout=self._timeout_seconds) as answer:
                return read(json.load(answer))
        except urllib.error.HTTPError as error:
            raise ServingError(error.code, _error_text(error)) from error
        except (http.client.HTTPException, ValueError, KeyError, TypeError) as error:
            raise ConnectionError(f"what answers at {self.url} is not TensorFlow Serving: {error!r}") from error


def _error_text(error: urllib.error.HTTPError) -> str:
    """Return the server's words from {"error": "..."}, or what HTTP says where there are none."""
    try:
        return printable(str(json.load(error)["error"]))
    except (ValueError, KeyError, TypeError, OSError, http.client.HTTPException):
        return printable(f"HTTP {error.code} {error.reason}")


def reason(error: Exception) -> str:
    """Return an error of the connection in words, without urllib's wrapping."""
    return str(getattr(error, "reason", error))
