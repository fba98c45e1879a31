"""A model of the engine as a PyTorch module with the same weights: for comparisons, and for export to ONNX.

Covers the layers that engine.zoo uses. Images are (n, channels, rows, columns) there.
"""
import torch
from torch import nn
from torch.nn import functional as F

from engine import layers as ours
from engine.layers.composite import Composite

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}


class Add(nn.Module):
    """Residual."""

    def __init__(self, main, shortcut, after):
        super().__init__()
        self.main, self.shortcut, self.after = main, shortcut, after

    def forward(self, x):
        return self.after(self.main(x) + self.shortcut(x))


class Cat(nn.Module):
    """Concat."""

    def __init__(self, branches):
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], 1)


class Sub(nn.Module):
    """Subsample."""

    def __init__(self, step, more):
        super().__init__()
        self.step, self.more = step, more

    def forward(self, x):
        return F.pad(x[:, :, ::self.step, ::self.step], (0, 0, 0, 0, 0, self.more))


def twin(model):
    """The module, with the model's weights, in training mode."""
    model.build()
    made = {}
    net = _chain(model.layers, model.network, made)
    from engine.torch_weights import torch_state
    state = torch_state(model)
    for name, module in made.items():
        own = {k: torch.from_numpy(state[f"{name}.{k}"]) for k in module.state_dict() if f"{name}.{k}" in state}
        module.load_state_dict(own, strict=False)
    return net


def _chain(layers, network, made):
    return nn.Sequential(*(part for layer in layers for part in _parts(layer, network, made)))


def _parts(layer, network, made):
    """The modules of one layer; those with weights also in `made`, by the layer's name."""
    given, shape = network.shapes[layer.name]
    kind = type(layer).__name__
    if isinstance(layer, Composite):
        return [_composite(layer, kind, network, made)] if kind != "Auxiliary" else []
    if isinstance(layer, ours.Conv2D):
        top, bottom, left, right = layer._padding(given[:2])
        assert top == bottom and left == right, f"{layer.name}: one-sided padding"
        made[layer.name] = nn.Conv2d(given[2], shape[2], layer.kernel_size, layer.strides, (top, left), layer.dilation,
                                     layer.groups_of(given[2]), layer.use_bias)
    elif kind == "Dense":
        made[layer.name] = nn.Linear(given[0], layer.units, layer.use_bias)
    elif kind == "BatchNorm":
        made[layer.name] = nn.BatchNorm2d(shape[-1], layer.epsilon, 1 - layer.momentum)
    if layer.name in made:
        return [made[layer.name], *_activation(getattr(layer, "activation", None))]
    return _without_weights(layer, kind, given)


def _without_weights(layer, kind, given):
    if kind in ("MaxPool", "AvgPool"):
        padding = layer.padding if isinstance(layer.padding, int) else 0
        pool = {"MaxPool": nn.MaxPool2d, "AvgPool": nn.AvgPool2d}[kind]
        return [pool(layer.pool_size, layer.strides or layer.pool_size, padding, ceil_mode=layer.ceil_mode)]
    if kind == "Activation":
        return _activation(layer.activation)
    return {"Input": lambda: [], "Flatten": lambda: [nn.Flatten()], "ReLU": lambda: [nn.ReLU()],
            "Dropout": lambda: [nn.Dropout(layer.rate)],
            "GlobalAvgPool": lambda: [nn.AdaptiveAvgPool2d(1), nn.Flatten()],
            "AdaptiveAvgPool": lambda: [nn.AdaptiveAvgPool2d(layer.output_size)],
            "Subsample": lambda: [Sub(layer.step, layer.channels - given[2])]}[kind]()


def _composite(layer, kind, network, made):
    chains = [_chain(chain, network, made) for _, chain in layer.chains()]
    if kind == "Residual":
        after = _activation(layer.activation)
        return Add(chains[0], chains[1] if layer.shortcut else nn.Identity(), after[0] if after else nn.Identity())
    return Cat(chains) if kind == "Concat" else chains[0]


def _activation(activation):
    return [] if activation is None else [ACTIVATIONS[activation.name]()]
