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
from engine.layers.batch_norm import BatchNorm
from engine.layers.bidirectional import Bidirectional
from engine.layers.dense import Dense
from engine.layers.dropout import Dropout
from engine.layers.flatten import Flatten
from engine.layers.gru import GRU
from engine.layers.input import Input
from engine.layers.layer import LAYERS, Context, Layer, Weight
from engine.layers.lstm import LSTM
from engine.layers.multi_head_attention import MultiHeadAttention
from engine.layers.perceptron import Perceptron
from engine.layers.reshape import Reshape
from engine.layers.residual import Residual
from engine.layers.simple_rnn import SimpleRNN

__all__ = ["Activation", "BatchNorm", "Bidirectional", "Context", "Dense", "Dropout", "ELU", "Flatten", "GELU", "GRU",
           "HardSigmoid", "HardSwish", "Input", "LAYERS", "LSTM", "Layer", "LeakyReLU", "LogSoftmax", "Mish",
           "MultiHeadAttention", "PReLU", "Perceptron", "ReLU", "Reshape", "Residual", "SELU", "SiLU", "Sigmoid",
           "SimpleRNN", "Softmax", "Softplus", "Step", "Tanh", "Weight", "activations"]
