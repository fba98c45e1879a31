"""VGG (Simonyan, Zisserman 2014): nothing but convolutions of 3x3 and pooling of 2x2, and three dense layers."""
from engine.layers import AdaptiveAvgPool, Dropout, Flatten, Input, MaxPool, ReLU
from engine.model import Sequential
from engine.zoo.parts import conv, dense, norm

# filters of each convolution, in stages that each end with pooling
STAGES = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3),
    19: ((64, 64), (128, 128), (256,) * 4, (512,) * 4, (512,) * 4),
}


def vgg11(classes=1000, input_shape=(224, 224, 3), **more):
    """132,863,336 weights."""
    return _vgg(11, classes, input_shape, **more)


def vgg16(classes=1000, input_shape=(224, 224, 3), **more):
    """138,357,544 weights."""
    return _vgg(16, classes, input_shape, **more)


def vgg19(classes=1000, input_shape=(224, 224, 3), **more):
    """143,667,240 weights; batch_norm=True puts batch norm behind every convolution (torchvision's vgg19_bn)."""
    return _vgg(19, classes, input_shape, **more)


def _vgg(depth, classes, input_shape, batch_norm=False, data_format="channels_last", dropout=0.5, **model):
    layers, number = [], 0                   # number: the place in torchvision's `features`
    for stage in STAGES[depth]:
        for filters in stage:
            name = f"features.{number}"
            if batch_norm:
                layers += [conv(name, filters, 3, 1, 1, True), norm(f"features.{number + 1}"), ReLU()]
            else:
                layers.append(conv(name, filters, 3, 1, 1, True, "relu"))
            number += 3 if batch_norm else 2
        layers.append(MaxPool(2))
        number += 1
    name = f"vgg{depth}{'_bn' if batch_norm else ''}"
    return Sequential([
        Input(input_shape, data_format), *layers,
        AdaptiveAvgPool(7), Flatten(),
        dense("classifier.0", 4096, "relu"), Dropout(dropout),
        dense("classifier.3", 4096, "relu"), Dropout(dropout),
        dense("classifier.6", classes),
    ], **{"name": name, **model})
