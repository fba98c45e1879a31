"""Known networks, from the perceptron to MobileNet, each a function that returns a Sequential with fresh weights.

    model = engine.zoo.resnet18(classes=10, input_shape=(64, 64, 3))
    model = engine.zoo.resnet50()
    engine.load_torch(model, "resnet50-11ad3fa6.pth")        # torchvision's weights: the layers have its names

Those that torchvision has are its architecture to the last padding, and their layers are named as its modules
(`layer1.0.conv1`): a network's file is its map of names. Further arguments (name, dtype, target) go to Sequential.
With data_format="channels_first" images come as (channels, rows, columns), and so does input_shape.
"""
from engine.zoo.alexnet import alexnet
from engine.zoo.googlenet import googlenet
from engine.zoo.inception import inception_v3
from engine.zoo.lenet import lenet5
from engine.zoo.mlp import mlp, perceptron
from engine.zoo.mobilenet import mobilenet_v2
from engine.zoo.resnet import resnet18, resnet34, resnet50, resnet101, resnet152
from engine.zoo.resnet_cifar import resnet20, resnet56, resnet_cifar
from engine.zoo.vgg import vgg11, vgg16, vgg19

__all__ = ["alexnet", "googlenet", "inception_v3", "lenet5", "mlp", "mobilenet_v2", "perceptron", "resnet18",
           "resnet20", "resnet34", "resnet50", "resnet56", "resnet101", "resnet152", "resnet_cifar", "vgg11", "vgg16",
           "vgg19"]
