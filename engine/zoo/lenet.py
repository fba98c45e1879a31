"""LeNet-5 (LeCun et al. 1998), with plain connections and logits at the end."""
from engine.layers import AvgPool, Conv2D, Dense, Flatten, Input
from engine.model import Sequential


def lenet5(classes=10, input_shape=(28, 28, 1), data_format="channels_last", **model):
    """Two convolutions of 5x5 with tanh and mean pooling, three dense layers. 61,706 weights for 28 x 28 x 1."""
    return Sequential([
        Input(input_shape, data_format),
        Conv2D(6, 5, padding=2, activation="tanh", name="conv1"), AvgPool(2),
        Conv2D(16, 5, activation="tanh", name="conv2"), AvgPool(2),
        Flatten(),
        Dense(120, "tanh", name="fc1"), Dense(84, "tanh", name="fc2"), Dense(classes, name="fc3"),
    ], **{"name": "lenet5", **model})
