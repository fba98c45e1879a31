"""ResNet (He et al. 2015), as torchvision has it: in bottlenecks the 3x3 convolution strides, not the first 1x1."""
from engine.layers import Block, Dense, GlobalAvgPool, Input, MaxPool, ReLU, Residual
from engine.model import Sequential
from engine.zoo.parts import conv, norm


def resnet18(classes=1000, input_shape=(224, 224, 3), **more):
    """11,689,512 weights."""
    return _resnet("resnet18", basic, (2, 2, 2, 2), classes, input_shape, **more)


def resnet34(classes=1000, input_shape=(224, 224, 3), **more):
    """21,797,672 weights."""
    return _resnet("resnet34", basic, (3, 4, 6, 3), classes, input_shape, **more)


def resnet50(classes=1000, input_shape=(224, 224, 3), **more):
    """25,557,032 weights."""
    return _resnet("resnet50", bottleneck, (3, 4, 6, 3), classes, input_shape, **more)


def resnet101(classes=1000, input_shape=(224, 224, 3), **more):
    """44,549,160 weights."""
    return _resnet("resnet101", bottleneck, (3, 4, 23, 3), classes, input_shape, **more)


def resnet152(classes=1000, input_shape=(224, 224, 3), **more):
    """60,192,808 weights."""
    return _resnet("resnet152", bottleneck, (3, 8, 36, 3), classes, input_shape, **more)


def _resnet(kind, block, depths, classes, input_shape, data_format="channels_last", **model):
    stages, wide = [], 64                    # wide: channels that the next block gets
    for number, depth in enumerate(depths):
        blocks, width = [], 64 * 2 ** number
        for place in range(depth):
            strides = 2 if number and not place else 1
            blocks.append(block(f"layer{number + 1}.{place}", wide, width, strides))
            wide = width * (4 if block is bottleneck else 1)
        stages.append(Block(blocks, name=f"layer{number + 1}"))
    return Sequential([
        Input(input_shape, data_format),
        conv("conv1", 64, 7, 2, 3), norm("bn1"), ReLU(), MaxPool(3, 2, 1),
        *stages,
        GlobalAvgPool(), Dense(classes, name="fc"),
    ], **{"name": kind, **model})


def basic(name, wide, width, strides):
    """Two convolutions of 3x3; `wide` channels in, `width` out."""
    return Residual([
        conv(f"{name}.conv1", width, 3, strides, 1), norm(f"{name}.bn1"), ReLU(),
        conv(f"{name}.conv2", width, 3, 1, 1), norm(f"{name}.bn2"),
    ], _shortcut(name, wide, width, strides), "relu", name=name)


def bottleneck(name, wide, width, strides):
    """1x1 to `width` channels, 3x3, 1x1 to four times as many."""
    return Residual([
        conv(f"{name}.conv1", width, 1), norm(f"{name}.bn1"), ReLU(),
        conv(f"{name}.conv2", width, 3, strides, 1), norm(f"{name}.bn2"), ReLU(),
        conv(f"{name}.conv3", 4 * width, 1), norm(f"{name}.bn3"),
    ], _shortcut(name, wide, 4 * width, strides), "relu", name=name)


def _shortcut(name, wide, width, strides):
    """None where x passes as it is."""
    if strides == 1 and wide == width:
        return None
    return [conv(f"{name}.downsample.0", width, 1, strides), norm(f"{name}.downsample.1")]
