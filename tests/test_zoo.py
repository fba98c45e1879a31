"""The known networks: counted from shapes, named as torchvision names them, cut, frozen and trained on."""
import numpy as np
import pytest

import engine
from engine import Dense, Sequential, zoo
from engine.errors import ShapeError
from engine.torch_weights import torch_state

COUNTS = {
    "perceptron": 401, "mlp": 109_386, "lenet5": 61_706, "alexnet": 61_100_840, "vgg11": 132_863_336,
    "vgg16": 138_357_544, "vgg19": 143_667_240, "googlenet": 6_624_904, "inception_v3": 27_161_264,
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160,
    "resnet152": 60_192_808, "mobilenet_v2": 3_504_872, "resnet20": 269_722, "resnet56": 853_018,
}


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_trained_weights(name):
    model = getattr(zoo, name)()
    assert model.count_params(trainable=True) == COUNTS[name] and model.state is None


def test_counts_of_the_variants():
    assert zoo.googlenet(aux_logits=True).count_params(trainable=True) == 13_004_888
    assert zoo.inception_v3(aux_logits=False).count_params(trainable=True) == 23_834_568
    assert zoo.vgg19(batch_norm=True).count_params(trainable=True) == 143_678_248
    assert zoo.resnet_cifar(18).count_params(trainable=True) == 1_727_962                # ResNet-110
    assert set(COUNTS) | {"resnet_cifar"} == set(zoo.__all__)


def torch_names(model):
    from engine.torch_weights import _wanted
    return {entry.name: entry.there() for entry in _wanted(model._shaped(), {})}


NAMES = {
    "alexnet": {"features.0.weight": (64, 3, 11, 11), "features.10.bias": (256,), "classifier.1.weight": (4096, 9216),
                "classifier.6.bias": (1000,)},
    "vgg16": {"features.28.weight": (512, 512, 3, 3), "classifier.0.weight": (4096, 25088)},
    "resnet50": {"layer1.0.downsample.1.running_var": (256,), "layer4.2.conv3.weight": (2048, 512, 1, 1),
                 "layer2.0.conv2.weight": (128, 128, 3, 3), "fc.weight": (1000, 2048)},
    "mobilenet_v2": {"features.0.0.weight": (32, 3, 3, 3), "features.1.conv.0.0.weight": (32, 1, 3, 3),
                     "features.2.conv.1.0.weight": (96, 1, 3, 3), "features.17.conv.3.bias": (320,),
                     "features.18.1.running_mean": (1280,), "classifier.1.weight": (1000, 1280)},
    "googlenet": {"inception4e.branch2.1.conv.weight": (320, 160, 3, 3), "inception3a.branch4.1.bn.weight": (32,),
                  "conv1.conv.weight": (64, 3, 7, 7)},
    "inception_v3": {"Conv2d_1a_3x3.conv.weight": (32, 3, 3, 3), "Mixed_6b.branch7x7_2.conv.weight": (128, 128, 1, 7),
                     "Mixed_7c.branch3x3dbl_3b.bn.bias": (384,), "AuxLogits.conv1.conv.weight": (768, 128, 5, 5),
                     "AuxLogits.fc.weight": (1000, 768)},
}


@pytest.mark.parametrize("name", NAMES)
def test_weights_have_torchvisions_names_and_shapes(name):
    found = torch_names(getattr(zoo, name)())
    for wanted, shape in NAMES[name].items():
        assert found.get(wanted) == shape, (wanted, sorted(found)[:9])
    sizes = {"alexnet": 16, "vgg16": 32, "resnet50": 267, "mobilenet_v2": 262, "googlenet": 287, "inception_v3": 484}
    assert len(found) == sizes[name], "tensors of torchvision's state dict without num_batches_tracked"


def test_images_with_channels_first_and_other_sizes():
    model = zoo.resnet18(classes=7, input_shape=(3, 64, 96), data_format="channels_first", name="mine")
    network = model._shaped()
    assert network.shapes["layer4"][1] == (2, 3, 512) and network.output_shape == (7,) and model.name == "mine"
    with pytest.raises(ShapeError, match="max_pool|conv2d|features|too small"):
        zoo.alexnet(input_shape=(16, 16, 3)).count_params()


def test_a_summary_of_a_large_network_needs_no_arrays(capsys):
    model = zoo.googlenet()
    model.summary()
    text = capsys.readouterr().out
    assert model.state is None and "│  └─ inception4a.branch1.conv (Conv2D)" in text or "├─ branch 1" in text
    assert "6,624,904 trained, 0 frozen" in text


def test_transfer_learning_keeps_what_was_loaded():
    """A loaded network without its head, frozen, under a new head."""
    rng = np.random.default_rng(0)
    base = zoo.lenet5()
    loaded = {name: rng.standard_normal(array.shape) * 0.1 for name, array in torch_state(base).items()}
    assert engine.load_torch(base, loaded).complete
    x, y = rng.standard_normal((40, 28, 28, 1)), np.arange(40) % 5
    seen = base.activations(x)
    for layer in base.layers[:-1]:
        layer.trainable = False
    model = Sequential([*base.layers[:-1], Dense(5, name="head")])
    model.compile(engine.optimizers.Adam(0.02), "cross_entropy", ["accuracy"])
    model.fit(x, y, epochs=60, batch_size=20, verbose=0)
    now = torch_state(model)
    for name, array in loaded.items():
        if not name.startswith("fc3"):
            np.testing.assert_array_equal(now[name], array.astype("f4"))
    assert model.count_params(trainable=True) == 84 * 5 + 5
    np.testing.assert_allclose(model.activations(x)["fc2"], seen["fc2"], rtol=1e-5, atol=1e-6)
    assert model.evaluate(x, y)[1] > 0.9
