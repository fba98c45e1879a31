"""The largest value of each window (LeCun et al. 1998)."""
from engine.layers.layer import register
from engine.layers.pooling import Pooling, wider


@register
class MaxPool(Pooling):
    """y = the largest value of each window and channel; x (n, l, c) or (n, h, w, c), channels last.

    pool_size   places of a window along each axis: a number, or one for each axis
    strides     how far windows lie apart; None: pool_size, side by side
    padding     "valid" (none), "same" (ceil(size / strides) windows), a number, or a number or a pair (before, after)
                for each axis; what is padded is never the largest
    ceil_mode   the last window may reach over the edge, as in PyTorch
    dilation    distance of a window's places

    >>> engine.Sequential([engine.MaxPool(2)]).predict(np.arange(16).reshape(1, 4, 4, 1))[0, :, :, 0]
    array([[ 5.,  7.],
           [13., 15.]], dtype=float32)
    """

    def __init__(self, pool_size=2, strides=None, padding="valid", ceil_mode=False, dilation=1, name=None):
        super().__init__(pool_size, strides, padding, ceil_mode, dilation, name)

    def nodes(self, graph, x, weights, context):
        at = self._places(x.shape[1:], x.ndim - 2)
        return self.pooled(graph, x, "max_pool2d", kernel=at["kernel"], stride=at["stride"], padding=wider(at),
                           dilation=at["dilation"], keep=context.training)
