# Copyright: the modelops.tensorflow_serving authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What runs in the graph of a SavedModel, and what of that reads or sets state that outlives a run.

State is a variable, a lookup table or an iterator. A node that takes its handle reads it, sets it, or hands it on to a
function, which is looked into then and not before. Sources: tensorflow/core/framework/{graph,function,node_def,
attr_value,tensor}.proto; what a fed tensor cuts off: core/graph/subgraph.cc; by which name a state goes:
core/framework/resource_mgr.cc, and for VarHandleOp core/kernels/resource_variable_ops.cc.

Nodes are kept as numbers. Methods raise WireError where a graph is malformed or beyond the limits.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from functools import reduce
from typing import Container, Dict, Iterable, Iterator, List, NamedTuple, Tuple, Union

from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.protobuf_wire import (
    Range,
    WireError,
    WireReader,
    delimited,
    read_varint,
    varint,
)
from ansible_collections.modelops.tensorflow_serving.plugins.module_utils._saved_model.tensor_types import (
    DTYPES,
    dtype_name,
    read_shape,
)

# Of a graph and of those of its functions that are looked into, together.
MAX_NODE_NAMES = 1_000_000
MAX_NODE_NAME_BYTES = 1 << 27
MAX_EDGES = 10_000_000
MAX_STEPS = 30_000_000  # along edges, in all walks
MAX_NESTED_CALLS = 100

Tensor = Tuple[int, int]  # number of a node, and which of its outputs; -1 for its end, which a control input waits for

_NODE, _LIBRARY = delimited(1), delimited(2)  # GraphDef
_FUNCTION = delimited(1)  # FunctionDefLibrary
_SIGNATURE, _FUNCTION_NODE, _RESULT, _CONTROL_RESULT = delimited(1), delimited(3), delimited(4), delimited(6)
_OP_NAME, _ARGUMENT = delimited(1), delimited(2)  # OpDef
_ARGUMENT_NAME, _ARGUMENT_TYPE = delimited(1), varint(3)  # ArgDef
_NODE_NAME, _NODE_OP, _NODE_INPUT, _NODE_ATTRIBUTE = delimited(1), delimited(2), delimited(3), delimited(5)
_KEY, _VALUE = delimited(1), delimited(2)  # an entry of a map
_LIST, _STRING, _SHAPE, _TENSOR, _CALLED = (delimited(number) for number in (1, 2, 7, 8, 10))  # AttrValue
_LISTED_TYPES, _LISTED_CALLED = delimited(6), delimited(9)  # AttrValue.ListValue
_CALLED_NAME = delimited(1)  # NameAttrList
_STRINGS = delimited(8)  # TensorProto
_DT_RESOURCE = DTYPES.index("resource")


def _by_op(**ops: str) -> dict[bytes, str]:
    """Return {op: word} from the ops of each word."""
    return {op.encode(): word.replace("_", " ") for word, names in ops.items() for op in names.split()}


# What the node of an op stands for. Whatever takes the value of a reference, TensorFlow 1's variable, reads it.
_STATES = _by_op(
    variable="VarHandleOp",
    reference="Variable VariableV2",
    lookup_table="HashTable HashTableV2",
    iterator="Iterator IteratorV2",
)
# What one does with the state whose handle it takes, a reference as its first input. Of others that is not known.
_USES = _by_op(
    reads="""
        ReadVariableOp ResourceGather ResourceGatherNd VariableShape AssignAddVariableOp AssignSubVariableOp
        LookupTableFind LookupTableFindV2 LookupTableSize LookupTableSizeV2 LookupTableExport LookupTableExportV2
        IteratorGetNext IteratorGetNextSync IteratorGetNextAsOptional""",
    sets="""
        Assign AssignVariableOp LookupTableImport LookupTableImportV2 InitializeTable InitializeTableV2
        InitializeTableFromTextFile InitializeTableFromTextFileV2 InitializeTableFromDataset MakeIterator
        DeserializeIterator""",
    neither="VarIsInitializedOp IsVariableInitialized DestroyResourceOp DisableCopyOnRead IteratorToStringHandle",
)
# What hands on a handle or a value as it is, and what hands on a reference.
_PASSING = set(_by_op(passes="Identity IdentityN Switch Merge Enter Exit NextIteration"))
_PASSING_REFERENCES = set(_by_op(passes="RefIdentity RefSwitch RefMerge RefEnter RefExit RefNextIteration"))
_FOLLOWED = {*_PASSING, *_PASSING_REFERENCES, b"ReadVariableOp"}
# TensorFlow 1's branches, and the inputs by which a loop's Merge and Switch are told from them.
_MERGES, _SWITCHES = {b"Merge", b"RefMerge"}, {b"Switch", b"RefSwitch"}
_LOOPING = {b"NextIteration", b"RefNextIteration", b"LoopCond"}
_BRANCHES = {b"If", b"StatelessIf", b"Case", b"StatelessCase"}
_CALLED_BY = {  # {op: attributes that name functions}
    b"PartitionedCall": [b"f"],
    b"StatefulPartitionedCall": [b"f"],
    b"While": [b"cond", b"body"],
    b"StatelessWhile": [b"cond", b"body"],
    b"If": [b"then_branch", b"else_branch"],
    b"StatelessIf": [b"then_branch", b"else_branch"],
    b"Case": [b"branches"],
    b"StatelessCase": [b"branches"],
}
_PLACEHOLDERS = {b"Placeholder", b"PlaceholderV2"}
_STATELESS = {*_PLACEHOLDERS, b"Const", b"NoOp"}

NEVER, SOMETIMES, ALWAYS = 0, 1, 2


class State(NamedTuple):
    """A variable, a lookup table or an iterator. Handles of one kind and name are handles of one state."""

    kind: str
    name: str

    def __str__(self) -> str:
        name = self.name or "(without a name)"
        return name if self.kind in ("variable", "reference") else f"{self.kind} {name}"


class Saved(NamedTuple):
    """A tensor that is read from variables/, and its dtype; slice is empty for all of it."""

    name: str
    slice: str
    dtype: str


class Effect(NamedTuple):
    """Whether a node, a function or a run reads a state before it sets it, and whether it sets it.

    takes says whether it does what is not known. saved is what it sets the state to, where that is known.
    """

    reads: int = NEVER
    sets: int = NEVER
    takes: int = NEVER
    saved: Saved | None = None

    def beside(self, other: Effect) -> Effect:
        """Return the effect of both, in no order."""
        levels = max(self.reads, other.reads), max(self.sets, other.sets), max(self.takes, other.takes)
        return Effect(*levels, saved=self.saved or other.saved)

    def then(self, other: Effect) -> Effect:
        """Return the effect of both, the other one after this."""
        unset = ALWAYS - self.sets
        return self.beside(other._replace(reads=min(other.reads, unset), takes=min(other.takes, unset)))


def either(effects: list[Effect]) -> Effect:
    """Return the effect of one of these, as of the branches of a condition."""

    def level(levels: list[int]) -> int:
        return max(min(levels), min(max(levels), SOMETIMES))

    reads, sets, takes, saved = map(list, zip(*effects))
    return Effect(level(reads), level(sets), level(takes), saved[0])


_READS, _TAKES = Effect(reads=ALWAYS), Effect(takes=ALWAYS)
_EFFECTS = {"reads": _READS, "sets": Effect(sets=ALWAYS), "neither": Effect()}

Effects = Dict[Union[State, int], Effect]  # by state, or by the number of a function's argument that is its handle
Users = Dict[int, List[Tuple[int, int]]]  # {node: [(another, number of its input that is an output of the node)]}


@dataclass
class Limits:
    """What may still be read and walked."""

    names: int
    name_bytes: int
    edges: int
    steps: int


class Graph:
    """The nodes of a graph, or of a function's body.

    A name gets its number where it is first seen, as a node or as an input.
    """

    def __init__(self, reader: WireReader, messages: list[Range]) -> None:
        """Read a GraphDef that is given in one piece or several."""
        limits = Limits(MAX_NODE_NAMES, MAX_NODE_NAME_BYTES, MAX_EDGES, MAX_STEPS)
        libraries = [one for message in messages for one in reader.parts(message, _LIBRARY)]
        self._set_up(reader, limits, Functions(reader, libraries, limits))
        for message in messages:
            for node in reader.parts(message, _NODE):
                self._add_node(node)

    def _set_up(self, reader: WireReader, limits: Limits, functions: Functions) -> None:
        self._reader, self._limits, self.functions = reader, limits, functions
        self._numbers: dict[bytes, int] = {}
        self._ops: dict[bytes, int] = {}
        self._op_names = [b""]  # the first one is that of an argument, and of a name that no node has
        # Of each node: its op, the range of its message, and where its inputs are in _edges and _outputs.
        self._op, self._start, self._end = array("i"), array("q"), array("q")
        self._first, self._last = array("i"), array("i")
        self._edges, self._outputs = array("i"), array("i")
        self.states: dict[int, State | int] = {}
        self._turns: set[int] = set()  # nodes at which a branch begins or ends
        self._calls: dict[int, list[bytes]] = {}
        self._saved: dict[int, list[Saved]] = {}
        self.is_function = False
        self.targets: list[bytes] = []  # of a function: what it returns, and what it has to run besides

    @classmethod
    def of_function(cls, reader: WireReader, message: Range, limits: Limits, functions: Functions) -> Graph:
        """Read a FunctionDef. Its states are its arguments, by their numbers, besides those of its own."""
        self = cls.__new__(cls)
        self._set_up(reader, limits, functions)
        self.is_function = True
        results: list[bytes] = []
        controls: list[bytes] = []
        for tag, start, end in reader.fields(*message):
            if tag == _SIGNATURE:
                for number, argument in enumerate(reader.parts((start, end), _ARGUMENT)):
                    self._add_argument(number, argument)
            elif tag == _FUNCTION_NODE:
                self._add_node((start, end))
            elif tag in (_RESULT, _CONTROL_RESULT):
                for value in reader.parts((start, end), _VALUE):
                    (results if tag == _RESULT else controls).append(reader.content(*value))
        # Without any, as TensorFlow 1 writes them, everything runs.
        self.targets = results + [b"^" + name for name in controls or self._numbers]
        return self

    def _add_argument(self, number: int, message: Range) -> None:
        name, kind = b"", 0
        for tag, first, end in self._reader.fields(*message):
            if tag == _ARGUMENT_NAME:
                name = self._reader.content(first, end)
            elif tag == _ARGUMENT_TYPE:
                kind = first
        node = self._number(name)
        if kind == _DT_RESOURCE:
            self.states[node] = number

    def _add_node(self, message: Range) -> None:
        name = op = b""
        first = len(self._edges)
        for tag, start, end in self._reader.fields(*message):
            if tag == _NODE_INPUT:
                other, output = self._tensor(self._reader.content(start, end))
                self._edges.append(other)
                self._outputs.append(output)
                if len(self._edges) - first > self._limits.edges:
                    raise WireError(f"more than {MAX_EDGES} inputs of nodes")
            elif tag == _NODE_NAME:
                name = self._reader.content(start, end)
            elif tag == _NODE_OP:
                op = self._reader.content(start, end)
        node = self._number(name)
        if not name or self._op[node]:
            raise WireError("a node has no name" if not name else f"two nodes have the name {name!r}")
        if op not in self._ops:
            self._ops[op] = len(self._op_names)
            self._op_names.append(op)
        self._op[node] = self._ops[op]
        self._start[node], self._end[node] = message
        self._first[node], self._last[node] = first, len(self._edges)
        self._limits.edges -= self._last[node] - first
        if op in _MERGES or op in _SWITCHES:
            self._turns.add(node)
        elif op in _STATES:
            self.states[node] = State(_STATES[op], self._state_name(node, name, op))

    def _state_name(self, node: int, name: bytes, op: bytes) -> str:
        """Return the name by which kernels find a state. A VarHandleOp without one does not go by its node's."""
        given = self._attribute(node, b"shared_name")
        for text in self._reader.parts(given, _STRING):
            if text[0] < text[1]:
                return self._reader.content(*text).decode(errors="replace")
        return "" if op == b"VarHandleOp" else name.decode(errors="replace")

    def _number(self, name: bytes) -> int:
        number = self._numbers.get(name)
        if number is None:
            number = self._numbers[name] = len(self._op)
            for column in (self._op, self._start, self._end, self._first, self._last):
                column.append(0)
            self._limits.names -= 1
            self._limits.name_bytes -= len(name)
            if min(self._limits.names, self._limits.name_bytes) < 0:
                raise WireError(f"more than {MAX_NODE_NAMES} nodes, or more than {MAX_NODE_NAME_BYTES} bytes of names")
        return number

    def _tensor(self, text: bytes) -> Tensor:
        """Return node:1, ^node or, in a function, node:output:1. Ops with several named outputs are not told apart."""
        if text.startswith(b"^"):
            return self._number(text[1:]), -1
        name, _, output = text.partition(b":")
        output = output.rpartition(b":")[2]
        return self._number(name), int(output) if output.isdigit() and len(output) < 9 else 0

    # Looks at a node

    def op(self, node: int) -> bytes:
        """Return a node's op, nothing for an argument or a name that no node has."""
        return self._op_names[self._op[node]]

    def is_state(self, node: int) -> bool:
        """Say whether a node comes from nothing and is no constant: it stands for something that the session has."""
        is_from_nothing = self._op[node] > 0 and self._first[node] == self._last[node]
        return is_from_nothing and self.op(node) not in _STATELESS

    def ops(self) -> set[bytes]:
        """Return the ops of all nodes."""
        return set(self._ops)

    @property
    def size(self) -> int:
        """The number of nodes and of other names."""
        return len(self._op)

    def count_step(self, node: int) -> None:
        """Count a look at all inputs of a node. Raises WireError at the limit."""
        self._limits.steps -= 1 + self._last[node] - self._first[node]
        if self._limits.steps < 0:
            raise WireError(f"its signatures depend on more than {MAX_STEPS} nodes, counted once for each signature")

    def branches_behind(self, node: int) -> int:
        """Return 1 for a node whose inputs are in a branch that it ends, -1 for one that begins one, else 0."""
        if node not in self._turns or any(self.op(other) in _LOOPING for other, _ in self.inputs(node)):
            return 0
        return 1 if self.op(node) in _MERGES else -1

    def inputs(self, node: int) -> Iterator[Tensor]:
        """Return the inputs of a node, those first that are no control inputs."""
        first, last = self._first[node], self._last[node]
        return zip(self._edges[first:last], self._outputs[first:last])

    def _attribute(self, node: int, name: bytes) -> Range:
        """Return where the value of an attribute is, an empty range where the node has none of this name."""
        for entry in self._reader.parts((self._start[node], self._end[node]), _NODE_ATTRIBUTE):
            key, value = b"", (0, 0)
            for tag, first, end in self._reader.fields(*entry):
                if tag == _KEY:
                    key = self._reader.content(first, end)
                elif tag == _VALUE:
                    value = (first, end)
            if key == name:
                return value
        return (0, 0)

    def shape_of(self, node: int) -> list[int] | None:
        """Return the shape of a variable, None where its rank is unknown."""
        for value in self._reader.parts(self._attribute(node, b"shape"), _SHAPE):
            return read_shape(self._reader, value)
        return None

    def _called(self, node: int, attribute: bytes) -> list[bytes]:
        """Return the functions that an attribute names."""
        value = self._attribute(node, attribute)
        lists = self._reader.parts(value, _LIST)
        ranges = [*self._reader.parts(value, _CALLED)]
        ranges += (one for part in lists for one in self._reader.parts(part, _LISTED_CALLED))
        return [self._reader.content(*name) for one in ranges for name in self._reader.parts(one, _CALLED_NAME)]

    def calls(self, node: int) -> list[bytes]:
        """Return the functions that a node calls."""
        op = self.op(node)
        if op in self.functions:
            return [op]
        if op not in _CALLED_BY:
            return []
        if node not in self._calls:
            self._calls[node] = [name for attribute in _CALLED_BY[op] for name in self._called(node, attribute)]
        return self._calls[node]

    def saved(self, node: int) -> list[Saved]:
        """Return what a RestoreV2 reads, nothing where the graph has its names from elsewhere."""
        if node not in self._saved:
            names, slices, dtypes = self._strings(node, 1), self._strings(node, 2), self._listed_dtypes(node)
            same = len(names) == len(slices) == len(dtypes)
            self._saved[node] = [Saved(*facts) for facts in zip(names, slices, dtypes)] if same else []
        return self._saved[node]

    def _listed_dtypes(self, node: int) -> list[str]:
        return [
            dtype_name(number)
            for part in self._reader.parts(self._attribute(node, b"dtypes"), _LIST)
            for packed in self._reader.parts(part, _LISTED_TYPES)
            for number in _numbers(self._reader.content(*packed))
        ]

    def _strings(self, node: int, number: int) -> list[str]:
        """Return the texts that an input of a node holds, nothing where that is no constant."""
        constants = [other for other, _ in self.inputs(node)][number : number + 1]
        values = (value for one in constants for value in self._reader.parts(self._attribute(one, b"value"), _TENSOR))
        texts = (text for value in values for text in self._reader.parts(value, _STRINGS))
        return [self._reader.content(*text).decode(errors="replace") for text in texts]

    # What runs

    def run(self, targets: Iterable[bytes] | None = None, fed: Iterable[bytes] = ()) -> Run:
        """Return what runs for these tensors, by default those of a function, while the values of others are given."""
        names = self.targets if targets is None else targets
        return Run(self, [self._tensor(one) for one in names], {self._tensor(one) for one in fed})

    def effects(self, run: Run, ready: Container[State | int] = ()) -> Effects:
        """Return what a run does to each state that is not ready before it."""
        handles: dict[State | int, list[int]] = {}
        for node, state in self.states.items():
            if run.has(node) and state not in ready:
                handles.setdefault(state, []).append(node)
        users = run.users() if handles else {}
        return {state: self._effect_on(state, nodes, run, users) for state, nodes in handles.items()}

    def _effect_on(self, state: State | int, handles: list[int], run: Run, users: Users) -> Effect:
        is_reference = isinstance(state, State) and state.kind == "reference"
        passing, other = (_PASSING_REFERENCES, _READS) if is_reference else (_PASSING, _TAKES)
        found: dict[int, Effect] = {}
        reached = dict.fromkeys(handles)
        waiting = list(reached)
        for node in waiting:  # grows meanwhile
            if node in run.targets and not self.is_function:
                found[node] = other
            for user, number in users.get(node, ()):
                if self.op(user) not in passing:
                    effect = self._effect(user, number, run, users, other)
                    found[user] = found.get(user, Effect()).then(effect)
                elif user not in reached:
                    reached[user] = None
                    waiting.append(user)
        setters = {node: effect.sets for node, effect in found.items() if effect.sets}
        total = Effect()
        for node, effect in found.items():
            before = run.before(node) if setters and (effect.reads or effect.takes) else set()
            sets = [often for setter, often in setters.items() if setter in before]
            total = total.beside(Effect(sets=max(sets, default=NEVER)).then(effect))
        return total

    def _effect(self, node: int, number: int, run: Run, users: Users, other: Effect) -> Effect:
        """Return what a node does with the state whose handle is its input of this number; other is for what it may."""
        op, called = self.op(node), self.calls(node)
        if called:
            effects = [self.functions.effect(name, number - (op in _BRANCHES)) for name in called]
            effect = either(effects) if op in _BRANCHES else reduce(Effect.then, effects)
        elif op == b"ReadVariableOp" and self.is_function and node not in users and node not in run.targets:
            effect = Effect()  # nobody takes the value, and the optimizer drops it
        else:
            effect = _EFFECTS[_USES[op]] if op in _USES and (number == 0 or other is _TAKES) else other
            if effect.sets:
                effect = effect._replace(saved=self._saved_into(node))
        if run.is_in_branch(node):
            effect = either([effect, Effect()])
        return effect

    def _saved_into(self, node: int) -> Saved | None:
        """Return what of variables/ an assignment assigns."""
        tensors = list(self.inputs(node))[1:2]
        for other, output in tensors:
            if self.op(other) == b"Identity" and len(tensors) < MAX_NESTED_CALLS:
                tensors += list(self.inputs(other))[:1]
            elif self.op(other) == b"RestoreV2":
                saved = self.saved(other)
                return saved[output] if output < len(saved) else None
        return None

    def all_saved(self, run: Run) -> list[Saved]:
        """Return what a run reads of variables/, in the functions that it calls, too."""
        found = []
        names: set[bytes] = set()
        waiting = [(self, run)]
        for graph, part in waiting:  # grows meanwhile
            for node in part.nodes:
                if graph.op(node) == b"RestoreV2":
                    found += graph.saved(node)
                for name in graph.calls(node):
                    body = self.functions.graph(name)
                    if body and name not in names:
                        names.add(name)
                        waiting.append((body, body.run()))
        return found


class Run:
    """The nodes of a graph that run for some tensors, while others are fed.

    A node in a branch that may not be taken is known as that, in TensorFlow 1's form, where a Merge ends what a Switch
    begins. What a loop repeats counts as run.
    """

    def __init__(self, graph: Graph, targets: list[Tensor], fed: set[Tensor]) -> None:
        self._graph, self._fed = graph, fed
        self._fed_placeholders = {node for node, _ in fed if graph.op(node) in _PLACEHOLDERS}
        self.targets = {node for node, output in targets if output >= 0}
        # How many branches a node is in, -1 for one that does not run.
        self._depth = array("i", [-1]) * graph.size
        self.nodes: list[int] = []
        self._walk([tensor for tensor in targets if tensor not in fed])

    def _walk(self, tensors: list[Tensor]) -> None:
        depth, waiting = self._depth, []
        for node, _ in tensors:
            if depth[node] < 0:
                depth[node] = 0
                waiting.append(node)
        for node in waiting:  # grows meanwhile
            inside = max(0, depth[node] + self._graph.branches_behind(node))
            for _, other, _ in self._inputs(node):
                if not 0 <= depth[other] <= inside:
                    depth[other] = inside
                    waiting.append(other)
        self.nodes = list(dict.fromkeys(waiting))

    def _inputs(self, node: int) -> Iterator[tuple[int, int, int]]:
        """Yield (number of the input, node, its output) for the inputs that are not fed."""
        self._graph.count_step(node)
        for number, (other, output) in enumerate(self._graph.inputs(node)):
            if (other, output) not in self._fed and not (output < 0 and other in self._fed_placeholders):
                yield number, other, output

    def has(self, node: int) -> bool:
        return self._depth[node] >= 0

    def is_in_branch(self, node: int) -> bool:
        return self._depth[node] > 0

    def before(self, node: int) -> set[int]:
        """Return the nodes that run before this one."""
        found: set[int] = set()
        waiting = [node]
        for one in waiting:  # grows meanwhile
            for _, other, _ in self._inputs(one):
                if other not in found:
                    found.add(other)
                    waiting.append(other)
        return found

    def users(self) -> Users:
        """Return who takes the values of handles, and of what hands them on, and as which of its inputs."""
        users: Users = {}
        for node in self.nodes:
            for number, other, output in self._inputs(node):
                if output >= 0 and (other in self._graph.states or self._graph.op(other) in _FOLLOWED):
                    users.setdefault(other, []).append((node, number))
        return users


class Functions:
    """The functions of a graph, each read when it is asked for."""

    def __init__(self, reader: WireReader, libraries: list[Range], limits: Limits) -> None:
        self._reader, self._limits = reader, limits
        self._ranges: dict[bytes, Range] = {}
        for library in libraries:
            for function in reader.parts(library, _FUNCTION):
                for signature in reader.parts(function, _SIGNATURE):
                    for name in reader.parts(signature, _OP_NAME):
                        self._ranges[reader.content(*name)] = function
                        break
                    break
                if len(self._ranges) > MAX_NODE_NAMES:
                    raise WireError(f"more than {MAX_NODE_NAMES} functions")
        self._graphs: dict[bytes, Graph] = {}
        self._effects: dict[bytes, Effects] = {}
        self._nested = 0

    def __contains__(self, name: bytes) -> bool:
        return name in self._ranges

    def graph(self, name: bytes) -> Graph | None:
        """Return the body of a function, None where there is none of this name."""
        if name in self._ranges and name not in self._graphs:
            self._graphs[name] = Graph.of_function(self._reader, self._ranges[name], self._limits, self)
        return self._graphs.get(name)

    def effect(self, name: bytes, argument: int) -> Effect:
        """Return what a function does with the state whose handle is this argument."""
        if name not in self._effects:
            body = self.graph(name) if self._nested < MAX_NESTED_CALLS else None
            if body is None:
                return _TAKES
            self._effects[name] = {}  # what it does by calling itself is what it does
            self._nested += 1
            self._effects[name] = body.effects(body.run())
            self._nested -= 1
        return self._effects[name].get(argument, Effect())


def _numbers(packed: bytes) -> list[int]:
    numbers, position = [], 0
    while position < len(packed):
        number, position = read_varint(packed, position)
        numbers.append(number)
    return numbers
