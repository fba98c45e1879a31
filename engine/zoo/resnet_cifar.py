"""The small ResNets for images of 32 x 32 (He et al. 2015, section 4.2), with shortcuts that have no weights."""
from engine.layers import Block, Dense, GlobalAvgPool, Input, Layer, ReLU, Residual
from engine.layers.layer import register
from engine.model import Sequential
from engine.zoo.parts import conv, norm


def resnet20(classes=10, input_shape=(32, 32, 3), **more):
    """269,722 weights."""
    return resnet_cifar(3, classes, input_shape, **more)


def resnet56(classes=10, input_shape=(32, 32, 3), **more):
    """853,018 weights."""
    return resnet_cifar(9, classes, input_shape, **more)


def resnet_cifar(depth, classes=10, input_shape=(32, 32, 3), widths=(16, 32, 64), data_format="channels_last", **model):
    """Three stages of `depth` blocks: 6 depth + 2 layers with weights; depth=200 is the paper's network of 1202."""
    stages = []
    for number, width in enumerate(widths, 1):
        blocks = [_block(f"layer{number}.{place}", width, number > 1 and not place) for place in range(depth)]
        stages.append(Block(blocks, name=f"layer{number}"))
    return Sequential([
        Input(input_shape, data_format),
        conv("conv1", widths[0], 3, 1, 1), norm("bn1"), ReLU(),
        *stages,
        GlobalAvgPool(), Dense(classes, name="fc"),
    ], **{"name": f"resnet{6 * depth + 2}", **model})


def _block(name, width, halves):
    return Residual([
        conv(f"{name}.conv1", width, 3, 2 if halves else 1, 1), norm(f"{name}.bn1"), ReLU(),
        conv(f"{name}.conv2", width, 3, 1, 1), norm(f"{name}.bn2"),
    ], [Subsample(2, width)] if halves else None, "relu", name=name)


@register
class Subsample(Layer):
    """Every `step`-th row and column, with channels of zeros appended up to `channels` (option A of He et al. 2015)."""

    def __init__(self, step, channels, name=None):
        super().__init__(name)
        self.step, self.channels = step, channels

    def output_shape(self, shape):
        if len(shape) != 3 or shape[2] > self.channels:
            self.refuse(f"(n, rows, columns, at most {self.channels} channels)", shape)
        return (*(-(-s // self.step) for s in shape[:2]), self.channels)

    def nodes(self, graph, x, weights, context):
        y = graph.add("slice", x, starts=(0,) * 4, stops=x.shape, steps=(1, self.step, self.step, 1))
        more = self.channels - x.shape[3]
        return graph.add("pad", y, before=(0,) * 4, after=(0, 0, 0, more), value=0.0) if more else y
