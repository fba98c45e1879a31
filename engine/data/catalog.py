"""The sets that `load` knows: what each holds, where its files may lie, whose it is."""

from dataclasses import dataclass

IDX_FILES = (
    "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz",
)
CIFAR10_ARCHIVE = "cifar-10-binary.tar.gz"
CIFAR10_BATCHES = tuple(f"data_batch_{i}.bin" for i in range(1, 6)) + ("test_batch.bin",)


@dataclass(frozen=True)
class Entry:
    """One set: `shape` of an image, `counts` of (training, test) images, `top` the largest stored value.

    `files` are the names as published; `mirrors` the addresses to download them from, tried in order; `folders` the
    system folders to look in; `embedded` the file in this package, which holds the whole set or, if `partial`, a
    subset. `digests` gives the SHA-256 of a file's array (not of its .gz, which packers write anew).
    """

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    counts: tuple[int, int]
    top: int
    licence: str
    citation: str
    files: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    embedded: str = ""
    partial: bool = False
    digests: tuple[tuple[str, str], ...] = ()


DIGITS = Entry(
    name="digits",
    classes=tuple("0123456789"),
    shape=(8, 8),
    counts=(1437, 360),
    top=16,
    licence="CC BY 4.0",
    citation="E. Alpaydin, C. Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning "
             "Repository, https://doi.org/10.24432/C50P49",
    embedded="digits.npz",
)

FASHION_MNIST = Entry(
    name="fashion_mnist",
    classes=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
             "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
    shape=(28, 28),
    counts=(60000, 10000),
    top=255,
    licence="MIT, copyright 2017 Zalando SE",
    citation="H. Xiao, K. Rasul, R. Vollgraf (2017), Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine "
             "Learning Algorithms, https://arxiv.org/abs/1708.07747",
    files=IDX_FILES,
    mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
    folders=("/usr/share/datasets/fashion-mnist",),  # Debian: apt-get install dataset-fashion-mnist
    embedded="fashion_mnist_subset.npz",
    partial=True,
    digests=(
        (IDX_FILES[0], "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012"),
        (IDX_FILES[1], "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7"),
        (IDX_FILES[2], "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a"),
        (IDX_FILES[3], "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9"),
    ),
)

MNIST = Entry(
    name="mnist",
    classes=tuple("0123456789"),
    shape=(28, 28),
    counts=(60000, 10000),
    top=255,
    licence="CC BY-SA 3.0, copyright Yann LeCun and Corinna Cortes",
    citation="Y. LeCun, L. Bottou, Y. Bengio, P. Haffner (1998), Gradient-Based Learning Applied to Document "
             "Recognition, Proceedings of the IEEE 86(11), https://doi.org/10.1109/5.726791",
    files=IDX_FILES,
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/",
             "https://storage.googleapis.com/cvdf-datasets/mnist/"),
)

CIFAR10 = Entry(
    name="cifar10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    shape=(32, 32, 3),
    counts=(50000, 10000),
    top=255,
    licence="none stated by its authors, who ask to be cited",
    citation="A. Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images, "
             "https://www.cs.toronto.edu/~kriz/cifar.html",
    files=(CIFAR10_ARCHIVE,),
    mirrors=("https://www.cs.toronto.edu/~kriz/",),
)

CATALOG = {entry.name: entry for entry in (DIGITS, FASHION_MNIST, MNIST, CIFAR10)}
NAMES = tuple(CATALOG)
