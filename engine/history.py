"""What a fit left behind: one figure of each kind for each epoch."""


class History:
    """history: {"loss": [...], "accuracy": [...], "val_loss": [...], ...}; epoch: the epochs' numbers."""

    def __init__(self):
        self.history, self.epoch = {}, []

    def add(self, epoch, figures):
        self.epoch.append(epoch)
        for name, value in figures.items():
            self.history.setdefault(name, []).append(value)

    def __repr__(self):
        last = ", ".join(f"{k} {v[-1]:.4f}" for k, v in self.history.items() if isinstance(v[-1], float))
        return f"<History of {len(self.epoch)} epochs: {last}>"

    def plot(self, path=None):
        """Draws the learning curves (training and validation together); writes them to `path` (PNG, SVG, PDF by its
        ending) or returns the figure. Needs the extra `plot`."""
        try:
            from matplotlib.figure import Figure
        except ImportError:
            raise ImportError("History.plot: matplotlib is not installed; pip install 'engine[plot]' does that"
                              ) from None
        kinds = [k for k in self.history if not k.startswith("val_") and isinstance(self.history[k][0], float)]
        figure = Figure(figsize=(5 * len(kinds), 3.6), layout="constrained")
        for axes, kind in zip(figure.subplots(1, len(kinds), squeeze=False)[0], kinds):
            epochs = [e + 1 for e in self.epoch]
            axes.plot(epochs, self.history[kind], marker=".", label="training")
            if f"val_{kind}" in self.history:
                axes.plot(epochs, self.history[f"val_{kind}"], marker=".", label="validation")
            axes.set_xlabel("epoch")
            axes.set_ylabel(kind.replace("_", " "))
            axes.grid(alpha=0.3)
            axes.legend()
        if path is None:
            return figure
        figure.savefig(path, dpi=120)
        return path
