"""SavedModels in a session of their own, loaded step by step as TensorFlow's C++ loader does it.

Source: tensorflow/cc/saved_model/reader.cc and loader.cc. What matters to who serves models: variables are restored by
the saver's restore op alone, and **only if variables.index exists**; a model without it loads, and fails when asked.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from google.protobuf.message import DecodeError
from tensorflow.core.protobuf import config_pb2, meta_graph_pb2, saved_model_pb2
from tensorflow.python.client import pywrap_tf_session
from tensorflow.python.client import session as tf_session
from tensorflow.python.framework import importer, ops
from tensorflow.python.framework.errors_impl import OpError

from . import log, metrics, status

INIT_OP = "__saved_model_init_op"
DEFAULT_SIGNATURE = "serving_default"


def _to_status(error: OpError) -> status.StatusError:
    """Return the StatusError with the code and the message of a TensorFlow error."""
    return status.StatusError(status.Code(error.error_code), error.message)


class Session:
    """A graph and a TensorFlow session of its own; variables are not shared with any other session."""

    def __init__(self, graph_def: Any, config: Any) -> None:
        """Import a GraphDef under a ConfigProto; raises StatusError when TensorFlow refuses the graph."""
        self._graph = ops.Graph()
        try:
            with self._graph.as_default():
                importer.import_graph_def(graph_def, name="")
        except OpError as error:
            raise _to_status(error) from error
        except (ValueError, TypeError, KeyError) as error:  # the Python importer wraps the status of the C++ one
            code = status.Code.NOT_FOUND if "Op type not registered" in str(error) else status.Code.INVALID_ARGUMENT
            raise status.StatusError(code, str(error)) from error
        self._session = tf_session.Session(graph=self._graph, config=config)

    def run(
        self,
        feeds: Mapping[str, np.ndarray],
        fetches: Iterable[str] = (),
        timeout_ms: int = 0,
        targets: Iterable[str] = (),
    ) -> list[np.ndarray]:
        """Run the graph and return the fetched tensors, with no check before TensorFlow's own.

        feeds and fetches name tensors (`x:0`), targets name operations; timeout_ms 0 means no limit. The Python API
        is passed by because it would refuse a feed whose rank differs from its placeholder's, which the real server
        does not. Raises StatusError with the code of the kernel that failed.
        """
        try:
            feed_dict = {self._output(name): value for name, value in feeds.items()}
            fetch_list = [self._output(name) for name in fetches]
            target_list = [self._graph.get_operation_by_name(name)._c_op for name in targets]
        except (KeyError, ValueError) as error:
            raise status.invalid_argument(str(error.args[0])) from error
        options = pywrap_tf_session.TF_NewBufferFromString(
            config_pb2.RunOptions(timeout_in_ms=timeout_ms).SerializeToString()
        )
        try:
            outputs = pywrap_tf_session.TF_SessionRun_wrapper(
                self._session._session, options, feed_dict, fetch_list, target_list, None
            )
        except OpError as error:
            raise _to_status(error) from error
        finally:
            pywrap_tf_session.TF_DeleteBuffer(options)
        # Scalars come as numbers and bytes.
        return [np.asarray(output, dtype=object if isinstance(output, bytes) else None) for output in outputs]

    def _output(self, name: str) -> Any:
        """Return the C handle of a tensor; a bare operation name means its output 0, as in the C++ session."""
        return self._graph.get_tensor_by_name(name if ":" in name else f"{name}:0")._as_tf_output()

    def close(self) -> None:
        """Release the session and the variables it holds."""
        self._session.close()


class Runner(Protocol):
    """A session, or what wraps one."""

    def run(
        self, feeds: Mapping[str, np.ndarray], fetches: Iterable[str] = (), timeout_ms: int = 0
    ) -> list[np.ndarray]:
        """Return the tensors of the names in fetches for those in feeds; raises StatusError."""

    def close(self) -> None:
        """Release what the session holds."""


class Bundle:
    """A loaded SavedModel: its signatures and the session that runs them."""

    def __init__(self, signatures: dict[str, Any], session: Runner) -> None:
        self.signatures = signatures
        self.session = session

    def close(self) -> None:
        """Release the session and the graph; the bundle is of no further use."""
        self.session.close()
        del self.session
        gc.collect()  # graphs refer to themselves


def _read_saved_model(file: Path) -> Any:
    """Parse saved_model.pb; raises OUT_OF_RANGE, or the status of the file that cannot be read.

    A file of nine bytes was seen to be OUT_OF_RANGE, as the parser reads on when it nears the end; of a longer one
    TensorFlow may say DATA_LOSS.
    """
    log.info("tensorflow/cc/saved_model/reader.cc:83", f"Reading SavedModel from: {file.parent}")
    try:
        return saved_model_pb2.SavedModel.FromString(file.read_bytes())
    except OSError as error:
        raise status.from_os_error(error, str(file)) from error
    except DecodeError as error:
        raise status.StatusError(status.Code.OUT_OF_RANGE, "Read less bytes than requested") from error


def _find_meta_graph(saved_model: Any, tags: set[str]) -> Any:
    """Return the MetaGraphDef whose tags are exactly these; raises NOT_FOUND."""
    shown = " ".join(sorted(tags))
    log.info("tensorflow/cc/saved_model/reader.cc:52", f"Reading meta graph with tags {{ {shown} }}")
    for meta_graph in saved_model.meta_graphs:
        if set(meta_graph.meta_info_def.tags) == tags:
            return meta_graph
    raise status.not_found(
        f"Could not find meta graph def matching supplied tags: {{ {shown} }}. To inspect available tag-sets in the "
        "SavedModel, please use the SavedModel CLI: `saved_model_cli`"
    )


def _asset_feeds(directory: str, meta_graph: Any) -> dict[str, np.ndarray]:
    """Return the path of each asset file, keyed by the tensor that wants it."""
    assets = list(meta_graph.asset_file_def)
    if not assets and "saved_model_assets" in meta_graph.collection_def:
        for packed in meta_graph.collection_def["saved_model_assets"].any_list.value:
            asset = meta_graph_pb2.AssetFileDef()
            packed.Unpack(asset)
            assets.append(asset)
    return {
        asset.tensor_info.name: np.array(str(Path(directory, "assets", asset.filename)).encode(), dtype=object)
        for asset in assets
    }


def _init_op(directory: str, meta_graph: Any) -> str:
    """Return the name of the operation that initializes the model, empty when it has none."""
    if INIT_OP in meta_graph.signature_def:
        return meta_graph.signature_def[INIT_OP].outputs[INIT_OP].name
    for key in ("saved_model_main_op", "legacy_init_op"):
        if key in meta_graph.collection_def:
            names = meta_graph.collection_def[key].node_list.value
            if len(names) != 1:
                raise status.failed_precondition(f"Expected exactly one main op in : {directory}")
            return names[0]
    return ""


def _restore(directory: str, meta_graph: Any, session: Session, asset_feeds: dict[str, np.ndarray]) -> None:
    """Run the saver's restore op, unless there is no variables.index: then nothing is restored and nothing fails."""
    log.info("tensorflow/cc/saved_model/loader.cc:236", "Restoring SavedModel bundle.")
    prefix = Path(directory, "variables", "variables")
    index = prefix.with_name("variables.index")
    if not index.exists():
        log.info(
            "tensorflow/cc/saved_model/loader.cc:246",
            f"The specified SavedModel has no variables; no checkpoints were restored. File does not exist: {index}",
        )
        return
    saver = meta_graph.saver_def
    feeds = {saver.filename_tensor_name: np.array(str(prefix).encode(), dtype=object), **asset_feeds}
    session.run(feeds, targets=[saver.restore_op_name])


def _load(file: Path, tags: set[str], config: Any) -> Bundle:
    """Load the SavedModel that a file describes, timing its two stages; raises StatusError."""
    start = time.monotonic()
    directory = str(file.parent)
    meta_graph = _find_meta_graph(_read_saved_model(file), tags)
    session = Session(meta_graph.graph_def, config)
    try:
        asset_feeds = _asset_feeds(directory, meta_graph)
        _restore(directory, meta_graph, session, asset_feeds)
        restored = time.monotonic()
        init_op = _init_op(directory, meta_graph)
        if init_op:
            log.info(
                "tensorflow/cc/saved_model/loader.cc:220",
                f"Running initialization op on SavedModel bundle at path: {directory}",
            )
            session.run(asset_feeds, targets=[init_op])
    except BaseException:
        session.close()
        raise
    metrics.load_latency_by_stage.observe((restored - start) * 1e6, directory, "restore_graph")
    metrics.load_latency_by_stage.observe((time.monotonic() - restored) * 1e6, directory, "init_graph")
    return Bundle(dict(meta_graph.signature_def), session)


def load(directory: str, tags: set[str], config: Any) -> Bundle:
    """Load the SavedModel in a version directory and count the attempt in the metrics, if there is one to load.

    There is none without saved_model.pb (session_bundle/oss/session_bundle_util.cc:74; the .pbtxt is not read here).

    tags must be those of a meta graph, config is a ConfigProto. Raises StatusError with TensorFlow's code and message.
    """
    file = Path(directory, "saved_model.pb")
    if not file.exists():
        raise status.not_found(
            "Specified file path does not appear to contain a SavedModel bundle (should have a file called "
            f"`saved_model.pb`)\nSpecified file path: {directory}"
        )
    start = time.monotonic()
    outcome, problem = "success", None
    try:
        return _load(file, tags, config)
    except status.StatusError as error:
        outcome, problem = "fail", error
        raise
    finally:
        micros = int((time.monotonic() - start) * 1e6)
        log.info(
            "tensorflow/cc/saved_model/loader.cc:475",
            f"SavedModel load for tags {{ {' '.join(sorted(tags))} }}; Status: {outcome}: {problem or 'OK'}. "
            f"Took {micros} microseconds.",
        )
        metrics.load_attempt_count.add(directory, outcome)
        metrics.load_latency.add(directory, amount=micros)
