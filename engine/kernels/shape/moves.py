"""Where a move's values come from and go to: the axes that x and y have in common, their sizes and steps.

Each `*_moves(x, y, attributes)` gives (sizes, steps in x, steps in y, first place in x, first place in y).
"""
import math

from engine.kernels.op import Arrangement, axis_of, demand, share

AXES = 5                                     # of a move, after neighbours have been joined


def steps_of(shape):
    """The step of each axis of a C-contiguous array."""
    return [math.prod(shape[k + 1:]) for k in range(len(shape))]


def joined(sizes, x_steps, y_steps):
    """[size, step in x, step in y] of each axis, with neighbours that make one run joined.

    A tile has two axes: where the last one jumps in x, the axis along which x is contiguous comes before it.
    """
    axes = []
    for size, x, y in zip(sizes, x_steps, y_steps):
        if size == 1:
            continue
        if axes and axes[-1][1] == x * size and axes[-1][2] == y * size:
            axes[-1] = [axes[-1][0] * size, x, y]
        else:
            axes.append([size, x, y])
    if axes and axes[-1][1] > 1:
        inner = [a for a in axes[:-1] if a[1] == 1]
        axes = [a for a in axes if a not in inner[:1]]
        axes[-1:-1] = inner[:1]
    return axes


def movable(sizes, x_steps, y_steps):
    """Refuses a move of more axes than the kernel has."""
    number = len(joined(sizes, x_steps, y_steps))
    demand(number <= AXES, f"at most {AXES} axes that cannot be joined with their neighbours", f"{number} of {sizes}",
           "do it in two steps")


def arrange_move(moves):
    """Arrangement of `move_cpu`; moves(inputs, outputs, attributes) gives sizes, steps in x and y, first places."""
    def arrange(inputs, outputs, attributes, threads):
        sizes, x_steps, y_steps, x_at, y_at = moves(inputs[0], outputs[0], attributes)
        axes = joined(sizes, x_steps, y_steps)
        axes = [[1, 0, 0]] * (AXES - len(axes)) + axes
        table = [int(axis[which]) for which in range(3) for axis in axes]
        return Arrangement(((inputs[0].size,),), ((outputs[0].size,),),
                           (float(attributes.get("value", 0.0)), *table, int(x_at), int(y_at)),
                           tasks=share(outputs[0].size, threads))
    return arrange


def permutation(x, axes):
    """`axes` as non-negative numbers; without them the reverse order."""
    if axes is None:
        return tuple(range(len(x.shape)))[::-1]
    demand(len(axes) == len(x.shape), f"one of {len(x.shape)} axes for each axis of the output", tuple(axes))
    found = tuple(axis_of(a, len(x.shape)) for a in axes)
    demand(len(set(found)) == len(found), "every axis once", tuple(axes))
    return found


def transpose_moves(x, y, attributes):
    axes, steps = permutation(x, attributes["axes"]), steps_of(x.shape)
    return y.shape, [steps[a] for a in axes], steps_of(y.shape), 0, 0


def broadcast_moves(x, y, attributes):
    missing = len(y.shape) - len(x.shape)
    steps = [0] * missing + [0 if s == 1 else step for s, step in zip(x.shape, steps_of(x.shape))]
    return y.shape, steps, steps_of(y.shape), 0, 0


def cuts(shape, attributes):
    """range of each axis that a slice takes."""
    starts, stops = tuple(attributes["starts"]), tuple(attributes["stops"])
    steps = tuple(attributes["steps"] or (1,) * len(starts))
    demand(len(starts) == len(stops) == len(steps) <= len(shape),
           f"starts, stops and steps of one length, at most {len(shape)}", f"{starts}, {stops}, {steps}")
    demand(all(step >= 1 for step in steps), "steps of at least 1", steps)
    missing = len(shape) - len(starts)
    return [range(size)[slice(*cut)] for size, cut in
            zip(shape, [*zip(starts, stops, steps), *[(None, None, 1)] * missing])]


def slice_moves(x, y, attributes):
    taken, steps = cuts(x.shape, attributes), steps_of(x.shape)
    return ([len(r) for r in taken], [r.step * s for r, s in zip(taken, steps)], steps_of(y.shape),
            sum(r.start * s for r, s in zip(taken, steps)), 0)


def slice_grad_moves(dy, y, attributes):
    sizes, y_steps, x_steps, y_at, x_at = slice_moves(y, dy, attributes)
    return sizes, x_steps, y_steps, x_at, y_at


def pad_moves(x, y, attributes):
    steps = steps_of(y.shape)
    return x.shape, steps_of(x.shape), steps, 0, sum(b * s for b, s in zip(attributes["before"], steps))
