"""Graphs and plans: names, shapes, gradients, memory by liveness, in-place maps, parts, runs of many rounds."""
import numpy as np
import pytest

from engine import target as targets
from engine.errors import EngineError, ShapeError, UnknownName
from engine.graph import Graph, gradients
from engine.kernels import TABLE
from engine.runtime import Plan, memory

RNG = np.random.default_rng(5)


def chain(length, size=100, outputs=()):
    """x -> tanh -> tanh ... ; returns (graph, values)."""
    g = Graph()
    values = [g.feed("x", (size,), "float64")]
    for _ in range(length):
        values.append(g.add("tanh", values[-1]))
    g.outputs["y"] = values[-1]
    for place in outputs:
        g.outputs[f"h{place}"] = values[place]
    return g, values


def test_a_chain_runs_in_place_and_does_not_touch_its_feed():
    g, _ = chain(5)
    plan = Plan(g, targets.cpu)
    x = RNG.standard_normal(100)
    plan.run(x=x)
    want = x
    for _ in range(5):
        want = np.tanh(want)
    np.testing.assert_allclose(plan.fetch("y"), want, rtol=1e-13)
    np.testing.assert_array_equal(plan.fetch("x"), x)
    assert plan.arena_bytes <= 2 * 832, "a chain of maps needs one buffer"


def test_an_output_in_the_middle_survives():
    g, _ = chain(6, outputs=(1, 3))
    plan = Plan(g, targets.cpu)
    x = RNG.standard_normal(100)
    plan.run(x=x)
    np.testing.assert_allclose(plan.fetch("h1"), np.tanh(x), rtol=1e-13)
    np.testing.assert_allclose(plan.fetch("h3"), np.tanh(np.tanh(np.tanh(x))), rtol=1e-13)


def random_graph(seed, nodes=60):
    """A random graph of maps and products on square matrices, and its value in NumPy."""
    rng = np.random.default_rng(seed)
    g, n = Graph(), 9
    values, truth = [g.feed("x", (n, n), "float64")], [rng.standard_normal((n, n))]
    start = truth[0]
    for _ in range(nodes):
        i, j = rng.integers(len(values), size=2)
        op = ["tanh", "relu", "matmul", "sigmoid"][rng.integers(4)]
        inputs = (i, j) if op == "matmul" else (i,)
        values.append(g.add(op, *(values[k] for k in inputs)))
        truth.append(np.tanh(TABLE[op].reference(*(truth[k] for k in inputs))) if op == "matmul"
                     else TABLE[op].reference(truth[i]))
        if op == "matmul":
            values[-1] = g.add("tanh", values[-1])
    for k in rng.choice(len(values), 5, replace=False):
        g.outputs[f"v{k}"] = values[k]
    return g, start, {f"v{k}": truth[k] for k in range(len(values)) if f"v{k}" in g.outputs}


@pytest.mark.parametrize("seed", range(12))
def test_memory_shared_by_liveness_changes_no_result(seed):
    g, x, truth = random_graph(seed)
    plan = Plan(g, targets.cpu)
    for _ in range(2):                       # the second run starts from a dirty arena
        plan.run(x=x)
        for name, want in truth.items():
            np.testing.assert_allclose(plan.fetch(name), want, rtol=1e-11, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("seed", range(8))
def test_pack_never_overlaps_two_that_live_together(seed):
    rng = np.random.default_rng(seed)
    spans = {k: tuple(sorted(rng.integers(0, 50, 2).tolist())) for k in range(80)}
    sizes = {k: int(rng.integers(0, 5000)) for k in spans}
    offsets, end = memory.pack(spans, sizes)
    for a in spans:
        assert offsets[a] % 64 == 0 and offsets[a] + sizes[a] <= end
        for b in spans:
            if a < b and sizes[a] and sizes[b] and spans[a][0] <= spans[b][1] and spans[b][0] <= spans[a][1]:
                assert offsets[a] + sizes[a] <= offsets[b] or offsets[b] + sizes[b] <= offsets[a], (a, b)
    live = max(sum(sizes[k] for k, (s, e) in spans.items() if s <= t <= e) for t in range(50))
    assert end <= 1.4 * live, "the arena wastes memory"


def test_scratch_is_one_place_and_much_of_it_lies_in_the_arena(monkeypatch):
    """Products of transposed matrices, which need scratch: a plan has what one call needs at most, and with little room
    for it apart lends it memory that no value needs then."""
    def plan_of_products():
        g = Graph()
        x = y = g.feed("x", (250, 250), "float64")
        for ways in ((False, True), (True, False), (True, True)):
            y = g.add("matmul", y, x, transpose_a=ways[0], transpose_b=ways[1])
        g.outputs["y"] = y
        return Plan(g, targets.cpu)

    feeds = {"x": RNG.standard_normal((250, 250))}
    apart = plan_of_products()
    apart.run(**feeds)
    needs = [sum(memory.rounded(a.nbytes) for a in call.scratch) for _, call in apart.calls]
    assert max(needs) > 0 and apart.bytes == apart.arena_bytes + max(needs)
    monkeypatch.setattr("engine.runtime.plan.HOT", 0)
    inside = plan_of_products()
    for _ in range(2):
        inside.run(**feeds)
        np.testing.assert_array_equal(inside.fetch("y"), apart.fetch("y"))
    assert apart.arena_bytes < inside.bytes <= apart.arena_bytes + max(needs)


def test_parts_live_inside_their_flat_value():
    g = Graph()
    flat = g.state("flat", (20,), "float64")
    a, b = g.parameter("a", (2, 3), "float64"), g.parameter("b", (4,), "float64")
    g.place(a, flat, 8)
    g.place(b, flat, 16)
    y = g.add("tanh", a)
    g.outputs["y"] = y
    given = np.arange(20.0)
    plan = Plan(g, targets.cpu, {"flat": given})
    np.testing.assert_array_equal(plan.array("a"), given[8:14].reshape(2, 3))
    plan.run()
    np.testing.assert_allclose(plan.fetch("y"), np.tanh(given[8:14].reshape(2, 3)))
    with pytest.raises(EngineError, match="does not fit"):
        g.place(b, flat, 17)


def test_gradient_of_a_value_used_twice_sums():
    g = Graph()
    x = g.feed("x", (3, 3), "float64")
    y = g.add("matmul", x, x)
    (dx,) = gradients(g, {y: g.constant(np.ones((3, 3)))}, [x])
    g.outputs["dx"] = dx
    plan, a = Plan(g, targets.cpu), RNG.standard_normal((3, 3))
    plan.run(x=a)
    one = np.ones((3, 3))
    np.testing.assert_allclose(plan.fetch("dx"), one @ a.T + a.T @ one, rtol=1e-12)


def test_gradient_through_an_op_without_one_is_said():
    g = Graph()
    x = g.feed("x", (3,), "float64")
    y = g.add("step", x)
    with pytest.raises(EngineError, match="step has no gradient"):
        gradients(g, {y: g.constant(np.ones(3))}, [x])


def test_errors_name_the_layer_and_the_op():
    g = Graph()
    x = g.feed("x", (32, 28, 28), "float32")
    w, b = g.parameter("w", (784, 10), "float32"), g.parameter("b", (10,), "float32")
    with pytest.raises(ShapeError, match=r"dense_2: dense: expected x of shape \(n, 784\), got \(32, 28, 28\); "
                                         r"is a Flatten\(\) missing before it\?"):
        with g.scope("dense_2"):
            g.add("dense", x, w, b)
    with pytest.raises(UnknownName, match="did you mean 'matmul'"):
        g.add("matmull", x, w)
    with pytest.raises(UnknownName, match="unknown attribute 'trans'"):
        g.add("matmul", x, w, trans=True)
    with pytest.raises(EngineError, match="taken"):
        g.feed("x", (1,), "float32")
    with pytest.raises(EngineError, match="expected a value of this graph"):
        Graph().add("tanh", x)


def test_a_feed_of_the_wrong_shape_is_refused():
    g, _ = chain(1)
    plan = Plan(g, targets.cpu)
    with pytest.raises(ShapeError, match=r"feed x: expected shape \(100,\), got \(99,\)"):
        plan.run(x=np.zeros(99))
    with pytest.raises(UnknownName, match="unknown name 'z'"):
        plan.fetch("z")


def test_printed_graph_and_plan_say_what_runs():
    g, _ = chain(2)
    plan = Plan(g, targets.cpu)
    plan.run(x=np.zeros(100))
    assert "tanh" in str(g) and "feed x:float64[100]" in str(g)
    assert "2 calls" in str(plan) and "(100) -> (100)" in str(plan)
    plan.profile_run(3)
    assert "GFLOP/s" in str(plan) and "% of peak" in str(plan)


def test_a_profile_changes_nothing_and_sees_the_numbers_of_a_run():
    """Calls in place are repeated on what they were given; a counter is not ahead; weights are what they were."""
    g, size = Graph(), 4
    data, order = g.feed("data", (size, 3), "float64"), g.feed("order", (size,), "int64")
    position = g.state("position", (1,), "int64")
    x = g.add("take_batch", data, order, position, size=size)
    total = g.state("total", (), "float64")
    y = g.add("scale", g.add("scale", x, factor=1e-9), factor=1e-9)          # in place: again and again it would be 0
    g.outputs["y"] = g.add("scale", y, factor=1e18)
    g.add("accumulate", total, g.add("sum", y), weight=1.0)
    g.add("advance", position)
    plan = Plan(g, targets.cpu)
    given = RNG.standard_normal((size, 3))
    plan.feed("data", given)
    plan.feed("order", np.arange(size)[::-1].copy())
    for rounds in (1, 3):
        plan.profile_run(rounds)
        np.testing.assert_allclose(plan.fetch("y"), given[::-1], rtol=1e-12)
        assert plan.fetch("position")[0] == 0 and plan.fetch("total") == 0
