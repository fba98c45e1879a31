"""The mean of each window."""
from engine.layers.layer import register
from engine.layers.pooling import Pooling


@register
class AvgPool(Pooling):
    """y = the mean of each window and channel; x (n, l, c) or (n, h, w, c), channels last.

    pool_size, strides, padding, ceil_mode   as for MaxPool
    count_include_pad   whether places in the padding count as zeros in the mean; None: they do where padding is given
                        in numbers, as in PyTorch, and do not with "same", as in Keras

    >>> engine.Sequential([engine.AvgPool(2)]).predict(np.arange(16).reshape(1, 4, 4, 1))[0, :, :, 0]
    array([[ 2.5,  4.5],
           [10.5, 12.5]], dtype=float32)
    """

    def __init__(self, pool_size=2, strides=None, padding="valid", ceil_mode=False, count_include_pad=None, name=None):
        super().__init__(pool_size, strides, padding, ceil_mode, 1, name)
        self.count_include_pad = count_include_pad

    def nodes(self, graph, x, weights, context):
        at = self._places(x.shape[1:], x.ndim - 2)
        del at["dilation"]
        counts = self.padding != "same" if self.count_include_pad is None else bool(self.count_include_pad)
        return self.pooled(graph, x, "avg_pool2d", **at, count_include_pad=counts)
