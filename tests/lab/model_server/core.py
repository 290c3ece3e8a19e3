"""The configuration of the server: validates it, applies it, resolves labels and finds the servable for a request.

Source: tensorflow/serving @ 9d981c5c, model_servers/server_core.cc and core/load_servables_fast.cc.
"""

from __future__ import annotations

import contextlib
import os
import threading
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tensorflow_serving.config import model_server_config_pb2

from . import log, status
from .aspired_manager import AspiredVersionsManager
from .basic_manager import BasicManager, Loader
from .servables import EventBus, Monitor, ServableId, ServableRequest, ServableState, State
from .source import FileSystemSource, MonitoredModel

_PLACE = "tensorflow_serving/model_servers/server_core.cc"
_INITIAL_LOAD_THREADS = 4 * len(os.sched_getaffinity(0))
_MODEL_LIST = "model_config_list"


@dataclass(frozen=True)
class CoreOptions:
    """What the flags say about loading and reloading."""

    num_load_threads: int
    num_unload_threads: int
    max_num_load_retries: int
    load_retry_interval_micros: int
    file_system_poll_wait_seconds: int
    allow_version_labels_for_unavailable_models: bool
    platforms: frozenset[str] = frozenset({"tensorflow"})


def _platform(model: Any) -> str:
    """Return the platform of a ModelConfig; raises INVALID_ARGUMENT when it has none, or two."""
    if model.model_type != model_server_config_pb2.MODEL_TYPE_UNSPECIFIED:
        log.warning(
            f"{_PLACE}:80",
            "Deprecated ModelServerConfig::model_type field used. Prefer ModelServerConfig::model_platform.",
        )
        if model.model_platform:
            raise status.invalid_argument(
                "Illegal setting both ModelServerConfig::model_type (deprecated) and ModelServerConfig::model_platform"
                f", model name is {model.name}"
            )
        if model.model_type != model_server_config_pb2.TENSORFLOW:
            raise status.invalid_argument(f"ModelServerConfig::model_type choice {model.model_type} not supported.")
        return "tensorflow"
    if not model.model_platform:
        raise status.invalid_argument(
            "Illegal setting neither ModelServerConfig::model_type (deprecated) nor ModelServerConfig::model_platform, "
            f"model name is {model.name}"
        )
    return model.model_platform


def _validate_list(models: Any) -> None:
    """Raise INVALID_ARGUMENT for a name listed twice or a base path that is relative."""
    names = set()
    for model in models:
        if model.name in names:
            raise status.invalid_argument(f"Illegal to list model {model.name} multiple times in config list")
        names.add(model.name)
    for model in models:
        address = urlsplit(model.base_path)
        if not address.scheme and not address.netloc and not model.base_path.startswith("/"):
            raise status.invalid_argument(
                f"Expected model {model.name} to have an absolute path or URI; got base_path()={model.base_path}"
            )


def _validate_platforms_kept(former: Any, models: Any) -> None:
    """Raise INVALID_ARGUMENT when a model that is in both lists changes its platform."""
    platforms = {model.name: _platform(model) for model in former}
    for model in models:
        if model.name in platforms and _platform(model) != platforms[model.name]:
            raise status.invalid_argument(
                f"Illegal to change a model's platform. For model {model.name} platform was {platforms[model.name]} "
                f"and new platform requested is {_platform(model)}"
            )


def _raise_unless_available(reached: list[ServableState], what: str) -> None:
    """Raise UNKNOWN, with the error of each, when a model's awaited version has come to its end instead."""
    ended = sorted((state for state in reached if state.state is not State.AVAILABLE), key=lambda state: state.id.name)
    if ended:
        listed = "".join(f"{{{state.id}{f' due to error: {state.error}' if state.error else ''}}}, " for state in ended)
        raise status.StatusError(status.Code.UNKNOWN, f"{len(ended)} {what}(s) did not become available: {{{listed}}}")


class ServerCore:
    """The models that are served, and how that changes."""

    def __init__(self, loader: Loader, options: CoreOptions) -> None:
        self._options = options
        self.monitor = Monitor()
        self._bus = EventBus()
        self._bus.subscribe(self.monitor.handle)
        self._basic_manager = BasicManager(
            loader,
            self._bus,
            options.num_unload_threads,
            options.max_num_load_retries,
            options.load_retry_interval_micros / 1e6,
        )
        self._manager = AspiredVersionsManager(self._basic_manager)
        self._manager.start()
        self._config_lock = threading.Lock()
        self._config = model_server_config_pb2.ModelServerConfig()
        self._source: FileSystemSource | None = None
        self._labels_lock = threading.Lock()
        self._labels: dict[str, dict[str, int]] | None = None

    def reload_config(self, config: Any) -> None:
        """Apply a ModelServerConfig; returns when every model that is new in it has become available.

        There is no limit to that wait, and no other configuration is looked at meanwhile. Raises StatusError when the
        configuration is refused, or when a new model's load has failed for good. A logging_config is refused last,
        when all else of the configuration has taken effect (core/server_request_logger.cc).
        """
        with self._config_lock:
            former_kind, kind = self._config.WhichOneof("config"), config.WhichOneof("config")
            if former_kind is not None and kind != _MODEL_LIST:
                refusal = (
                    "Cannot transition to requested config. It is only legal to transition from one ModelConfigList to "
                    "another."
                )
                log.error(f"{_PLACE}:489", refusal)
                log.error(f"{_PLACE}:491", f"Old config: {self._config}")
                log.error(f"{_PLACE}:492", f"New config: {config}")
                raise status.failed_precondition(refusal)
            if kind is None:
                log.info(f"{_PLACE}:500", "Taking no action for empty config.")
                return
            if kind != _MODEL_LIST:
                place = "tensorflow_serving/model_servers/server.cc:73"
                log.fatal(place, "ModelServer does not yet support custom model config.")
            models = config.model_config_list.config
            _validate_list(models)
            _validate_platforms_kept(self._config.model_config_list.config, models)
            self._config = config
            self._update_labels(models)
            log.info(f"{_PLACE}:516", "Adding/updating models.")
            self._add_models(models)
            log.info(f"{_PLACE}:537", "Finished adding/updating models")
            if any(model.HasField("logging_config") for model in models):
                raise status.invalid_argument("No request-logger-creator provided.")

    def _update_labels(self, models: Any) -> None:
        """Take the labels of a configuration, all or none; raises FAILED_PRECONDITION."""
        labels: dict[str, dict[str, int]] = {}
        for model in models:
            available = {
                state.id.version for state in self.monitor.versions(model.name) if state.state is State.AVAILABLE
            }
            for label, version in model.version_labels.items():
                current = (self._labels or {}).get(model.name, {}).get(label, version)
                unused = self._options.allow_version_labels_for_unavailable_models and current == version
                if not unused and version not in available:
                    raise status.failed_precondition(
                        f"Request to assign label to version {version} of model {model.name}, which is not currently "
                        "available for inference"
                    )
                labels.setdefault(model.name, {})[label] = version
        with self._labels_lock:
            self._labels = labels

    def _add_models(self, models: Any) -> None:
        monitored = []
        for model in models:
            log.info(f"{_PLACE}:645", f" (Re-)adding model: {model.name}")
            monitored.append(MonitoredModel(model.name, model.base_path, model.model_version_policy))
        for model in models:
            if _platform(model) not in self._options.platforms:
                raise status.invalid_argument(f"Model {model.name} requests unsupported platform {_platform(model)}")
        if self._source is None:
            self._load_first(monitored)
        else:
            self._load_new(self._source, monitored)

    def _load_first(self, models: list[MonitoredModel]) -> None:
        """Watch the models and load them on many threads, until each has a version."""
        self._source = FileSystemSource(
            models, self._options.file_system_poll_wait_seconds, self._manager.set_aspired_versions
        )
        self._basic_manager.set_num_load_threads(_INITIAL_LOAD_THREADS)
        self._source.start()
        reached = self.monitor.wait_until_available([model.name for model in models])
        self._basic_manager.set_num_load_threads(self._options.num_load_threads)
        _raise_unless_available(reached, "servable")

    def _load_new(self, source: FileSystemSource, models: list[MonitoredModel]) -> None:
        """Watch the models instead of the former ones, and wait for those that are new."""
        new_models = [model.name for model in models if model.name not in source.model_names()]
        fresh_monitor = Monitor()  # does not know of versions that were unloaded before
        self._bus.subscribe(fresh_monitor.handle)
        try:
            source.update(models)
            reached = fresh_monitor.wait_until_available(new_models)
        finally:
            self._bus.unsubscribe(fresh_monitor.handle)
        _raise_unless_available(reached, "model")

    def servable_request(self, model_spec: Any) -> ServableRequest:
        """Return what a ModelSpec asks for; raises INVALID_ARGUMENT for one without name or with an unknown label."""
        if not model_spec.name:
            raise status.invalid_argument("ModelSpec has no name specified.")
        choice = model_spec.WhichOneof("version_choice")
        if choice == "version":
            return ServableRequest(model_spec.name, model_spec.version.value)
        if choice == "version_label":
            with self._labels_lock:
                if self._labels is None:
                    raise status.StatusError(
                        status.Code.UNAVAILABLE, f"Model labels does not init yet.{model_spec.version_label}"
                    )
                labels = self._labels.get(model_spec.name, {})
            if model_spec.version_label not in labels:
                raise status.invalid_argument(f"Unrecognized servable version label: {model_spec.version_label}")
            return ServableRequest(model_spec.name, labels[model_spec.version_label])
        return ServableRequest(model_spec.name)

    def handle(self, model_spec: Any) -> contextlib.AbstractContextManager[tuple[ServableId, Any]]:
        """Hold the servable that a ModelSpec asks for while it is used; raises StatusError when there is none."""
        return self._basic_manager.handle(self.servable_request(model_spec))
