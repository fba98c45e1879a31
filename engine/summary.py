"""The table of a model's layers."""
import math

from engine.layers.composite import Composite


def summary_text(model, network):
    """Layer, output shape, weights, one line each; composite layers with their chains drawn as trees."""
    own, frozen = {}, set()
    for w in network.weights:
        own[w.layer.name] = own.get(w.layer.name, 0) + math.prod(w.weight.shape)
        if not w.trainable and w.weight.trainable:
            frozen.add(w.layer.name)
    lines = [("layer (class)", "output", "weights")]
    for before, layer in _drawn(model.layers, network):
        if isinstance(layer, str):           # the title of a branch
            lines.append((before + layer, "", ""))
            continue
        shape = network.shapes[layer.name][1]
        name = layer.name.rsplit("/", 1)[-1]
        lines.append((f"{before}{name} ({type(layer).__name__})", f"(n{''.join(f', {s}' for s in shape)})",
                      f"{own.get(layer.name, 0):,}{' frozen' if layer.name in frozen else ''}"))
    widths = [max(len(line[i]) for line in lines) for i in range(3)]
    rule = "-" * (sum(widths) + 4)
    rows = [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {c:>{widths[2]}}".rstrip() for a, b, c in lines]
    return "\n".join([model.name, rule, rows[0], rule, *rows[1:], rule, _foot(model, network)])


def _foot(model, network):
    total, trained = network.count(), network.count(True)
    frozen = sum(math.prod(w.weight.shape) for w in network.weights if w.weight.trainable and not w.trainable)
    kept = total - trained - frozen
    parts = [f"{trained:,} trained", f"{frozen:,} frozen"] + ([f"{kept:,} running statistics"] if kept else [])
    return (f"{total:,} weights ({_bytes(total * model.dtype.itemsize)}): {', '.join(parts)}; {model.dtype.name} on "
            f"{model.target.name}")


def _drawn(layers, network):
    """Pairs (what stands before the name, layer or title of a branch), depth first."""
    for layer in layers:
        yield "", layer
        yield from _inside(layer, "", network)


def _inside(layer, before, network):
    if isinstance(layer, Composite):
        chains = layer.chains()
    else:
        chains = [("", [sub for sub, _ in layer.sublayers(network.shapes[layer.name][0])])]
    entries = chains if len(chains) > 1 else [(sub, None) for _, chain in chains for sub in chain]
    for number, (entry, chain) in enumerate(entries):
        last = number == len(entries) - 1
        branch, under = before + ("└─ " if last else "├─ "), before + ("   " if last else "│  ")
        yield branch, entry
        if chain is None:
            yield from _inside(entry, under, network)
            continue
        for place, sub in enumerate(chain):
            end = place == len(chain) - 1
            yield under + ("└─ " if end else "├─ "), sub
            yield from _inside(sub, under + ("   " if end else "│  "), network)


def _bytes(size):
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return ""
