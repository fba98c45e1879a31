"""AlexNet (Krizhevsky, Sutskever, Hinton 2012) in the one-column form of Krizhevsky 2014 that torchvision has."""
from engine.layers import AdaptiveAvgPool, Dropout, Flatten, Input, MaxPool
from engine.model import Sequential
from engine.zoo.parts import conv, dense


def alexnet(classes=1000, input_shape=(224, 224, 3), data_format="channels_last", dropout=0.5, **model):
    """Five convolutions, three dense layers. 61,100,840 weights."""
    def layer(name, *sizes):
        return conv(name, *sizes, use_bias=True, activation="relu")
    return Sequential([
        Input(input_shape, data_format),
        layer("features.0", 64, 11, 4, 2), MaxPool(3, 2),
        layer("features.3", 192, 5, 1, 2), MaxPool(3, 2),
        layer("features.6", 384, 3, 1, 1),
        layer("features.8", 256, 3, 1, 1),
        layer("features.10", 256, 3, 1, 1), MaxPool(3, 2),
        AdaptiveAvgPool(6), Flatten(),
        Dropout(dropout), dense("classifier.1", 4096, "relu"),
        Dropout(dropout), dense("classifier.4", 4096, "relu"),
        dense("classifier.6", classes),
    ], **{"name": "alexnet", **model})
