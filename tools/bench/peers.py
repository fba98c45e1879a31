"""The training step of a multi-layer perceptron in the libraries that people would pick instead, each at its best.

Every function gives `epoch()`, one pass over the same batches from the same weights: ReLU between the layers, mean
cross-entropy from logits, plain SGD or Adam. It returns when the work is done.
"""
import shutil

LEARNING_RATE = {"sgd": 1e-4, "adam": 1e-5}   # low: batches learned by heart give denormal gradients, which are slow
TORCH = {"torch fused": {"fused": True}, "torch foreach": {"foreach": True}, "torch for-loop": {"foreach": False}}


def eager_epoch(net, criterion, update, batches):
    """A callable: one epoch of PyTorch, step by step as written."""
    def epoch():
        for data, labels in batches:
            update.zero_grad(set_to_none=True)
            criterion(net(data), labels).backward()
            update.step()
    return epoch


def torch_eager(weights, batch, optimizer, x, y, settings):
    """PyTorch eager; settings: how its optimiser goes over the weights."""
    net, update, criterion, batches = _torch(weights, batch, optimizer, x, y, settings)
    return eager_epoch(net, criterion, update, batches)


def torch_compiled(weights, batch, optimizer, x, y):
    """torch.compile of the whole step, update included; needs a C++ compiler."""
    import torch
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        raise RuntimeError("no C++ compiler")
    torch._dynamo.reset()
    net, update, criterion, batches = _torch(weights, batch, optimizer, x, y, {"foreach": True})

    @torch.compile(mode="max-autotune-no-cudagraphs")
    def loss_of(data, labels):
        return criterion(net(data), labels)

    @torch.compile
    def step():
        update.step()

    def epoch():
        for data, labels in batches:
            update.zero_grad(set_to_none=True)
            loss_of(data, labels).backward()
            step()
    return epoch


def _torch(weights, batch, optimizer, x, y, settings):
    import torch
    layers = []
    for kernel, bias in zip(weights[::2], weights[1::2]):
        linear = torch.nn.Linear(*kernel.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(kernel.T.copy()))
            linear.bias.copy_(torch.from_numpy(bias))
        layers += [linear, torch.nn.ReLU()]
    net = torch.nn.Sequential(*layers[:-1])
    make = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer]
    update = make(net.parameters(), lr=LEARNING_RATE[optimizer], **settings)
    batches = [(torch.from_numpy(x[i:i + batch]), torch.from_numpy(y[i:i + batch])) for i in range(0, len(x), batch)]
    return net, update, torch.nn.CrossEntropyLoss(), batches


def jax_step(weights, batch, optimizer, x, y):
    """jax.jit of one step, weights donated."""
    import jax
    step, state, batches = _jax(weights, batch, optimizer, x, y)
    compiled, held = jax.jit(step, donate_argnums=0), [state]
    pairs = [(batches[0][i], batches[1][i]) for i in range(batches[0].shape[0])]

    def epoch():
        for pair in pairs:
            held[0], _ = compiled(held[0], pair)
        jax.block_until_ready(held[0])
    return epoch


def jax_scan(weights, batch, optimizer, x, y):
    """jax.lax.scan over the batches of an epoch in one jit: no Python between the steps."""
    import jax
    step, state, batches = _jax(weights, batch, optimizer, x, y)
    compiled, held = jax.jit(lambda s, b: jax.lax.scan(step, s, b), donate_argnums=0), [state]

    def epoch():
        held[0], losses = compiled(held[0], batches)
        jax.block_until_ready(losses)
    return epoch


def _jax(weights, batch, optimizer, x, y):
    import jax
    import jax.numpy as jnp
    rate, beta1, beta2, epsilon = LEARNING_RATE[optimizer], 0.9, 0.999, 1e-8

    def loss_of(parameters, data, labels):
        for kernel, bias in zip(parameters[:-2:2], parameters[1:-2:2]):
            data = jax.nn.relu(data @ kernel + bias)
        logits = data @ parameters[-2] + parameters[-1]
        return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1))

    def step(state, pair):
        parameters, m, v, t = state
        loss, gradients = jax.value_and_grad(loss_of)(parameters, *pair)
        t = t + 1
        if optimizer == "sgd":
            return ([p - rate * g for p, g in zip(parameters, gradients)], m, v, t), loss
        m = [beta1 * a + (1 - beta1) * g for a, g in zip(m, gradients)]
        v = [beta2 * a + (1 - beta2) * g * g for a, g in zip(v, gradients)]
        first, second = 1 - beta1 ** t, 1 - beta2 ** t
        parameters = [p - rate * (a / first) / (jnp.sqrt(b / second) + epsilon)
                      for p, a, b in zip(parameters, m, v)]
        return (parameters, m, v, t), loss

    parameters = [jnp.array(w) for w in weights]
    zeros = (lambda: [jnp.zeros_like(p) for p in parameters]) if optimizer == "adam" else list
    batches = jnp.array(x.reshape(-1, batch, x.shape[1])), jnp.array(y.reshape(-1, batch))
    return step, (parameters, zeros(), zeros(), jnp.zeros(())), batches


def sklearn_epoch(weights, batch, optimizer, x, y):
    """scikit-learn's MLPClassifier.partial_fit: one pass over the data."""
    from sklearn.neural_network import MLPClassifier
    net = MLPClassifier([w.shape[1] for w in weights[:-2:2]], solver=optimizer, batch_size=batch, alpha=0.0,
                        learning_rate_init=LEARNING_RATE[optimizer], momentum=0.0, shuffle=False)
    classes = range(weights[-1].size)
    return lambda: net.partial_fit(x, y, classes=classes)


def tinygrad_step(weights, batch, optimizer, x, y):
    """tinygrad on the CPU, the step captured by TinyJit."""
    from tinygrad import Context, Tensor, TinyJit, nn
    parameters = [Tensor(w).contiguous().realize() for w in weights]
    for p in parameters:
        p.requires_grad = True
    make = {"sgd": nn.optim.SGD, "adam": nn.optim.Adam}[optimizer]
    update = make(parameters, lr=LEARNING_RATE[optimizer])

    @TinyJit
    def step(data, labels):
        with Context(TRAINING=1):
            for kernel, bias in zip(parameters[:-2:2], parameters[1:-2:2]):
                data = (data @ kernel + bias).relu()
            loss = (data @ parameters[-2] + parameters[-1]).sparse_categorical_crossentropy(labels)
            update.zero_grad()
            loss.backward()
            update.step()
            return loss.realize()
    batches = [(Tensor(x[i:i + batch]).contiguous().realize(), Tensor(y[i:i + batch].astype("int32")).realize())
               for i in range(0, len(x), batch)]

    def epoch():
        for data, labels in batches:
            loss = step(data, labels)
        loss.numpy()
    return epoch


OTHERS = {"torch.compile": torch_compiled, "jax.jit": jax_step, "jax scan": jax_scan, "sklearn": sklearn_epoch,
          "tinygrad": tinygrad_step}


def all_of(weights, batch, optimizer, x, y):
    """({name: epoch()}, {name: why it is not there}); each is called once, since some compile or fail at the first."""
    made, absent = {}, {}
    for name, settings in TORCH.items():
        made[name] = torch_eager(weights, batch, optimizer, x, y, settings)
    for name, make in OTHERS.items():
        try:
            epoch = make(weights, batch, optimizer, x, y)
            epoch()
            made[name] = epoch
        except Exception as error:           # a peer that is not installed or does not run here is reported as absent
            absent[name] = f"{type(error).__name__}: {str(error).splitlines()[0][:100] if str(error) else ''}"
    return made, absent
