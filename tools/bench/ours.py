"""How the benchmarks train a model of ours: an epoch in one call, as `fit` runs it."""


def epoch_of(model, x, y, batch):
    """(one pass over the whole batches as a callable, the plan of a step) of a compiled model."""
    epoch = model._pass(model._data(x, y, None, None, "bench"), batch, "bench", model.optimizer)

    def run():
        epoch.start(epoch.order(model.seed), model.optimizer.learning_rate.at)
        epoch.plans[0].run(len(x) // batch)
    return run, epoch.plans[0]
