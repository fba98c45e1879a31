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
from engine.layers.auxiliary import Auxiliary
from engine.layers.batch_norm import BatchNorm
from engine.layers.block import Block
from engine.layers.composite import Composite
from engine.layers.concat import Concat
from engine.layers.dense import Dense
from engine.layers.dropout import Dropout
from engine.layers.flatten import Flatten
from engine.layers.input import Input
from engine.layers.layer import LAYERS, Context, Layer, Weight
from engine.layers.perceptron import Perceptron
from engine.layers.rescaling import Normalize, Rescaling
from engine.layers.reshape import Reshape
from engine.layers.residual import Residual

__all__ = ["Activation", "Auxiliary", "BatchNorm", "Block", "Composite", "Concat", "Context", "Dense", "Dropout", "ELU",
           "Flatten", "GELU", "HardSigmoid", "HardSwish", "Input", "LAYERS", "Layer", "LeakyReLU", "LogSoftmax", "Mish",
           "Normalize", "PReLU", "Perceptron", "ReLU", "Rescaling", "Reshape", "Residual", "SELU", "SiLU", "Sigmoid",
           "Softmax", "Softplus", "Step", "Tanh", "Weight", "activations"]
