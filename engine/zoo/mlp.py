"""The networks of the beginning: one layer, and a few."""
from engine.layers import Dense, Flatten, Input, Perceptron
from engine.model import Sequential


def perceptron(units=1, input_shape=(20, 20), **model):
    """Rosenblatt's perceptron (1958): photocells, one layer that says 0 or 1. loss="perceptron", SGD at rate 1."""
    return Sequential([Input(input_shape), Flatten(), Perceptron(units)], **{"name": "perceptron", **model})


def mlp(classes=10, input_shape=(28, 28), hidden=(128, 64), activation="relu", **model):
    """Hidden layers of these sizes, then the classes' logits (Rumelhart, Hinton, Williams 1986)."""
    layers = [Dense(units, activation, kernel_initializer="he_normal") for units in hidden]
    return Sequential([Input(input_shape), Flatten(), *layers, Dense(classes)], **{"name": "mlp", **model})
