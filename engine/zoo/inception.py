"""Inception V3 (Szegedy et al. 2015), as torchvision has it."""
from engine.layers import Auxiliary, AvgPool, Concat, Dense, Dropout, GlobalAvgPool, Input, MaxPool
from engine.model import Sequential
from engine.zoo.parts import conv_norm_relu as unit

ACROSS, DOWN = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))      # a window of 7x7 in two steps


def inception_v3(classes=1000, input_shape=(299, 299, 3), aux_logits=True, data_format="channels_last", **model):
    """27,161,264 weights with the auxiliary head (0.4 of the loss in training), 23,834,568 without.

    torchvision's published weights want images of range -1 to 1 (its transform_input).
    """
    head = [Auxiliary(_head("AuxLogits", classes), 0.4, name="AuxLogits")] if aux_logits else []
    return Sequential([
        Input(input_shape, data_format),
        *unit("Conv2d_1a_3x3", 32, 3, 2), *unit("Conv2d_2a_3x3", 32, 3), *unit("Conv2d_2b_3x3", 64, 3, 1, 1),
        MaxPool(3, 2),
        *unit("Conv2d_3b_1x1", 80, 1), *unit("Conv2d_4a_3x3", 192, 3), MaxPool(3, 2),
        mixed_a("Mixed_5b", 32), mixed_a("Mixed_5c", 64), mixed_a("Mixed_5d", 64),
        reduce_b("Mixed_6a"),
        mixed_c("Mixed_6b", 128), mixed_c("Mixed_6c", 160), mixed_c("Mixed_6d", 160), mixed_c("Mixed_6e", 192),
        *head,
        reduce_d("Mixed_7a"),
        mixed_e("Mixed_7b"), mixed_e("Mixed_7c"),
        GlobalAvgPool(), Dropout(0.5), Dense(classes, name="fc"),
    ], **{"name": "inception_v3", **model})


def pooled(name, filters):
    return [AvgPool(3, 1, 1), *unit(f"{name}.branch_pool", filters, 1)]


def mixed_a(name, filters):
    """1x1; 1x1 and 5x5; 1x1 and twice 3x3; pooling and 1x1."""
    five, three = f"{name}.branch5x5", f"{name}.branch3x3dbl"
    return Concat([
        unit(f"{name}.branch1x1", 64, 1),
        [*unit(f"{five}_1", 48, 1), *unit(f"{five}_2", 64, 5, 1, 2)],
        [*unit(f"{three}_1", 64, 1), *unit(f"{three}_2", 96, 3, 1, 1), *unit(f"{three}_3", 96, 3, 1, 1)],
        pooled(name, filters),
    ], name=name)


def reduce_b(name):
    """Halves the image: 3x3 in steps of 2; 1x1 and twice 3x3; pooling."""
    three = f"{name}.branch3x3dbl"
    return Concat([
        unit(f"{name}.branch3x3", 384, 3, 2),
        [*unit(f"{three}_1", 64, 1), *unit(f"{three}_2", 96, 3, 1, 1), *unit(f"{three}_3", 96, 3, 2)],
        MaxPool(3, 2),
    ], name=name)


def mixed_c(name, narrow):
    """1x1; 1x1 and 7x7; 1x1 and twice 7x7, each 7x7 in two steps; pooling and 1x1."""
    one, two = f"{name}.branch7x7", f"{name}.branch7x7dbl"
    return Concat([
        unit(f"{name}.branch1x1", 192, 1),
        [*unit(f"{one}_1", narrow, 1), *unit(f"{one}_2", narrow, *ACROSS), *unit(f"{one}_3", 192, *DOWN)],
        [*unit(f"{two}_1", narrow, 1), *unit(f"{two}_2", narrow, *DOWN), *unit(f"{two}_3", narrow, *ACROSS),
         *unit(f"{two}_4", narrow, *DOWN), *unit(f"{two}_5", 192, *ACROSS)],
        pooled(name, 192),
    ], name=name)


def reduce_d(name):
    """Halves the image: 1x1 and 3x3; 1x1, 7x7 in two steps and 3x3; pooling."""
    three, seven = f"{name}.branch3x3", f"{name}.branch7x7x3"
    return Concat([
        [*unit(f"{three}_1", 192, 1), *unit(f"{three}_2", 320, 3, 2)],
        [*unit(f"{seven}_1", 192, 1), *unit(f"{seven}_2", 192, *ACROSS), *unit(f"{seven}_3", 192, *DOWN),
         *unit(f"{seven}_4", 192, 3, 2)],
        MaxPool(3, 2),
    ], name=name)


def mixed_e(name):
    """1x1; 1x1 and 3x3; 1x1 and twice 3x3, the last 3x3 as 1x3 beside 3x1; pooling and 1x1."""
    three, twice = f"{name}.branch3x3", f"{name}.branch3x3dbl"

    def side_by_side(start):
        return Concat([unit(f"{start}a", 384, (1, 3), 1, (0, 1)), unit(f"{start}b", 384, (3, 1), 1, (1, 0))])
    return Concat([
        unit(f"{name}.branch1x1", 320, 1),
        [*unit(f"{three}_1", 384, 1), side_by_side(f"{three}_2")],
        [*unit(f"{twice}_1", 448, 1), *unit(f"{twice}_2", 384, 3, 1, 1), side_by_side(f"{twice}_3")],
        pooled(name, 192),
    ], name=name)


def _head(name, classes):
    return [AvgPool(5, 3), *unit(f"{name}.conv0", 128, 1), *unit(f"{name}.conv1", 768, 5), GlobalAvgPool(),
            Dense(classes, name=f"{name}.fc")]
