"""GoogLeNet (Szegedy et al. 2014) with batch norm, as torchvision has it: its "5x5" branch has windows of 3x3."""
from engine.layers import AdaptiveAvgPool, Auxiliary, Concat, Dense, Dropout, Flatten, GlobalAvgPool, Input, MaxPool
from engine.model import Sequential
from engine.zoo.parts import conv_norm_relu, dense


def googlenet(classes=1000, input_shape=(224, 224, 3), aux_logits=False, data_format="channels_last", **model):
    """6,624,904 weights; with aux_logits=True 13,004,888: two auxiliary heads, each 0.3 of the loss in training.

    torchvision's published weights want images of range -1 to 1 (its transform_input).
    """
    def head(name):
        return [Auxiliary(_head(name, classes), 0.3, name=name)] if aux_logits else []
    return Sequential([
        Input(input_shape, data_format),
        *conv_norm_relu("conv1", 64, 7, 2, 3), MaxPool(3, 2, ceil_mode=True),
        *conv_norm_relu("conv2", 64, 1), *conv_norm_relu("conv3", 192, 3, 1, 1), MaxPool(3, 2, ceil_mode=True),
        inception("inception3a", 64, (96, 128), (16, 32), 32),
        inception("inception3b", 128, (128, 192), (32, 96), 64), MaxPool(3, 2, ceil_mode=True),
        inception("inception4a", 192, (96, 208), (16, 48), 64), *head("aux1"),
        inception("inception4b", 160, (112, 224), (24, 64), 64),
        inception("inception4c", 128, (128, 256), (24, 64), 64),
        inception("inception4d", 112, (144, 288), (32, 64), 64), *head("aux2"),
        inception("inception4e", 256, (160, 320), (32, 128), 128), MaxPool(2, 2, ceil_mode=True),
        inception("inception5a", 256, (160, 320), (32, 128), 128),
        inception("inception5b", 384, (192, 384), (48, 128), 128),
        GlobalAvgPool(), Dropout(0.2), Dense(classes, name="fc"),
    ], **{"name": "googlenet", **model})


def inception(name, ones, threes, fives, pooled):
    """Four branches over one input: 1x1; 1x1 and 3x3, twice; pooling and 1x1."""
    return Concat([
        conv_norm_relu(f"{name}.branch1", ones, 1),
        [*conv_norm_relu(f"{name}.branch2.0", threes[0], 1), *conv_norm_relu(f"{name}.branch2.1", threes[1], 3, 1, 1)],
        [*conv_norm_relu(f"{name}.branch3.0", fives[0], 1), *conv_norm_relu(f"{name}.branch3.1", fives[1], 3, 1, 1)],
        [MaxPool(3, 1, 1, ceil_mode=True), *conv_norm_relu(f"{name}.branch4.1", pooled, 1)],
    ], name=name)


def _head(name, classes):
    return [AdaptiveAvgPool(4), *conv_norm_relu(f"{name}.conv", 128, 1), Flatten(), dense(f"{name}.fc1", 1024, "relu"),
            Dropout(0.7), dense(f"{name}.fc2", classes)]
