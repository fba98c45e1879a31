"""MobileNet V2 (Sandler et al. 2018): blocks widen, filter each channel by itself, and narrow without activation."""
from engine.layers import Activation, Block, DepthwiseConv2D, Dropout, GlobalAvgPool, Input, Residual
from engine.model import Sequential
from engine.zoo.parts import conv, dense, norm

# how much wider inside, channels out, how many blocks, strides of the first
STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


def mobilenet_v2(classes=1000, input_shape=(224, 224, 3), data_format="channels_last", dropout=0.2, **model):
    """3,504,872 weights."""
    blocks, wide = [], 32                    # wide: channels that the next block gets
    for wider, width, count, strides in STAGES:
        for place in range(count):
            blocks.append(inverted(f"features.{len(blocks) + 1}", wide, width, strides if place == 0 else 1, wider))
            wide = width
    last = len(blocks) + 1
    return Sequential([
        Input(input_shape, data_format),
        Block(_unit("features.0", conv("features.0.0", 32, 3, 2, 1)), name="features.0"),
        *blocks,
        Block(_unit(f"features.{last}", conv(f"features.{last}.0", 1280, 1)), name=f"features.{last}"),
        GlobalAvgPool(), Dropout(dropout), dense("classifier.1", classes),
    ], **{"name": "mobilenet_v2", **model})


def inverted(name, wide, width, strides, wider):
    """1x1 to wider * wide channels, depthwise 3x3, 1x1 to width; x is added where the shape stays."""
    layers, place = [], 0
    if wider > 1:
        layers += _unit(f"{name}.conv.0", conv(f"{name}.conv.0.0", wider * wide, 1))
        place = 1
    deep = DepthwiseConv2D(3, strides, 1, use_bias=False, kernel_initializer="he_normal", name=f"{name}.conv.{place}.0")
    layers += _unit(f"{name}.conv.{place}", deep)
    layers += [conv(f"{name}.conv.{place + 1}", width, 1), norm(f"{name}.conv.{place + 2}")]
    return Residual(layers, name=name) if strides == 1 and wide == width else Block(layers, name=name)


def _unit(name, layer):
    """A convolution `name`.0, batch norm `name`.1, relu6."""
    return [layer, norm(f"{name}.1"), Activation("relu6")]
