"""Pass: ops value by value that alone use each other's results become one node, one pass over memory (horizontal and
vertical fusion of maps). `mul(silu(x), y)` is one call instead of two, and silu(x) is never written.

An op is taken into the one behind it when
- its record has a `formula`, and its inputs and output are all of one shape;
- nobody else uses its result, and it is no output and has no place in another value's memory;
- the whole has at most four inputs (`kernels.fused`) and LONGEST ops;
- no parameter or state is updated in between: it would be computed later, from other numbers.
"""
from dataclasses import dataclass

from engine.graph.graph import Node
from engine.kernels.fused import FUSED, Fusion, Step
from engine.kernels.op import FLOATS

LONGEST = 12                                 # ops of one node: longer ones would run out of registers


@dataclass
class _Chain:
    """What `node`, the last one, computes from `inputs`, and the nodes before it that it takes in."""
    step: Step
    inputs: list
    numbers: list
    updates: int                             # so many nodes before it update something
    nodes: list
    node: Node


def fuse_elementwise(graph):
    """A graph with chains and trees of elementwise nodes fused; works for both targets, before a plan is made."""
    kept = graph.kept()
    alone = {value for value, users in graph.users().items() if len(users) == 1 and value not in kept}
    chains, taken, updates = {}, set(), 0
    for node in graph.nodes:
        chain = _chain(node, {v: c for v, c in ((v, chains.get(v)) for v in node.inputs)
                              if c is not None and v in alone and c.updates == updates}, updates)
        if chain is not None:
            chains[node.outputs[0]] = chain
            taken.update(chain.nodes)
        updates += bool(node.op.updates)
    return graph.with_nodes(_fused(node, chains) for node in graph.nodes if node not in taken)


def _chain(node, before, updates):
    """The chain that ends in a node, or None where it cannot be part of one; `before`: chains that it may take in."""
    out = node.outputs[0] if len(node.outputs) == 1 else None
    if node.op.formula is None or out is None or out.dtype not in FLOATS or any(
            v.shape != out.shape or v.dtype != out.dtype for v in node.inputs):
        return None
    formula, own = node.op.formula(node.attributes)
    inputs, numbers, nodes, arguments, length = [], list(own), [], [], 1
    for place, value in enumerate(node.inputs):
        chain = before.get(value)
        rest = len(set(node.inputs[place + 1:]) - set(inputs))
        if chain is not None and (len({*inputs, *chain.inputs}) + rest > len(FUSED)
                                  or length + len(chain.step) > LONGEST):
            chain = None
        if chain is None:
            arguments.append(_place(inputs, value))
            continue
        arguments.append(_moved(chain.step, [_place(inputs, v) for v in chain.inputs], len(numbers)))
        numbers += chain.numbers
        nodes += [*chain.nodes, chain.node]
        length += len(chain.step)
    step = Step(node.op.name, formula, tuple(arguments), tuple(range(len(own))))
    return _Chain(step, inputs, numbers, updates, nodes, node)


def _place(inputs, value):
    """Which input the value is; a new one where it is none yet."""
    if value not in inputs:
        inputs.append(value)
    return inputs.index(value)


def _moved(step, places, first):
    """A step whose inputs have other places, and whose numbers stand behind `first` others."""
    return Step(step.name, step.formula,
                tuple(places[a] if isinstance(a, int) else _moved(a, places, first) for a in step.arguments),
                tuple(first + k for k in step.numbers))


def _fused(node, chains):
    chain = chains.get(node.outputs[0]) if node.outputs else None
    if chain is None or not chain.nodes:
        return node
    of = Fusion(chain.step, len(chain.inputs), len(chain.numbers))
    return Node(FUSED[of.inputs - 1], tuple(chain.inputs), node.outputs,
                {"of": of, "numbers": tuple(float(n) for n in chain.numbers)}, node.label)
