# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Reads a SavedModel without TensorFlow: what it serves, and whether a server that loads it can predict with it.

Sources of the format: tensorflow/core/protobuf/{saved_model,meta_graph,saver}.proto and
tensorflow/core/framework/{graph,node_def,attr_value,tensor_shape,types}.proto; what the server does with it:
tensorflow/cc/saved_model/{loader,loader_util}.cc.

The graph is read in one pass and kept as names and numbers, at most some 400 MB for one that reaches the limits below.
Weights, functions and the tree of objects are stepped over by their length.
"""

from __future__ import annotations

import errno
import os
import stat
from array import array
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, Tuple

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.protobuf_wire import (
    WireError,
    WireReader,
    delimited,
    signed,
    varint,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.saved_model import (
    SavedModelError,
    shown,
    some,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.signature_contract import (
    DTYPES,
    contract_errors,
    contract_problems,
    describe,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils.tensor_bundle import (
    MAX_INDEX_BYTES,
    BundleError,
    BundleIndex,
    read_index,
)

SERVE_TAGS = ["serve"]  # those that the server loads by default (--saved_model_tags)

MAX_NODE_NAMES = 1_000_000
MAX_NODE_NAME_BYTES = 1 << 27  # of all names together
MAX_EDGES = 10_000_000
MAX_STEPS = 30_000_000  # along edges, in all walks through the graph
MAX_PARTS = 100_000  # meta graphs, signatures, tensors of signatures and collections, all together
MAX_RANK = 254  # TensorShape::MaxDimensions()

# {name: {"method_name": str, "inputs": {name: {"dtype": str, "shape": [int] or None}}, "outputs": the same}}.
# A dimension of -1 is unknown, and a shape of None has an unknown number of dimensions.
Signatures = Dict[str, Dict[str, Any]]

_INIT_OP, _TRAIN_OP = "__saved_model_init_op", "__saved_model_train_op"  # kept among the signatures, and none
_INIT_COLLECTIONS = ("saved_model_main_op", "legacy_init_op")
_READING_OPS = (b"ReadVariableOp", b"VarIsInitializedOp")  # that take a variable and do not set it
_STATELESS_OPS = (b"Const", b"Placeholder")

# Fields of the messages. A map is a repeated message of a key and a value.
_META_GRAPH = delimited(2)  # SavedModel
_META_INFO, _GRAPH, _SAVER, _COLLECTION, _SIGNATURE, _ASSET = (delimited(number) for number in range(1, 7))
_TAG, _TENSORFLOW_VERSION = delimited(4), delimited(5)  # MetaInfoDef
_NODE = delimited(1)  # GraphDef
_NODE_NAME, _NODE_OP, _NODE_INPUT, _NODE_ATTRIBUTE = delimited(1), delimited(2), delimited(3), delimited(5)
_STRING_VALUE = delimited(2)  # AttrValue.s
_RESTORE_OP = delimited(3)  # SaverDef
_NODE_LIST, _NODE_LIST_VALUE = delimited(1), delimited(1)  # CollectionDef, NodeList
_INPUT, _OUTPUT, _METHOD_NAME = delimited(1), delimited(2), delimited(3)  # SignatureDef
_TENSOR_NAME, _DTYPE, _SHAPE = delimited(1), varint(2), delimited(3)  # TensorInfo
_DIMENSION, _UNKNOWN_RANK, _SIZE = delimited(2), varint(3), varint(1)  # TensorShapeProto, Dim
_ASSET_NAME = delimited(2)  # AssetFileDef
_KEY, _VALUE = delimited(1), delimited(2)

Range = Tuple[int, int]  # of bytes in saved_model.pb


_NO_SHARDS: dict[str, Any] = {"expected": 0, "missing": [], "extra": [], "truncated": {}}


@dataclass(frozen=True)
class Inspection:
    """What a SavedModel says of itself, and what of its variables is there.

    Signatures, TensorFlow version, assets and unrestored variables are those of the meta graph with the tag serve and
    no other.
    """

    tags: list[list[str]] = field(default_factory=list)  # one set of tags a meta graph
    tensorflow_version: str = ""
    signatures: Signatures = field(default_factory=dict)
    servable_signatures: list[str] = field(default_factory=list)  # those whose outputs are all plain tensors
    unrestored: dict[str, list[str]] = field(default_factory=dict)  # {signature: variables read and never set}
    is_restored: bool = False  # whether anything is to be read from variables/
    assets: list[str] = field(default_factory=list)  # names below assets/
    # {"expected": how many, "missing": names, "extra": names, "truncated": {name: {"bytes", "needed"}}}
    shards: dict[str, Any] = field(default_factory=lambda: dict(_NO_SHARDS))


def inspect_saved_model(path: Path) -> Inspection:
    """Return what the SavedModel in a directory says of itself. Raises SavedModelError where it cannot be read."""
    with _directory(path) as directory:
        inspection = _inspect_graph(path, directory)
        return replace(inspection, shards=_inspect_shards(path, directory, inspection.is_restored))


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
                problems += _graph_problems(path, inspection)
                problems += _asset_problems(path, inspection.assets)
                errors = [f"signatures: {error}" for error in contract_errors(contract)]
                if inspection.signatures:
                    problems += (
                        f"{path}: {problem}" for problem in errors or contract_problems(contract, inspection.signatures)
                    )
            except SavedModelError as error:
                problems.append(str(error))
            inspection = replace(inspection, shards=_inspect_shards(path, directory, inspection.is_restored))
            problems += _shard_problems(path, inspection.shards)
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


def _graph_problems(path: Path, inspection: Inspection) -> list[str]:
    if SERVE_TAGS not in inspection.tags:
        found = some([", ".join(tags) or "(none)" for tags in inspection.tags], between="; ")
        return [
            f"{path} has no graph with the tag serve and no other, which is the one that the server loads; "
            + (f"its graphs have the tags: {found}; " if inspection.tags else "it has no graph at all; ")
            + "export it for serving, by tf.saved_model.save or model.export"
        ]
    if not inspection.servable_signatures:
        return [
            f"{path} has no signature that can be called; a Keras model of one's own needs both "
            "@tf.function(input_signature=[...]) on its method and signatures={'call': model.call} in "
            "tf.saved_model.save (tf_keras), or keras.export.ExportArchive with add_endpoint('call', model.call, "
            "input_signature=[...]) (Keras 3)"
        ]
    return [
        f"{path}: signature {shown(name)} reads variables that are never restored, so the server loads it and every "
        f"prediction fails: {some(variables)}; export a Sequential or functional model by model.export(DIR), a "
        f"subclass by keras.export.ExportArchive with add_endpoint({name!r}, ..., input_signature=[...]), its layers "
        "built in __init__"
        for name, variables in sorted(inspection.unrestored.items())
    ]


def _asset_problems(path: Path, assets: list[str]) -> list[str]:
    problems = []
    for name in assets:
        if not {"", ".", ".."}.isdisjoint(name.split("/")):  # "" also at the start of an absolute path
            problems.append(f"{path}: the graph reads the asset {name!r}, which is not below assets/")
        elif not _is_file(path / "assets" / name):
            problems.append(f"{path} is incomplete: assets/{shown(name)} is missing")
    return problems


def _shard_problems(path: Path, shards: dict[str, Any]) -> list[str]:
    problems = []
    if shards["missing"]:
        names = [f"variables/{name}" for name in shards["missing"]]
        problems.append(f"{path} is incomplete: {some(names)} {'is' if len(names) == 1 else 'are'} missing")
    problems += (
        f"{path} is incomplete: variables/{name} has {facts['bytes']} bytes, and its variables need {facts['needed']}"
        for name, facts in shards["truncated"].items()
    )
    return problems


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


def _inspect_shards(path: Path, directory: int, is_restored: bool) -> dict[str, Any]:
    """Return Inspection.shards. Raises SavedModelError where the index cannot be read, or is missing and needed."""
    variables = path / "variables"
    try:
        os.stat("variables", dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        if is_restored:
            raise SavedModelError(f"{path} is incomplete: variables/variables.index is missing") from None
        return dict(_NO_SHARDS)
    with _directory(variables, directory) as opened:
        sizes = {}
        with os.scandir(opened) as entries:
            for entry in entries:
                if entry.name.startswith("variables.data-"):
                    if not entry.is_file(follow_symlinks=False):
                        raise SavedModelError(f"{variables / entry.name} is not a regular file")
                    sizes[entry.name] = entry.stat(follow_symlinks=False).st_size
        with _file(variables / "variables.index", opened) as file:
            if file is None:
                if is_restored or sizes:
                    raise SavedModelError(f"{path} is incomplete: variables/variables.index is missing")
                return dict(_NO_SHARDS)
            index = _read_index(variables / "variables.index", file)
    return _compare_shards(path, sizes, index)


def _read_index(path: Path, file: WireReader) -> BundleIndex:
    if file.size > MAX_INDEX_BYTES:
        raise SavedModelError(f"{path} is damaged: it has more than {MAX_INDEX_BYTES} bytes")
    try:
        return read_index(file.whole())
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


class _SavedModelFile:
    """One saved_model.pb. Its methods raise WireError where it is malformed or beyond the limits."""

    def __init__(self, reader: WireReader) -> None:
        self._reader = reader
        self._parts_left = MAX_PARTS

    def inspect(self) -> dict[str, Any]:
        """Return the fields of Inspection that the file tells."""
        tags = []
        chosen: dict[int, list[Range]] | None = None
        version = ""
        for start, end in self._all((0, self._reader.size), _META_GRAPH):
            parts = self._parts((start, end), _META_INFO, _GRAPH, _SAVER, _COLLECTION, _SIGNATURE, _ASSET)
            info = self._parts_of(parts[_META_INFO], _TAG, _TENSORFLOW_VERSION)
            tags.append(sorted(self._reader.text(*one) for one in info[_TAG]))
            if chosen is None and tags[-1] == SERVE_TAGS:
                chosen = parts
                version = self._last_text(info[_TENSORFLOW_VERSION])
        if chosen is None:
            return {"tags": tags}
        return {"tags": tags, "tensorflow_version": version, **self._inspect_meta_graph(chosen)}

    def _inspect_meta_graph(self, parts: dict[int, list[Range]]) -> dict[str, Any]:
        signatures: Signatures = {}
        tensors: dict[str, list[bytes]] = {}  # that a signature's outputs are, by signature
        for name, value in self._map(parts[_SIGNATURE]):
            signatures[name], tensors[name] = self._signature(value)
        init_ops = tensors.pop(_INIT_OP, [])
        for name in (_INIT_OP, _TRAIN_OP):
            signatures.pop(name, None)
            tensors.pop(name, None)
        for name, value in self._map(parts[_COLLECTION]):
            if name in _INIT_COLLECTIONS:
                lists = self._parts(value, _NODE_LIST)[_NODE_LIST]
                init_ops += (
                    self._reader.content(*one) for one in self._parts_of(lists, _NODE_LIST_VALUE)[_NODE_LIST_VALUE]
                )
        restore_ops = [self._reader.content(*one) for one in self._parts_of(parts[_SAVER], _RESTORE_OP)[_RESTORE_OP]]
        assets = [self._last_text(self._parts(one, _ASSET_NAME)[_ASSET_NAME]) for one in parts[_ASSET]]
        graph = Graph(self._reader, parts[_GRAPH])
        restored = graph.walk(restore_ops[-1:])
        ready = graph.variables_in(restored) | graph.variables_set_by(graph.walk(init_ops))
        return {
            "signatures": signatures,
            "servable_signatures": sorted(
                name for name, signature in signatures.items() if 0 < len(signature["outputs"]) == len(tensors[name])
            ),
            "unrestored": graph.unset_variables(tensors, ready),
            "is_restored": any(node in graph.stateful for node in restored),
            "assets": sorted(assets),
        }

    def _signature(self, value: Range) -> tuple[dict[str, Any], list[bytes]]:
        """Return a signature and the names of the tensors that its outputs are."""
        parts = self._parts(value, _INPUT, _OUTPUT, _METHOD_NAME)
        names: list[bytes] = []
        return {
            "method_name": self._last_text(parts[_METHOD_NAME]),
            "inputs": {name: self._tensor(one, []) for name, one in self._map(parts[_INPUT])},
            "outputs": {name: self._tensor(one, names) for name, one in self._map(parts[_OUTPUT])},
        }, names

    def _tensor(self, value: Range, names: list[bytes]) -> dict[str, Any]:
        """Return a tensor's dtype and shape, and add its name, which one made of several tensors lacks."""
        dtype = 0
        shape: list[int] | None = []
        for tag, first, end in self._reader.fields(*value):
            if tag == _TENSOR_NAME:
                names.append(self._reader.content(first, end))
            elif tag == _DTYPE:
                dtype = first
            elif tag == _SHAPE:
                shape = self._shape((first, end))
        return {"dtype": _dtype(dtype), "shape": shape}

    def _shape(self, value: Range) -> list[int] | None:
        dimensions = []
        for tag, first, end in self._reader.fields(*value):
            if tag == _UNKNOWN_RANK and first:
                return None
            if tag == _DIMENSION:
                sizes = [signed(size) for t, size, _ in self._reader.fields(first, end) if t == _SIZE]
                dimensions.append(sizes[-1] if sizes else 0)
                if len(dimensions) > MAX_RANK:
                    raise WireError(f"a tensor has more than {MAX_RANK} dimensions")
        return dimensions

    def _map(self, entries: list[Range]) -> Iterator[tuple[str, Range]]:
        """Yield the (key, value) of each entry of a map whose keys are strings and whose values are messages."""
        for entry in entries:
            parts = self._parts(entry, _KEY, _VALUE)
            yield self._last_text(parts[_KEY]), parts[_VALUE][-1] if parts[_VALUE] else (0, 0)

    def _last_text(self, texts: list[Range]) -> str:
        return self._reader.text(*texts[-1]) if texts else ""

    def _all(self, message: Range, tag: int) -> Iterator[Range]:
        for found, start, end in self._reader.fields(*message):
            if found == tag:
                yield start, end

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


def _dtype(number: int) -> str:
    """Return a DataType as TensorFlow prints it. The references of TensorFlow 1 have a number that is higher by 100."""
    if number < len(DTYPES):
        return DTYPES[number]
    if 100 < number < 100 + len(DTYPES):
        return f"{DTYPES[number - 100]}_ref"
    return f"unknown ({number})"


class Graph:
    """The nodes of a GraphDef as numbers, and for each the nodes whose outputs it takes.

    A name gets its number where it is first seen, as a node or as an input. Raises WireError like its reader.
    """

    def __init__(self, reader: WireReader, messages: list[Range]) -> None:
        self.variables: dict[int, str] = {}  # name of the variable by the VarHandleOp that stands for it
        self.stateful: set[int] = set()  # nodes that take no input and are neither a constant nor a placeholder
        self._numbers: dict[bytes, int] = {}
        self._name_bytes = 0
        # The inputs of node n are _edges[_first[n]:_last[n]]; _first is -1 where no such node has been seen.
        self._edges, self._first, self._last = array("i"), array("i"), array("i")
        self._readers: set[int] = set()
        self._steps_left = MAX_STEPS
        for start, end in messages:
            for tag, node_start, node_end in reader.fields(start, end):
                if tag == _NODE:
                    self._add_node(reader, node_start, node_end)

    def _add_node(self, reader: WireReader, start: int, end: int) -> None:
        name = op = b""
        inputs = []
        for tag, first, last in reader.fields(start, end):
            if tag == _NODE_INPUT:
                inputs.append(self._number(_node_name(reader.content(first, last))))
                if len(inputs) + len(self._edges) > MAX_EDGES:
                    raise WireError(f"more than {MAX_EDGES} inputs of nodes")
            elif tag == _NODE_NAME:
                name = reader.content(first, last)
            elif tag == _NODE_OP:
                op = reader.content(first, last)
        node = self._number(name)
        if not name or self._first[node] >= 0:
            raise WireError("a node has no name" if not name else f"two nodes have the name {name!r}")
        self._first[node] = len(self._edges)
        self._edges.extend(inputs)
        self._last[node] = len(self._edges)
        if op == b"VarHandleOp":
            self.variables[node] = _shared_name(reader, start, end) or name.decode(errors="replace")
        elif op in _READING_OPS:
            self._readers.add(node)
        if not inputs and op not in _STATELESS_OPS:
            self.stateful.add(node)

    def _number(self, name: bytes) -> int:
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._first)
            self._first.append(-1)
            self._last.append(-1)
            self._name_bytes += len(name)
            if number >= MAX_NODE_NAMES or self._name_bytes > MAX_NODE_NAME_BYTES:
                raise WireError(f"more than {MAX_NODE_NAMES} nodes, or more than {MAX_NODE_NAME_BYTES} bytes of names")
        return number

    def walk(self, names: Iterable[bytes]) -> list[int]:
        """Return the nodes of these names, or of the tensors of these names, and all that their outputs depend on."""
        found = {self._numbers.get(_node_name(name)) for name in names}
        reached = [node for node in found if node is not None]
        seen = bytearray(len(self._first))
        for node in reached:
            seen[node] = 1
        for node in reached:  # grows meanwhile
            inputs = self._inputs(node)
            self._steps_left -= 1 + len(inputs)
            if self._steps_left < 0:
                raise WireError(
                    f"its signatures depend on more than {MAX_STEPS} nodes, counted once for each signature"
                )
            for other in inputs:
                if not seen[other]:
                    seen[other] = 1
                    reached.append(other)
        return reached

    def variables_in(self, nodes: Iterable[int]) -> set[str]:
        """Return the variables that stand among these nodes."""
        return {self.variables[node] for node in nodes if node in self.variables}

    def variables_set_by(self, nodes: Iterable[int]) -> set[str]:
        """Return the variables that these nodes are given, unless only to be read.

        A function that takes a variable passes for one that sets it: what it does with it is not looked into.
        """
        given = (other for node in nodes if node not in self._readers for other in self._inputs(node))
        return self.variables_in(given)

    def unset_variables(self, tensors: dict[str, list[bytes]], ready: set[str]) -> dict[str, list[str]]:
        """Return {signature: variables that its outputs depend on and that are not ready}, without empty ones."""
        unset = {}
        # One walk for all of them tells that all is well, as it mostly is.
        if not self.variables_in(self.walk(name for names in tensors.values() for name in names)) <= ready:
            for signature, names in tensors.items():
                variables = self.variables_in(self.walk(names)) - ready
                if variables:
                    unset[signature] = sorted(variables)
        return unset

    def _inputs(self, node: int) -> array[int]:
        return self._edges[self._first[node] : self._last[node]] if self._first[node] >= 0 else self._edges[:0]


def _node_name(name: bytes) -> bytes:
    """Return the node of a tensor (node:1), or of a control input (^node)."""
    return name.lstrip(b"^").partition(b":")[0]


def _shared_name(reader: WireReader, start: int, end: int) -> str:
    """Return the attribute shared_name of the node in this range, "" where it has none."""
    name = ""
    for tag, first, last in reader.fields(start, end):
        if tag == _NODE_ATTRIBUTE:
            key, text = b"", ""
            for entry_tag, x, y in reader.fields(first, last):
                if entry_tag == _KEY:
                    key = reader.content(x, y)
                elif entry_tag == _VALUE and key == b"shared_name":
                    for value_tag, text_start, text_end in reader.fields(x, y):
                        if value_tag == _STRING_VALUE:
                            text = reader.content(text_start, text_end).decode(errors="replace")
            if key == b"shared_name":
                name = text
    return name
