"""What all tests share. The small models here train in well under a second each."""
import os

import numpy as np
import pytest

os.environ.setdefault("ENGINE_QUIET", "1")


@pytest.fixture
def digits():
    """Digits as rows: (x, y), (x_test, y_test)."""
    from engine import data
    (x, y), (x_test, y_test) = data.load("digits")
    return (x.reshape(len(x), -1), y), (x_test.reshape(len(x_test), -1), y_test)


@pytest.fixture
def blobs():
    """Three classes in four dimensions, 150 samples: small and learnable."""
    rng = np.random.default_rng(0)
    y = np.arange(150) % 3
    x = (rng.standard_normal((150, 4)) + 3 * np.eye(3, 4)[y]).astype(np.float32)
    return x, y
