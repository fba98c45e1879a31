"""The largest value of each channel."""
from engine.layers.layer import register
from engine.layers.pooling import GlobalPooling


@register
class GlobalMaxPool(GlobalPooling):
    """y (n, c) = the largest value of each channel of x (n, l, c) or (n, h, w, c).

    >>> engine.Sequential([engine.GlobalMaxPool()]).predict(np.arange(4).reshape(1, 2, 2, 1))
    array([[3.]], dtype=float32)
    """
    op = "max"
