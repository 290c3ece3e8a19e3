# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads a SavedModel without TensorFlow: what it serves, and whether a server that loads it can predict with it.

Sources of the format: tensorflow/core/protobuf/{saved_model,meta_graph,saver}.proto and
tensorflow/core/framework/{graph,node_def,attr_value,tensor_shape,types}.proto; what the server does with it:
tensorflow/cc/saved_model/{loader,loader_util}.cc.

The graph is read in one pass and kept as names and numbers, at most some 400 MB for one that reaches the limits.
Weights, the tree of objects and functions that nobody asks for are stepped over by their length.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Container, Dict, Iterator, NamedTuple

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._common.input_checks import listed, printable
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.graph import (
    ALWAYS,
    SOMETIMES,
    Effects,
    Graph,
    Run,
    State,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.protobuf_wire import (
    Range,
    WireError,
    WireReader,
    delimited,
    varint,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.signature_contract import (
    contract_errors,
    contract_problems,
    describe,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.tensor_bundle import (
    MAX_INDEX_BYTES,
    BundleError,
    BundleIndex,
    StoredTensor,
    read_index,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.tensor_types import (
    dtype_name,
    read_shape,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.tensorflow_operations import (
    OPERATIONS,
    VERSION,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.version_files import (
    SavedModelError,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.warmup_requests import (
    MAX_READ_BYTES,
    WARMUP_FILE,
    check_records,
)

SERVE_TAGS = ["serve"]  # those that the server loads by default (--saved_model_tags)

MAX_PARTS = 100_000  # meta graphs, signatures, tensors of signatures and collections, all together

# How an exporter makes a signature, and how it has what the signature reads restored or initialised.
_ADVICE = {
    "Keras": (
        "a Keras model of one's own needs both @tf.function(input_signature=[...]) on its method and "
        "signatures={'call': model.call} in tf.saved_model.save (tf_keras), or keras.export.ExportArchive with "
        "add_endpoint('call', model.call, input_signature=[...]) (Keras 3)",
        "export a Sequential or functional model by model.export(DIR), a subclass by keras.export.ExportArchive with "
        "add_endpoint(NAME, ..., input_signature=[...]), its layers built in __init__",
    ),
    "TensorFlow 2": (
        "give tf.saved_model.save signatures={'serving_default': module.call}, with "
        "@tf.function(input_signature=[...]) on the method",
        "keep them as attributes of the object that tf.saved_model.save is given, or of one that it holds",
    ),
    "TensorFlow 1": (
        "give add_meta_graph_and_variables a signature_def_map",
        "give add_meta_graph_and_variables a saver whose variables they are, or a main_op that initialises them "
        "(tf.compat.v1.local_variables_initializer(), tables_initializer(), an iterator's initializer)",
    ),
}
_KERAS_NAMES = {b"keras_api", b"_inbound_nodes"}  # of what tf_keras' and Keras 3's objects hold

# {name: {"method_name": str, "inputs": {name: {"dtype": str, "shape": [int] or None}}, "outputs": the same}}.
# A dimension of -1 is unknown, and a shape of None has an unknown number of dimensions.
Signatures = Dict[str, Dict[str, Any]]

_INIT_OP, _TRAIN_OP = "__saved_model_init_op", "__saved_model_train_op"  # kept among the signatures, and none
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")

# Fields of the messages. A map is a repeated message of a key and a value.
_META_GRAPH = delimited(2)  # SavedModel
_META_INFO, _GRAPH, _SAVER, _COLLECTION, _SIGNATURE, _ASSET, _OBJECTS = (delimited(number) for number in range(1, 8))
_OP_LIST, _TAG, _TENSORFLOW_VERSION = delimited(2), delimited(4), delimited(5)  # MetaInfoDef
_OP, _OP_NAME = delimited(1), delimited(1)  # OpList, OpDef
_RESTORE_OP = delimited(3)  # SaverDef
_NODE_LIST, _NODE_LIST_VALUE = delimited(1), delimited(1)  # CollectionDef, NodeList
_INPUT, _OUTPUT, _METHOD_NAME = delimited(1), delimited(2), delimited(3)  # SignatureDef
_TENSOR_NAME, _DTYPE, _SHAPE = delimited(1), varint(2), delimited(3)  # TensorInfo
_ASSET_NAME = delimited(2)  # AssetFileDef
_OBJECT, _CHILD, _CHILD_NAME = (
    delimited(1),
    delimited(1),
    delimited(2),
)  # SavedObjectGraph, SavedObject, ObjectReference
_KEY, _VALUE = delimited(1), delimited(2)

_NO_SHARDS: dict[str, Any] = {"expected": 0, "missing": [], "extra": [], "truncated": {}}


@dataclass(frozen=True)
class Inspection:
    """What a SavedModel says of itself, and what of its variables is there.

    Signatures, TensorFlow version, assets and unrestored variables are those of the meta graph with the tag serve and
    no other.
    """

    tags: list[list[str]] = field(default_factory=list)  # one set of tags a meta graph
    tensorflow_version: str = ""
    made_by: str = "TensorFlow 1"  # or TensorFlow 2, or Keras, whose objects are in it
    unknown_operations: list[str] = field(default_factory=list)  # those that TensorFlow itself lacks
    signatures: Signatures = field(default_factory=dict)
    # {signature: its tensors that are made of several, as sparse and ragged ones are, and have no name in the graph}
    composite: dict[str, list[str]] = field(default_factory=dict)
    # {signature: variables, tables and iterators that it reads and nothing sets}, and those that only a branch reads
    unrestored: dict[str, list[str]] = field(default_factory=dict)
    read_in_branches: dict[str, list[str]] = field(default_factory=dict)
    read_by_init: list[str] = field(default_factory=list)  # what the init op reads before anything sets it
    is_restored: bool = False  # whether anything is to be read from variables/
    restored: dict[str, StoredTensor] = field(default_factory=dict)  # what the graph takes it for
    assets: list[str] = field(default_factory=list)  # names below assets/
    warnings: list[str] = field(default_factory=list)  # what may be a fault and does not keep it from being served
    # {"expected": how many, "missing": names, "extra": names, "truncated": {name: {"bytes", "needed"}}}
    shards: dict[str, Any] = field(default_factory=lambda: dict(_NO_SHARDS))

    @property
    def servable_signatures(self) -> list[str]:
        """Those that can be fed and fetched."""
        return [name for name, one in self.signatures.items() if one["outputs"] and name not in self.composite]


def check_saved_model(path: Path, contract: dict[str, Any] | None = None) -> Inspection:
    """Return what the SavedModel in a directory says of itself.

    Raises SavedModelError, with one line for each problem, unless a server that loads it can predict with it and its
    signatures are those of the contract.
    """
    inspection, problems = examine_saved_model(path, contract)
    if problems:
        raise SavedModelError("\n".join(problems))
    return inspection


def examine_saved_model(path: Path, contract: dict[str, Any] | None = None) -> tuple[Inspection, list[str]]:
    """Return what can be read of the SavedModel in a directory, and all that keeps it from being served.

    contract is one of signature_contract.
    """
    problems = []
    inspection = Inspection()
    try:
        with _directory(path) as directory:
            try:
                inspection = _inspect_graph(path, directory)
                inspection = replace(inspection, warnings=_warnings(path, inspection))
                problems += _graph_problems(path, inspection, contract)
                problems += _asset_problems(path, inspection.assets)
                problems += _warmup_problems(path, directory, inspection)
                errors = [f"signatures: {error}" for error in contract_errors(contract)]
                if inspection.signatures:
                    problems += (
                        f"{path}: {problem}" for problem in errors or contract_problems(contract, inspection.signatures)
                    )
            except SavedModelError as error:
                problems.append(str(error))
            shards, index = _inspect_variables(path, directory, inspection)
            inspection = replace(inspection, shards=shards)
            problems += _shard_problems(path, shards)
            problems += _stored_problems(path, inspection.restored, index)
    except SavedModelError as error:
        problems.append(str(error))
    return inspection, problems


def signature_lines(signatures: Signatures) -> list[str]:
    """Return signatures as sorted lines of text, one a tensor."""
    return sorted(
        f"{name}  {kind[:-1]:<6}  {tensor}  {describe(facts)}"
        for name, signature in signatures.items()
        for kind in ("inputs", "outputs")
        for tensor, facts in signature[kind].items()
    )


# Problems


def _graph_problems(path: Path, inspection: Inspection, contract: dict[str, Any] | None) -> list[str]:
    if SERVE_TAGS not in inspection.tags:
        found = listed([", ".join(tags) or "(none)" for tags in inspection.tags], between="; ")
        return [
            f"{path} has no graph with the tag serve and no other, which is the one that the server loads; "
            + (f"its graphs have the tags: {found}; " if inspection.tags else "it has no graph at all; ")
            + "export it for serving, by tf.saved_model.save or model.export"
        ]
    if not inspection.servable_signatures:
        return [
            f"{path} has no signature that can be called; "
            + ("; ".join(_composite(inspection).values()) or _ADVICE[inspection.made_by][0])
        ]
    problems = [f"{path}: {text}" for name, text in _composite(inspection).items() if name in (contract or {})]
    problems += [
        f"{path}: signature {printable(name)} reads what is never restored or initialised, so the server loads it and "
        f"every prediction fails: {listed(states)}; {_ADVICE[inspection.made_by][1].replace('NAME', repr(name))}"
        for name, states in sorted(inspection.unrestored.items())
    ]
    if inspection.read_by_init:
        problems.append(
            f"{path}: its init op reads what nothing has set by then, so the server cannot load it: "
            f"{listed(inspection.read_by_init)}"
        )
    return problems


def _composite(inspection: Inspection) -> dict[str, str]:
    """Return what is said of each signature with tensors that no request can hold."""
    return {
        name: f"signature {printable(name)} cannot be called, as no request can hold a tensor made of several "
        f"(sparse or ragged), such as {listed(tensors)}; export dense ones (tf.sparse.to_dense, to_tensor())"
        for name, tensors in sorted(inspection.composite.items())
    }


def _warnings(path: Path, inspection: Inspection) -> list[str]:
    """Return what does not keep a SavedModel from being served, and yet may be a fault."""
    texts = list(_composite(inspection).values()) if inspection.servable_signatures else []
    if inspection.unknown_operations:
        texts.append(
            f"it has operations that TensorFlow {VERSION} lacks, and a server that lacks them cannot load it: "
            f"{listed(inspection.unknown_operations)} (tensorflow_model_server adds those of TensorFlow Text and of "
            "Decision Forests)"
        )
    texts += (
        f"signature {printable(name)} reads in a branch what is never restored or initialised; a prediction that takes "
        f"it fails: {listed(states)}"
        for name, states in sorted(inspection.read_in_branches.items())
    )
    return [f"{path}: {text}" for text in texts]


def _asset_problems(path: Path, assets: list[str]) -> list[str]:
    problems = []
    for name in assets:
        if not {"", ".", ".."}.isdisjoint(name.split("/")):  # "" also at the start of an absolute path
            problems.append(f"{path}: the graph reads the asset {name!r}, which is not below assets/")
        elif not _is_file(path / "assets" / name):
            problems.append(f"{path} is incomplete: assets/{printable(name)} is missing")
    return problems


def _warmup_problems(path: Path, directory: int, inspection: Inspection) -> Iterator[str]:
    """Yield why the server could not make the warm-up requests that a version brings."""
    file = path / WARMUP_FILE
    if not inspection.signatures or not _is_file(file):
        return
    with _directory(file.parent, directory) as opened, _file(file, opened) as reader:
        if reader is None:
            return
        if reader.size > MAX_READ_BYTES:
            inspection.warnings.append(f"{file} is not looked into, as it has more than {MAX_READ_BYTES >> 20} MiB")
            return
        try:
            check_records(reader.whole(), inspection.signatures)
        except ValueError as error:
            yield (
                f"{file} holds no warm-up requests that the server can make, and it would not serve the version: "
                f"{error}; write it again, or leave it out"
            )


def _shard_problems(path: Path, shards: dict[str, Any]) -> list[str]:
    problems = []
    if shards["missing"]:
        names = [f"variables/{name}" for name in shards["missing"]]
        problems.append(f"{path} is incomplete: {listed(names)} {'is' if len(names) == 1 else 'are'} missing")
    problems += (
        f"{path} is incomplete: variables/{name} has {facts['bytes']} bytes, and its variables need {facts['needed']}"
        for name, facts in shards["truncated"].items()
    )
    return problems


def _stored_problems(path: Path, restored: dict[str, StoredTensor], index: BundleIndex) -> list[str]:
    """Return where variables/ is not what the graph restores."""
    lacking = [name for name in restored if name not in index.tensors] if index.is_whole else []
    other = [
        f"{printable(name)} is {found}, not {restored[name]}"
        for name, found in index.tensors.items()
        if not found.fits(restored[name])
    ]
    told = [f"it lacks {listed(lacking)}"] if lacking else []
    told += [listed(other)] if other else []
    return [
        f"{path}: variables/ is of another export, so loading or every prediction fails: {text}; export or copy "
        "saved_model.pb and variables/ together"
        for text in told
    ]


# Files


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a name that is too long
        return False


@contextmanager
def _directory(path: Path, within: int | None = None) -> Iterator[int]:
    """Open a directory, and refuse a link where it is opened within another one."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        descriptor = (
            os.open(path, flags) if within is None else os.open(path.name, flags | os.O_NOFOLLOW, dir_fd=within)
        )
    except OSError as error:
        if within is None and error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise SavedModelError(f"{path} is not a SavedModel: it has no saved_model.pb") from error
        raise SavedModelError(f"{path} cannot be read as a directory: {error.strerror}") from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _file(path: Path, directory: int) -> Iterator[WireReader | None]:
    """Open a file of a directory for reading, None where it is missing.

    What is no regular file is not opened: a link leads somewhere else, and reading from a pipe may never end.
    """
    descriptor = None
    try:
        if not stat.S_ISREG(os.stat(path.name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise SavedModelError(f"{path} is not a regular file; copy in what it stands for")
        descriptor = os.open(path.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)
        opened = descriptor
        status = os.fstat(opened)
        if not stat.S_ISREG(status.st_mode):
            raise SavedModelError(f"{path} is not a regular file; copy in what it stands for")
        yield WireReader(status.st_size, lambda position, count: os.pread(opened, count, position))
    except FileNotFoundError:
        yield None
    except OSError as error:
        raise SavedModelError(f"{path} cannot be read: {error.strerror}") from error
    finally:
        if descriptor is not None:
            os.close(descriptor)


# variables/


def _inspect_variables(path: Path, directory: int, inspection: Inspection) -> tuple[dict[str, Any], BundleIndex]:
    """Return Inspection.shards, and the index. Raises SavedModelError where that cannot be read, or is missing."""
    variables = path / "variables"
    nothing = dict(_NO_SHARDS), BundleIndex(is_whole=False)
    missing = SavedModelError(f"{path} is incomplete: variables/variables.index is missing")
    try:
        os.stat("variables", dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        if inspection.is_restored:
            raise missing from None
        return nothing
    with _directory(variables, directory) as opened:
        sizes = {}
        with os.scandir(opened) as entries:
            for entry in entries:
                if entry.name.startswith("variables.data-"):
                    if not entry.is_file(follow_symlinks=False):
                        raise SavedModelError(f"{variables}/{printable(entry.name)} is not a regular file")
                    sizes[printable(entry.name)] = entry.stat(follow_symlinks=False).st_size
        with _file(variables / "variables.index", opened) as file:
            if file is None:
                if inspection.is_restored or sizes:
                    raise missing
                return nothing
            index = _read_index(variables / "variables.index", file, inspection.restored)
    return _compare_shards(path, sizes, index), index


def _read_index(path: Path, file: WireReader, names: Container[str]) -> BundleIndex:
    if file.size > MAX_INDEX_BYTES:
        raise SavedModelError(f"{path} is damaged: it has more than {MAX_INDEX_BYTES} bytes")
    try:
        return read_index(file.whole(), names)
    except (BundleError, WireError) as error:
        raise SavedModelError(f"{path} is damaged: {error}; export or copy the model again") from error


def _compare_shards(path: Path, sizes: dict[str, int], index: BundleIndex) -> dict[str, Any]:
    """Return Inspection.shards for the shards that are there and those that the index asks for."""
    count = index.num_shards
    if count is None:  # the header is compressed; the names have to tell
        counts = {name.rpartition("-of-")[2] for name in sizes}
        if len(counts) > 1:
            raise SavedModelError(f"{path} is incomplete: variables/ has shards of different sets")
        text = counts.pop() if counts else ""
        count = int(text) if len(text) == 5 and text.isdecimal() else None
    if count and not sizes or count is None:
        raise SavedModelError(f"{path} is incomplete: variables/ has no variables.data-?????-of-????? shard")
    names = {f"variables.data-{shard:05d}-of-{count:05d}": shard for shard in range(count)}
    return {
        "expected": count,
        "missing": sorted(set(names) - set(sizes)),
        "extra": sorted(set(sizes) - set(names)),
        "truncated": {
            name: {"bytes": sizes[name], "needed": index.shard_bytes[shard]}
            for name, shard in names.items()
            if name in sizes and sizes[name] < index.shard_bytes.get(shard, 0)
        },
    }


# saved_model.pb


def _inspect_graph(path: Path, directory: int) -> Inspection:
    """Return what saved_model.pb tells. Raises SavedModelError where it cannot be read."""
    with _file(path / "saved_model.pb", directory) as file:
        if file is None:
            if (path / "saved_model.pbtxt").is_file():
                raise SavedModelError(
                    f"{path} has saved_model.pbtxt only, which is not read; save it as binary "
                    "(tf.saved_model.save, or save() of TensorFlow 1's builder without as_text)"
                )
            raise SavedModelError(f"{path} is not a SavedModel: it has no saved_model.pb")
        try:
            return Inspection(**_SavedModelFile(file).inspect())
        except WireError as error:
            raise SavedModelError(
                f"{path}/saved_model.pb is damaged, or no SavedModel: {error}; export or copy the model again"
            ) from error


class Tensors(NamedTuple):
    """The names in the graph of what a signature feeds and fetches, and its own names of what has none there."""

    fed: list[bytes]
    fetched: list[bytes]
    composite: list[str]


class _SavedModelFile:
    """One saved_model.pb. Its methods raise WireError where it is malformed or beyond the limits."""

    def __init__(self, reader: WireReader) -> None:
        self._reader = reader
        self._parts_left = MAX_PARTS

    def inspect(self) -> dict[str, Any]:
        """Return the fields of Inspection that the file tells."""
        tags = []
        chosen = None
        for start, end in self._reader.parts((0, self._reader.size), _META_GRAPH):
            parts = self._parts((start, end), _META_INFO, _GRAPH, _SAVER, _COLLECTION, _SIGNATURE, _ASSET, _OBJECTS)
            info = self._parts_of(parts[_META_INFO], _OP_LIST, _TAG, _TENSORFLOW_VERSION)
            tags.append(sorted({self._reader.text(*one) for one in info[_TAG]}))
            if chosen is None and tags[-1] == SERVE_TAGS:
                chosen = parts, info
        if chosen is None:
            return {"tags": tags}
        return {"tags": tags, **self._inspect_meta_graph(*chosen)}

    def _inspect_meta_graph(self, parts: dict[int, list[Range]], info: dict[int, list[Range]]) -> dict[str, Any]:
        signatures: Signatures = {}
        tensors: dict[str, Tensors] = {}
        for name, value in self._map(parts[_SIGNATURE]):
            signatures[name], tensors[name] = self._signature(value)
        init = tensors[_INIT_OP].fetched if _INIT_OP in tensors else []
        for name in (_INIT_OP, _TRAIN_OP):
            signatures.pop(name, None)
            tensors.pop(name, None)
        collections = {name: value for name, value in self._map(parts[_COLLECTION]) if name in _INIT_COLLECTIONS}
        for name in _INIT_COLLECTIONS:  # the first that there is
            init = init or self._nodes(collections.get(name, (0, 0)))
        restore = [self._reader.content(*one) for one in self._parts_of(parts[_SAVER], _RESTORE_OP)[_RESTORE_OP]]
        graph = Graph(self._reader, parts[_GRAPH])
        restored = graph.run(restore[-1:])
        by_restore = graph.effects(restored)
        ready = {state for state, effect in by_restore.items() if effect.sets or effect.takes}
        by_init = graph.effects(graph.run(init), ready)
        ready.update(state for state, effect in by_init.items() if effect.sets or effect.takes)
        unset = self._unset(graph, tensors, ready)
        return {
            "tensorflow_version": self._last_text(info[_TENSORFLOW_VERSION]),
            "made_by": self._made_by(parts[_OBJECTS]),
            "unknown_operations": self._unknown_operations(graph, info[_OP_LIST]),
            "signatures": signatures,
            "composite": {name: sorted(one.composite) for name, one in tensors.items() if one.composite},
            "unrestored": _read(unset, ALWAYS),
            "read_in_branches": _read(unset, SOMETIMES),
            "read_by_init": sorted(str(state) for state, effect in by_init.items() if effect.reads == ALWAYS),
            "is_restored": any(graph.is_state(node) for node in restored.nodes),
            "restored": self._restored(graph, restored, by_restore),
            "assets": sorted(self._last_text(self._parts(one, _ASSET_NAME)[_ASSET_NAME]) for one in parts[_ASSET]),
        }

    def _made_by(self, object_graphs: list[Range]) -> str:
        for objects in object_graphs:
            for one in self._reader.parts(objects, _OBJECT):
                for child in self._reader.parts(one, _CHILD):
                    if any(
                        self._reader.content(*name) in _KERAS_NAMES for name in self._reader.parts(child, _CHILD_NAME)
                    ):
                        return "Keras"
        return "TensorFlow 2" if object_graphs else "TensorFlow 1"

    def _unknown_operations(self, graph: Graph, lists: list[Range]) -> list[str]:
        """Return the operations that TensorFlow lacks. The exporter lists those that functions use."""
        names = {name.decode(errors="replace") for name in graph.ops() if name not in graph.functions}
        for operation in self._parts_of(lists, _OP)[_OP]:
            names.add(self._last_text(self._parts(operation, _OP_NAME)[_OP_NAME]))
        return sorted(names - OPERATIONS)

    @staticmethod
    def _unset(graph: Graph, signatures: dict[str, Tensors], ready: set[State | int]) -> dict[str, Effects]:
        """Return what signatures do to states that are not ready."""
        every = graph.run(name for tensors in signatures.values() for name in tensors.fetched)
        if not graph.effects(every, ready):  # one walk for all of them tells that all is well, as it mostly is
            return {}
        return {
            name: graph.effects(graph.run(tensors.fetched, tensors.fed), ready) for name, tensors in signatures.items()
        }

    @staticmethod
    def _restored(graph: Graph, run: Run, effects: Effects) -> dict[str, StoredTensor]:
        """Return what the restore op reads of variables/, with the shapes of the variables that it is for."""
        tensors = {one.name: StoredTensor(one.dtype, None) for one in graph.all_saved(run)}
        handles = {state: node for node, state in graph.states.items()}
        for state, effect in effects.items():
            if effect.saved and not effect.saved.slice:
                tensors[effect.saved.name] = StoredTensor(effect.saved.dtype, graph.shape_of(handles[state]))
        return tensors

    def _nodes(self, value: Range) -> list[bytes]:
        """Return the names of nodes in a collection."""
        lists = self._parts(value, _NODE_LIST)[_NODE_LIST]
        return [self._reader.content(*one) for one in self._parts_of(lists, _NODE_LIST_VALUE)[_NODE_LIST_VALUE]]

    def _signature(self, value: Range) -> tuple[dict[str, Any], Tensors]:
        """Return a signature, and the names that its tensors have in the graph."""
        parts = self._parts(value, _INPUT, _OUTPUT, _METHOD_NAME)
        tensors = Tensors([], [], [])
        return {
            "method_name": self._last_text(parts[_METHOD_NAME]),
            "inputs": {name: self._tensor(name, one, tensors.fed, tensors) for name, one in self._map(parts[_INPUT])},
            "outputs": {
                name: self._tensor(name, one, tensors.fetched, tensors) for name, one in self._map(parts[_OUTPUT])
            },
        }, tensors

    def _tensor(self, key: str, value: Range, names: list[bytes], tensors: Tensors) -> dict[str, Any]:
        """Return a tensor's dtype and shape, and add its name, which one made of several tensors lacks."""
        dtype = 0
        name = b""
        shape: list[int] | None = []
        for tag, first, end in self._reader.fields(*value):
            if tag == _TENSOR_NAME:
                name = self._reader.content(first, end)
            elif tag == _DTYPE:
                dtype = first
            elif tag == _SHAPE:
                shape = read_shape(self._reader, (first, end))
        if name:
            names.append(name)
        else:
            tensors.composite.append(key)
        return {"dtype": dtype_name(dtype), "shape": shape}

    def _map(self, entries: list[Range]) -> Iterator[tuple[str, Range]]:
        """Yield the (key, value) of each entry of a map whose keys are strings and whose values are messages."""
        for entry in entries:
            parts = self._parts(entry, _KEY, _VALUE)
            yield self._last_text(parts[_KEY]), parts[_VALUE][-1] if parts[_VALUE] else (0, 0)

    def _last_text(self, texts: list[Range]) -> str:
        return self._reader.text(*texts[-1]) if texts else ""

    def _parts(self, message: Range, *tags: int) -> dict[int, list[Range]]:
        """Return where the fields of these tags are in a message."""
        return self._parts_of([message], *tags)

    def _parts_of(self, messages: list[Range], *tags: int) -> dict[int, list[Range]]:
        """Return the same for a message that is given in several pieces, which is how protobuf merges them."""
        parts: dict[int, list[Range]] = {tag: [] for tag in tags}
        for message in messages:
            for tag, start, end in self._reader.fields(*message):
                if tag in parts:
                    self._parts_left -= 1
                    if self._parts_left < 0:
                        raise WireError(f"more than {MAX_PARTS} signatures, tensors, tags and collections")
                    parts[tag].append((start, end))
        return parts


def _read(effects: dict[str, Effects], often: int) -> dict[str, list[str]]:
    """Return {signature: what it reads so often, and does not set before}."""
    states = {
        name: sorted(str(state) for state, effect in found.items() if max(effect.reads, effect.takes) == often)
        for name, found in effects.items()
    }
    return {name: some for name, some in states.items() if some}
