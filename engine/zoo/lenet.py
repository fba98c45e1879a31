"""LeNet-5 (LeCun et al. 1998), with plain connections and logits at the end."""
from engine.layers import AvgPool, Conv2D, Dense, Flatten, Input, MaxPool
from engine.model import Sequential

POOLS = {"mean": AvgPool, "max": MaxPool}


def lenet5(classes=10, input_shape=(28, 28, 1), data_format="channels_last", activation="tanh", pooling="mean",
           **model):
    """Two convolutions of 5x5 with pooling, three dense layers. 61,706 weights for 28 x 28 x 1.

    tanh and mean pooling are those of 1998; with activation="relu" and pooling="max" it is as it is mostly built now.
    """
    if pooling not in POOLS:
        raise ValueError(f"lenet5: expected pooling {' or '.join(map(repr, POOLS))}, got {pooling!r}")
    pool = POOLS[pooling]
    return Sequential([
        Input(input_shape, data_format),
        Conv2D(6, 5, padding=2, activation=activation, name="conv1"), pool(2),
        Conv2D(16, 5, activation=activation, name="conv2"), pool(2),
        Flatten(),
        Dense(120, activation, name="fc1"), Dense(84, activation, name="fc2"), Dense(classes, name="fc3"),
    ], **{"name": "lenet5", **model})
