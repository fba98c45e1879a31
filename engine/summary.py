"""The table of a model's layers."""
import math


def summary_text(model):
    """Layer, output shape, weights, one line each; composite layers with their insides indented."""
    lines = [("layer (class)", "output", "weights")]
    own = {}
    for w in model.network.weights:
        own[w.layer.name] = own.get(w.layer.name, 0) + math.prod(w.weight.shape)
    for depth, layer, out in _walk(model):
        name = layer.name.rsplit("/", 1)[-1]
        lines.append((f"{'  ' * depth}{name} ({type(layer).__name__})", f"(n{''.join(f', {s}' for s in out)})",
                      f"{own.get(layer.name, 0):,}"))
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    rule = "-" * (sum(widths) + 4)
    rows = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}" for a, b, c in lines]
    total, trained = model.count_params(), model.count_params(trainable=True)
    size = total * model.dtype.itemsize
    foot = f"{total:,} weights ({_bytes(size)}), {trained:,} trained; {model.dtype.name} on {model.target.name}"
    return "\n".join([f"{model.name}", rule, rows[0], rule, *rows[1:], rule, foot])


def _walk(model):
    def inside(layer, shape, depth):
        yield depth, layer, model.network.shapes[layer.name][1]
        for sub, given in layer.sublayers(shape):
            yield from inside(sub, given, depth + 1)
    for layer in model.layers:
        yield from inside(layer, model.network.shapes[layer.name][0], 0)


def _bytes(size):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return ""
