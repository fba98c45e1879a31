"""The mean of each channel."""
from engine.layers.layer import register
from engine.layers.pooling import GlobalPooling


@register
class GlobalAvgPool(GlobalPooling):
    """y (n, c) = the mean of each channel of x (n, l, c) or (n, h, w, c) (Lin et al. 2013).

    >>> engine.Sequential([engine.GlobalAvgPool()]).predict(np.arange(4).reshape(1, 2, 2, 1))
    array([[1.5]], dtype=float32)
    """
    op = "mean"
