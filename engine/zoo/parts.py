"""Words that the networks share."""
from engine.layers import BatchNorm, Conv2D, Dense, ReLU


def conv(name, filters, kernel_size, strides=1, padding=0, use_bias=False, activation=None):
    """A convolution; without bias where batch norm follows."""
    return Conv2D(filters, kernel_size, strides, padding, use_bias=use_bias, activation=activation,
                  kernel_initializer="he_normal", name=name)


def norm(name, epsilon=1e-5):
    """Batch norm with PyTorch's momentum of 0.1, which is 0.9 here."""
    return BatchNorm(momentum=0.9, epsilon=epsilon, name=name)


def conv_norm_relu(name, filters, kernel_size, strides=1, padding=0):
    """The three of torchvision's BasicConv2d: `name`.conv and `name`.bn, then relu."""
    return [conv(f"{name}.conv", filters, kernel_size, strides, padding), norm(f"{name}.bn", 1e-3), ReLU()]


def dense(name, units, activation=None):
    """A fully connected layer."""
    start = "he_normal" if activation == "relu" else "glorot_uniform"
    return Dense(units, activation, kernel_initializer=start, name=name)
