"""Networks of engine.zoo with PyTorch's weights, loaded from its files, give PyTorch's outputs and gradients.

torchvision is not needed: the modules are written here, with its names and its architecture.
"""
import numpy as np
import pytest

import engine
from engine import Dense, GlobalAvgPool, Input, ReLU, Sequential, load_torch, zoo
from engine.torch_weights import _wanted
from engine.zoo import inception, mobilenet, resnet
from engine.zoo.googlenet import inception as google_block
from engine.zoo.parts import conv, norm

try:
    import torch
    from torch import nn
    from torch.nn import functional as F
except ImportError:
    torch = None
    nn = type("nn", (), {"Module": object})

pytestmark = [pytest.mark.torch, pytest.mark.skipif(torch is None, reason="torch is not installed")]

TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
DTYPES = list(TOLERANCE)


class Unit(nn.Module):
    """torchvision's BasicConv2d."""

    def __init__(self, wide, width, size, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(wide, width, size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(width, eps=1e-3)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class ResidualBlock(nn.Module):
    """BasicBlock (convolutions 3, 3) and Bottleneck (1, 3, 1) in one."""

    def __init__(self, wide, widths, sizes, stride):
        super().__init__()
        steps = (stride, 1) if len(sizes) == 2 else (1, stride, 1)
        given = (wide, *widths)
        self.count = len(sizes)
        for k, (size, step) in enumerate(zip(sizes, steps), 1):
            setattr(self, f"conv{k}", nn.Conv2d(given[k - 1], given[k], size, step, size // 2, bias=False))
            setattr(self, f"bn{k}", nn.BatchNorm2d(given[k]))
        self.downsample = None
        if stride > 1 or wide != widths[-1]:
            self.downsample = nn.Sequential(nn.Conv2d(wide, widths[-1], 1, stride, bias=False),
                                            nn.BatchNorm2d(widths[-1]))

    def forward(self, x):
        y = x
        for k in range(1, self.count + 1):
            y = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(y))
            y = F.relu(y) if k < self.count else y
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class Inverted(nn.Module):
    """torchvision's InvertedResidual."""

    def __init__(self, wide, width, stride, wider):
        super().__init__()
        hidden, self.adds = wide * wider, stride == 1 and wide == width

        def unit(*sizes, groups=1):
            return nn.Sequential(nn.Conv2d(*sizes, groups=groups, bias=False), nn.BatchNorm2d(sizes[1]), nn.ReLU6())
        layers = [unit(wide, hidden, 1)] if wider > 1 else []
        self.conv = nn.Sequential(*layers, unit(hidden, hidden, 3, stride, 1, groups=hidden),
                                  nn.Conv2d(hidden, width, 1, bias=False), nn.BatchNorm2d(width))

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class GoogleBlock(nn.Module):
    """torchvision's Inception of GoogLeNet."""

    def __init__(self, wide, ones, threes, fives, pooled):
        super().__init__()
        self.branch1 = Unit(wide, ones, 1)
        self.branch2 = nn.Sequential(Unit(wide, threes[0], 1), Unit(*threes, 3, 1, 1))
        self.branch3 = nn.Sequential(Unit(wide, fives[0], 1), Unit(*fives, 3, 1, 1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), Unit(wide, pooled, 1))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


# Inception V3's blocks: module -> (channels in or the module before, channels, window, stride, padding)
ACROSS, DOWN = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
MIXED = {
    "mixed_a": ({"branch1x1": (None, 64, 1), "branch5x5_1": (None, 48, 1), "branch5x5_2": ("branch5x5_1", 64, 5, 1, 2),
                 "branch3x3dbl_1": (None, 64, 1), "branch3x3dbl_2": ("branch3x3dbl_1", 96, 3, 1, 1),
                 "branch3x3dbl_3": ("branch3x3dbl_2", 96, 3, 1, 1), "branch_pool": ("avg", 32, 1)},
                ("branch1x1", "branch5x5_2", "branch3x3dbl_3", "branch_pool")),
    "reduce_b": ({"branch3x3": (None, 384, 3, 2), "branch3x3dbl_1": (None, 64, 1),
                  "branch3x3dbl_2": ("branch3x3dbl_1", 96, 3, 1, 1), "branch3x3dbl_3": ("branch3x3dbl_2", 96, 3, 2)},
                 ("branch3x3", "branch3x3dbl_3", "max")),
    "mixed_c": ({"branch1x1": (None, 192, 1), "branch7x7_1": (None, 128, 1),
                 "branch7x7_2": ("branch7x7_1", 128, *ACROSS), "branch7x7_3": ("branch7x7_2", 192, *DOWN),
                 "branch7x7dbl_1": (None, 128, 1), "branch7x7dbl_2": ("branch7x7dbl_1", 128, *DOWN),
                 "branch7x7dbl_3": ("branch7x7dbl_2", 128, *ACROSS), "branch7x7dbl_4": ("branch7x7dbl_3", 128, *DOWN),
                 "branch7x7dbl_5": ("branch7x7dbl_4", 192, *ACROSS), "branch_pool": ("avg", 192, 1)},
                ("branch1x1", "branch7x7_3", "branch7x7dbl_5", "branch_pool")),
    "reduce_d": ({"branch3x3_1": (None, 192, 1), "branch3x3_2": ("branch3x3_1", 320, 3, 2),
                  "branch7x7x3_1": (None, 192, 1), "branch7x7x3_2": ("branch7x7x3_1", 192, *ACROSS),
                  "branch7x7x3_3": ("branch7x7x3_2", 192, *DOWN), "branch7x7x3_4": ("branch7x7x3_3", 192, 3, 2)},
                 ("branch3x3_2", "branch7x7x3_4", "max")),
    "mixed_e": ({"branch1x1": (None, 320, 1), "branch3x3_1": (None, 384, 1),
                 "branch3x3_2a": ("branch3x3_1", 384, (1, 3), 1, (0, 1)),
                 "branch3x3_2b": ("branch3x3_1", 384, (3, 1), 1, (1, 0)),
                 "branch3x3dbl_1": (None, 448, 1), "branch3x3dbl_2": ("branch3x3dbl_1", 384, 3, 1, 1),
                 "branch3x3dbl_3a": ("branch3x3dbl_2", 384, (1, 3), 1, (0, 1)),
                 "branch3x3dbl_3b": ("branch3x3dbl_2", 384, (3, 1), 1, (1, 0)), "branch_pool": ("avg", 192, 1)},
                ("branch1x1", "branch3x3_2a", "branch3x3_2b", "branch3x3dbl_3a", "branch3x3dbl_3b", "branch_pool")),
}


class Mixed(nn.Module):
    """A block of MIXED."""

    def __init__(self, kind, wide):
        super().__init__()
        self.units, self.ends = MIXED[kind]
        for name, (source, width, *sizes) in self.units.items():
            setattr(self, name, Unit(self.units[source][1] if source in self.units else wide, width, *sizes))

    def forward(self, x):
        made = {None: x, "avg": F.avg_pool2d(x, 3, 1, 1), "max": F.max_pool2d(x, 3, 2)}
        for name, (source, *_) in self.units.items():
            made[name] = getattr(self, name)(made[source])
        return torch.cat([made[name] for name in self.ends], 1)


class Net(nn.Module):
    """Modules by name, then the mean of each channel and the classes."""

    def __init__(self, modules, width, classes=3):
        super().__init__()
        self.names = list(modules)
        for name, module in modules.items():
            self.add_module(name, module)
        self.fc = nn.Linear(width, classes)

    def forward(self, x):
        for name in self.names:
            x = getattr(self, name)(x)
        return self.fc(x.mean((2, 3)))


class LeNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 6, 5, padding=2), nn.Conv2d(6, 16, 5)
        self.fc1, self.fc2, self.fc3 = nn.Linear(400, 120), nn.Linear(120, 84), nn.Linear(84, 10)

    def forward(self, x):
        x = F.avg_pool2d(torch.tanh(self.conv1(x)), 2)
        x = F.avg_pool2d(torch.tanh(self.conv2(x)), 2).flatten(1)
        return self.fc3(torch.tanh(self.fc2(torch.tanh(self.fc1(x)))))


def alexnet(classes):
    features = nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(),
        nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(), nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2))
    classifier = nn.Sequential(nn.Dropout(0.0), nn.Linear(9216, 4096), nn.ReLU(), nn.Dropout(0.0),
                               nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes))
    net = nn.Sequential()
    for name, part in (("features", features), ("avgpool", nn.AdaptiveAvgPool2d(6)), ("flatten", nn.Flatten()),
                       ("classifier", classifier)):
        net.add_module(name, part)
    return net


class ResNet18(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        wide = 64
        for k, width in enumerate((64, 128, 256, 512), 1):
            blocks = [ResidualBlock(wide if not i else width, (width, width), (3, 3), 1 + (k > 1 and not i))
                      for i in range(2)]
            setattr(self, f"layer{k}", nn.Sequential(*blocks))
            wide = width
        self.fc = nn.Linear(512, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        for k in range(1, 5):
            x = getattr(self, f"layer{k}")(x)
        return self.fc(x.mean((2, 3)))


# ------------------------------------------------------------------------------------------------------------ comparing


def randomised(module, dtype, seed=0):
    """The module with running statistics, scales and shifts that are not just 0 and 1."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor, low, high in ((part.weight, 0.5, 1.5), (part.bias, -0.5, 0.5), (part.running_mean, -0.5, 0.5),
                                      (part.running_var, 0.5, 2.0)):
                nn.init.uniform_(tensor, low, high)
    return module.to(getattr(torch, dtype))


def far(got, want, dtype, least=0.0):
    """How far `got` lies off where that is too far, else 0.

    Relative to the largest value, or to `least`: what is 0 but for rounding has no size of its own.
    """
    assert got.shape == want.shape
    worst = np.abs(got - want).max() / max(np.abs(want).max(), least)
    return 0.0 if worst <= TOLERANCE[dtype] else worst


def compare(model, module, shape, dtype, path, classes=3, draws=1):
    """Loads the module's file into the model; outputs in inference and gradients in training have to agree.

    The gradient of a network jumps where an argument of a ReLU is 0, or two of a max pooling are equal. Among the
    100,000s of values of a whole network, some lie within float32's rounding of such a place about one time in three,
    whoever computes (PyTorch's own float32 and float64 gradients then differ by as much). So outputs have to agree in
    every draw of the data and all gradients in one of `draws`; a kernel that is wrong is so in all of them.
    """
    randomised(module, dtype)
    torch.save(module.state_dict(), path / "weights.pt")
    assert load_torch(model, path / "weights.pt").complete
    model.compile("sgd", "cross_entropy")
    misses = None
    for seed in range(1, 1 + draws):
        module.load_state_dict(torch.load(path / "weights.pt"))
        x = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
        given = torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        module.eval()
        with torch.no_grad():
            assert not far(model.predict(x), module(given).numpy(), dtype), "prediction"
        misses = wrong_gradients(model, module, x, given, dtype, classes)
        if not misses:
            return
    assert not misses


def wrong_gradients(model, module, x, given, dtype, classes):
    """{parameter: how far its gradient in the model lies off the one in the module}, of those that lie too far."""
    y = np.arange(len(x)) % classes
    module.train()
    module.zero_grad()
    F.cross_entropy(module(given), torch.from_numpy(y)).backward()
    found = model.gradients(x, y)
    wanted = {name: p.grad.numpy() for name, p in module.named_parameters()}
    entries = {e.name: e for e in _wanted(model.network, {}) if e.weight in found}
    assert set(entries) == set(wanted)
    least = 1e-3 * max(np.abs(gradient).max() for gradient in wanted.values())
    misses = {n: far(e.to_torch(found[e.weight]), wanted[n], dtype, least) for n, e in entries.items()}
    return {name: miss for name, miss in misses.items() if miss}


def headed(layers, shape, dtype):
    return Sequential([Input(shape), *layers, GlobalAvgPool(), Dense(3, name="fc")], dtype=dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lenet(dtype, tmp_path):
    compare(zoo.lenet5(dtype=dtype), LeNet(), (5, 28, 28, 1), dtype, tmp_path, 10)


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_of_resnets(dtype, tmp_path):
    layers = [conv("conv1", 8, 3, 1, 1), norm("bn1"), ReLU(), resnet.basic("a", 8, 8, 1), resnet.basic("b", 8, 12, 2),
              resnet.bottleneck("c", 12, 4, 1), resnet.bottleneck("d", 16, 4, 1), resnet.bottleneck("e", 16, 6, 2)]
    twin = {"conv1": nn.Conv2d(3, 8, 3, 1, 1, bias=False), "bn1": nn.BatchNorm2d(8), "relu": nn.ReLU(),
            "a": ResidualBlock(8, (8, 8), (3, 3), 1), "b": ResidualBlock(8, (12, 12), (3, 3), 2),
            "c": ResidualBlock(12, (4, 4, 16), (1, 3, 1), 1), "d": ResidualBlock(16, (4, 4, 16), (1, 3, 1), 1),
            "e": ResidualBlock(16, (6, 6, 24), (1, 3, 1), 2)}
    compare(headed(layers, (11, 10, 3), dtype), Net(twin, 24), (4, 11, 10, 3), dtype, tmp_path)


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_of_mobilenet(dtype, tmp_path):
    layers = [mobilenet.inverted("a", 4, 6, 1, 1), mobilenet.inverted("b", 6, 6, 1, 3),
              mobilenet.inverted("c", 6, 10, 2, 6)]
    twin = {"a": Inverted(4, 6, 1, 1), "b": Inverted(6, 6, 1, 3), "c": Inverted(6, 10, 2, 6)}
    compare(headed(layers, (9, 8, 4), dtype), Net(twin, 10), (4, 9, 8, 4), dtype, tmp_path)


@pytest.mark.parametrize("dtype", DTYPES)
def test_blocks_of_googlenet(dtype, tmp_path):
    layers = [google_block("a", 4, (3, 6), (2, 5), 3), google_block("b", 5, (4, 7), (3, 4), 2)]
    twin = {"a": GoogleBlock(5, 4, (3, 6), (2, 5), 3), "b": GoogleBlock(18, 5, (4, 7), (3, 4), 2)}
    compare(headed(layers, (8, 7, 5), dtype), Net(twin, 18), (3, 8, 7, 5), dtype, tmp_path)


@pytest.mark.parametrize("kind", MIXED)
def test_blocks_of_inception(kind, tmp_path):
    made = {"mixed_a": lambda: inception.mixed_a("m", 32), "mixed_c": lambda: inception.mixed_c("m", 128)}
    block = made.get(kind, lambda: getattr(inception, kind)("m"))()
    twin = Mixed(kind, 6)
    model = headed([block], (7, 7, 6), "float64")
    width = model._shaped().shapes["m"][1][-1]
    compare(model, Net({"m": twin}, width), (2, 7, 7, 6), "float64", tmp_path)


def test_an_auxiliary_head_has_its_share_of_the_loss(tmp_path):
    """Loss and gradients of a network with a head at its middle, as one trains them in PyTorch."""
    class WithHead(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Unit(3, 6, 3), Unit(6, 8, 3)
            self.aux, self.fc = nn.Linear(6, 3), nn.Linear(8, 3)

        def forward(self, x):
            x = self.first(x)
            return self.fc(self.second(x).mean((2, 3))), self.aux(x.mean((2, 3)))
    head = engine.Auxiliary([GlobalAvgPool(), Dense(3, name="aux")], 0.4)
    model = headed([*zoo.parts.conv_norm_relu("first", 6, 3), head, *zoo.parts.conv_norm_relu("second", 8, 3)],
                   (7, 6, 3), "float64")
    twin = randomised(WithHead(), "float64")
    load_torch(model, {k: v.numpy() for k, v in twin.state_dict().items()})
    x, y = np.random.default_rng(1).standard_normal((5, 7, 6, 3)), np.arange(5) % 3
    main, side = twin(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    labels = torch.from_numpy(y)
    loss = F.cross_entropy(main, labels) + 0.4 * F.cross_entropy(side, labels)
    loss.backward()
    model.compile("sgd", "cross_entropy")
    found = model.gradients(x, y)
    wanted = dict(twin.named_parameters())
    for entry in _wanted(model.network, {}):
        if entry.weight in found:
            assert not far(entry.to_torch(found[entry.weight]), wanted[entry.name].grad.numpy(), "float64"), entry.name
    assert model.train_step(x, y) == pytest.approx(loss.item(), rel=1e-9)


def test_files_of_torch_save_are_read_as_torch_reads_them(tmp_path):
    base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    state = {"plain": base, "turned": base.t(), "part": base[1:3, ::2], "half": base.half(), "brain": base.bfloat16(),
             "double": base.double(), "large": torch.tensor([2 ** 40]), "whether": torch.tensor([True, False]),
             "parameter": nn.Parameter(base.clone()), "scalar": torch.tensor(3.5), "nothing": torch.zeros(0, 3)}
    for zipped in (True, False):
        torch.save({"epoch": 3, "state_dict": state}, tmp_path / "m.pt", _use_new_zipfile_serialization=zipped)
        found = engine.torch_file.read(tmp_path / "m.pt")
        assert found["epoch"] == 3
        for name, tensor in state.items():
            want = tensor.detach().float() if tensor.dtype is torch.bfloat16 else tensor.detach()
            np.testing.assert_array_equal(found["state_dict"][name], want.numpy(), err_msg=name)
            assert found["state_dict"][name].dtype == want.numpy().dtype
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(engine.errors.FileError, match=r"the file holds a whole module.*model.state_dict\(\)"):
        engine.load_torch(Sequential([Input(2), Dense(2)]), tmp_path / "whole.pt")


def test_weights_go_back_into_torch():
    model = zoo.lenet5()
    twin = LeNet()
    twin.load_state_dict({k: torch.from_numpy(v) for k, v in engine.torch_state(model).items()})
    x = np.random.default_rng(0).standard_normal((3, 28, 28, 1)).astype("f4")
    with torch.no_grad():
        assert not far(model.predict(x), twin(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy(), "float32")


@pytest.mark.slow
@pytest.mark.parametrize("dtype,draws", [("float32", 6), ("float64", 1)])
def test_whole_resnet18(dtype, draws, tmp_path):
    model = zoo.resnet18(classes=10, input_shape=(64, 64, 3), dtype=dtype)
    compare(model, ResNet18(10), (4, 64, 64, 3), dtype, tmp_path, 10, draws)


@pytest.mark.slow
@pytest.mark.parametrize("dtype,draws", [("float32", 6), ("float64", 1)])
def test_whole_alexnet(dtype, draws, tmp_path):
    model = zoo.alexnet(classes=10, input_shape=(95, 95, 3), dropout=0.0, dtype=dtype)
    compare(model, alexnet(10), (4, 95, 95, 3), dtype, tmp_path, 10, draws)
