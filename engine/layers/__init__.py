"""Layers: a layer is its parameters and the nodes that it adds to a graph. One file and one public name each."""
from engine.layers import activations
from engine.layers.activations import (
    ELU,
    GELU,
    SELU,
    Activation,
    HardSigmoid,
    HardSwish,
    LeakyReLU,
    LogSoftmax,
    Mish,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Step,
    Tanh,
)
from engine.layers.adaptive_avg_pool import AdaptiveAvgPool
from engine.layers.auxiliary import Auxiliary
from engine.layers.avg_pool import AvgPool
from engine.layers.batch_norm import BatchNorm
from engine.layers.dense import Dense
from engine.layers.depthwise_conv2d import DepthwiseConv2D
from engine.layers.dropout import Dropout
from engine.layers.embedding import Embedding
from engine.layers.flatten import Flatten
from engine.layers.input import Input
from engine.layers.instance_norm import InstanceNorm
from engine.layers.layer import LAYERS, Context, Layer, Weight

__all__ = ["Activation", "AdaptiveAvgPool", "Auxiliary", "AvgPool", "BatchNorm", "Context", "Dense", "DepthwiseConv2D",
           "Dropout", "ELU", "Embedding", "Flatten", "GELU", "HardSigmoid", "HardSwish", "Input", "InstanceNorm",
           "LAYERS", "Layer", "LeakyReLU", "LogSoftmax", "Mish", "PReLU", "ReLU", "SELU", "SiLU", "Sigmoid", "Softmax",
           "Softplus", "Step", "Tanh", "Weight", "activations"]
