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
from engine.layers.bidirectional import Bidirectional
from engine.layers.block import Block
from engine.layers.composite import Composite
from engine.layers.concat import Concat
from engine.layers.conv1d import Conv1D
from engine.layers.conv2d import Conv2D
from engine.layers.conv2d_transpose import Conv2DTranspose
from engine.layers.dense import Dense
from engine.layers.depthwise_conv2d import DepthwiseConv2D
from engine.layers.dropout import Dropout
from engine.layers.embedding import Embedding
from engine.layers.flatten import Flatten
from engine.layers.global_avg_pool import GlobalAvgPool
from engine.layers.global_max_pool import GlobalMaxPool
from engine.layers.group_norm import GroupNorm
from engine.layers.gru import GRU
from engine.layers.input import Input
from engine.layers.instance_norm import InstanceNorm
from engine.layers.layer import LAYERS, Context, Layer, Weight
from engine.layers.layer_norm import LayerNorm
from engine.layers.lrn import LRN
from engine.layers.lstm import LSTM
from engine.layers.max_pool import MaxPool
from engine.layers.multi_head_attention import MultiHeadAttention
from engine.layers.perceptron import Perceptron
from engine.layers.reflection_padding2d import ReflectionPadding2D
from engine.layers.rescaling import Normalize, Rescaling
from engine.layers.reshape import Reshape
from engine.layers.residual import Residual
from engine.layers.rms_norm import RMSNorm
from engine.layers.separable_conv2d import SeparableConv2D
from engine.layers.simple_rnn import SimpleRNN
from engine.layers.up_sampling2d import UpSampling2D
from engine.layers.zero_padding2d import ZeroPadding2D

__all__ = ["Activation", "AdaptiveAvgPool", "Auxiliary", "AvgPool", "BatchNorm", "Bidirectional", "Block", "Composite",
           "Concat", "Context", "Conv1D", "Conv2D", "Conv2DTranspose", "Dense", "DepthwiseConv2D", "Dropout", "ELU",
           "Embedding", "Flatten", "GELU", "GRU", "GlobalAvgPool", "GlobalMaxPool", "GroupNorm", "HardSigmoid",
           "HardSwish", "Input", "InstanceNorm", "LAYERS", "LRN", "LSTM", "Layer", "LayerNorm", "LeakyReLU",
           "LogSoftmax", "MaxPool", "Mish", "MultiHeadAttention", "Normalize", "PReLU", "Perceptron", "RMSNorm",
           "ReLU", "ReflectionPadding2D", "Rescaling", "Reshape", "Residual", "SELU", "SeparableConv2D", "SiLU",
           "Sigmoid", "SimpleRNN", "Softmax", "Softplus", "Step", "Tanh", "UpSampling2D", "Weight", "ZeroPadding2D",
           "activations"]
