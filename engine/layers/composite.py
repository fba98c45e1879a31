"""What layers made of layers share: one or several chains of layers between one input and one output."""
from engine.layers.layer import LAYERS, Layer


class Composite(Layer):
    """Base of layers that contain chains of layers, which may be composite again.

    A subclass gives `chains` and `joined`, and `nodes` calls `run` for each chain. The layers' own names are theirs;
    nameless ones are named below this one: `residual/dense`. trainable=False freezes all that is inside.
    """

    def chains(self):
        """Pairs (title, list of layers) in the order in which they are computed; a title may be empty."""
        raise NotImplementedError(f"{type(self).__name__}: a composite layer needs a method chains()")

    def joined(self, shape, ends):
        """The shape of one output sample from that of the input and those at the end of each chain."""
        raise NotImplementedError(f"{type(self).__name__}: a composite layer needs a method joined(shape, ends)")

    @property
    def layers(self):
        """All layers directly inside, chain after chain."""
        return [layer for _, chain in self.chains() for layer in chain]

    def output_shape(self, shape):
        ends = []
        for _, chain in self.chains():
            end = shape
            for layer in chain:
                end = tuple(layer.output_shape(end))
            ends.append(end)
        return self.joined(shape, ends)

    def sublayers(self, shape):
        pairs = []
        for _, chain in self.chains():
            end = shape
            for layer in chain:
                pairs.append((layer, end))
                end = tuple(layer.output_shape(end))
        return pairs

    @staticmethod
    def run(chain, x, context):
        """The value that a chain makes of x."""
        for layer in chain:
            x = context.call(layer, x)
        return x


def chain_of(given):
    """A list of layers from a list, one layer, or a model."""
    return [given] if isinstance(given, Layer) else list(getattr(given, "layers", given))


def chain_from(configs, extra):
    """The layers of a chain from their configurations."""
    return [LAYERS.build(c, extra) for c in configs]
