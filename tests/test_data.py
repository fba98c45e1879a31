"""engine.data: the sets, the readers, downloads from a server on this machine, preparations and toy problems."""

import ast
import dataclasses
import doctest
import gzip
import http.server
import importlib
import io
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest

from engine import data
from engine.data import catalog, embedded, folders
from engine.errors import EngineError, UnknownName

PACKAGE = Path(data.__file__).parent
MODULES = sorted(path.stem for path in PACKAGE.glob("*.py"))
DEBIAN = Path("/usr/share/datasets/fashion-mnist")


# ------------------------------------------------------------------------------------------------------------ helpers
def idx_bytes(array, code=8):
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, code, array.ndim]) + sizes + array.tobytes()


def small_idx_set(counts=(7, 5), shape=(28, 28), seed=0):
    """Contents of the four files of a small set, by published name, gzipped."""
    rng = np.random.default_rng(seed)
    files = {}
    for half, count in zip(("train", "t10k"), counts, strict=True):
        images = rng.integers(0, 256, (count, *shape), dtype=np.uint8)
        files[f"{half}-images-idx3-ubyte.gz"] = gzip.compress(idx_bytes(images))
        files[f"{half}-labels-idx1-ubyte.gz"] = gzip.compress(idx_bytes((np.arange(count) % 10).astype(np.uint8)))
    return files


def cifar_batch(count, start=0):
    labels = (start + np.arange(count)) % 10
    planes = np.random.default_rng(start).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    content = b"".join(bytes([label]) + image.tobytes() for label, image in zip(labels, planes, strict=True))
    return content, labels, planes


def cifar_archive(batches):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in batches.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    """No test reads or writes the user's cache."""
    monkeypatch.setattr(folders, "default_folder", lambda name: tmp_path / "cache" / name)
    return tmp_path / "cache"


@pytest.fixture
def small(monkeypatch):
    """The public sets shrunk to a few images and cut off from the system's folders."""
    for name in ("mnist", "fashion_mnist", "cifar10"):
        counts = (10, 2) if name == "cifar10" else (7, 5)
        entry = dataclasses.replace(catalog.CATALOG[name], counts=counts, folders=(), digests=())
        monkeypatch.setitem(catalog.CATALOG, name, entry)


@pytest.fixture
def server(monkeypatch):
    """An HTTP server on this machine: `server.files[path] = content`, or (content, promised length)."""
    files, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = files.get(self.path)
            if content is None:
                return self.send_error(404)
            content, promised = content if isinstance(content, tuple) else (content, len(content))
            self.send_response(200)
            self.send_header("Content-Length", str(promised))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    running.files, running.asked, running.base = files, asked, f"http://127.0.0.1:{running.server_port}"
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


# ----------------------------------------------------------------------------------------------------------- embedded
def test_digits_are_the_published_ones():
    datasets = pytest.importorskip("sklearn.datasets")
    bunch = datasets.load_digits()
    with np.load(PACKAGE / "files" / "digits.npz") as stored:
        assert np.array_equal(stored["x"], bunch.images) and np.array_equal(stored["y"], bunch.target)


def test_digits_split_is_the_documented_rule():
    (x_train, y_train), (x_test, y_test) = data.load("digits", dtype="uint8")
    with np.load(PACKAGE / "files" / "digits.npz") as stored:
        x, y = stored["x"], stored["y"]
    by_class = [index for label in range(10) for index in range(len(y)) if y[index] == label]
    testing = sorted(by_class[::5])
    training = sorted(set(range(len(y))) - set(testing))
    assert np.array_equal(x_test, x[testing]) and np.array_equal(y_test, y[testing])
    assert np.array_equal(x_train, x[training]) and np.array_equal(y_train, y[training])
    share = np.bincount(y_test) / np.bincount(y)
    assert share.min() > 0.19 and share.max() < 0.21


def test_digits_types_and_range():
    (x_train, y_train), (x_test, y_test) = data.load("digits")
    raw = data.load("digits", dtype=np.uint8)
    assert x_train.shape == (1437, 8, 8) and x_test.shape == (360, 8, 8)
    assert x_train.dtype == np.float32 and y_train.dtype == y_test.dtype == np.int64
    assert x_train.min() == 0 and x_train.max() == 1 and raw.train[0].max() == 16
    assert np.array_equal(x_train * 16, raw.train[0])
    assert all(array.flags.writeable for pair in (*raw, (x_train, y_train)) for array in pair)


def test_fashion_subset_is_balanced_and_says_so():
    fashion = data.load("fashion_mnist", subset=True)
    (x_train, y_train), (x_test, y_test) = fashion
    assert x_train.shape == (2000, 28, 28) and x_test.shape == (500, 28, 28)
    assert set(np.bincount(y_train)) == {200} and set(np.bincount(y_test)) == {50}
    assert x_train.dtype == np.float32 and x_train.max() == 1 and 0.2 < x_train.mean() < 0.4
    assert fashion.subset and "SUBSET" in str(fashion) and "2,000" in str(fashion) and "MIT" in fashion.licence
    assert fashion.classes[9] == "Ankle boot" and "arxiv" in fashion.citation and "\n" not in repr(fashion)


def test_dataset_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.load("digits").name = "other"


@pytest.mark.parametrize("damage", ["byte", "short", "absent", "no sum"])
def test_damaged_installation_is_noticed(monkeypatch, tmp_path, damage):
    content = bytearray((PACKAGE / "files" / "digits.npz").read_bytes())
    sums = (PACKAGE / "files" / "SHA256SUMS").read_bytes()
    content[3000] ^= damage == "byte"
    write(tmp_path, {"digits.npz": content[:-9] if damage == "short" else content,
                     "SHA256SUMS": b"" if damage == "no sum" else sums})
    if damage == "absent":
        (tmp_path / "digits.npz").unlink()
    monkeypatch.setattr(embedded, "HERE", tmp_path)
    with pytest.raises(data.DatasetCorrupt, match=r"digits.npz: expected .* got .*install the package again"):
        data.load("digits")


def test_every_embedded_file_has_its_licence_and_nothing_is_pickled():
    for path in (PACKAGE / "files").glob("*.npz"):
        assert path.with_suffix(".LICENCE.txt").stat().st_size > 500
        with np.load(path, allow_pickle=False) as stored:
            assert all(stored[name].dtype == np.uint8 for name in stored)
    assert sum(path.stat().st_size for path in (PACKAGE / "files").iterdir()) < 1_500_000


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_debians_full_set_and_the_subset_agree():
    full = data.load("fashion_mnist", dtype="uint8")
    part = data.load("fashion_mnist", dtype="uint8", subset=True)
    assert not full.subset and full.source == str(DEBIAN) and "SUBSET" not in str(full)
    for (x, y), (x_part, y_part), count in zip(full, part, (200, 50), strict=True):
        chosen = np.sort(np.concatenate([np.flatnonzero(y == label)[:count] for label in range(10)]))
        assert np.array_equal(x[chosen], x_part) and np.array_equal(y[chosen], y_part)


# ------------------------------------------------------------------------------------------------------ which and where
def test_unknown_name_is_told_the_near_ones():
    with pytest.raises(UnknownName, match="did you mean 'fashion_mnist'"):
        data.load("fashion-mnist")


@pytest.mark.parametrize(("name", "arguments", "word"), [
    ("digits", {"dtype": "float16"}, "dtype"),
    ("digits", {"dtype": None}, "dtype"),
    ("digits", {"dtype": "no type"}, "dtype"),
    ("digits", {"folder": "x"}, "folder"),
    ("digits", {"subset": True}, "subset"),
    ("mnist", {"subset": True}, "subset"),
    ("fashion_mnist", {"subset": True, "folder": "x"}, "subset"),
    ("fashion_mnist", {"subset": True, "download": True}, "subset"),
    ("mnist", {"mirror": "http://127.0.0.1"}, "mirror"),
])
def test_arguments_that_make_no_sense_are_refused(name, arguments, word):
    with pytest.raises(ValueError, match=f"{word}.*got"):
        data.load(name, **arguments)


def test_fashion_falls_back_to_the_subset_only_when_allowed(small, tmp_path):
    assert data.load("fashion_mnist").subset
    with pytest.raises(data.DatasetMissing, match="subset=True"):
        data.load("fashion_mnist", subset=False)
    with pytest.raises(data.DatasetMissing, match="no such folder"):
        data.load("fashion_mnist", tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("zipped", [True, False])
def test_full_set_from_a_folder(small, tmp_path, name, zipped):
    files = small_idx_set()
    images = np.frombuffer(gzip.decompress(files["train-images-idx3-ubyte.gz"])[16:], np.uint8).reshape(-1, 28, 28)
    if not zipped:
        files = {name.removesuffix(".gz"): gzip.decompress(content) for name, content in files.items()}
    folder = write(tmp_path / "own", files)
    loaded = data.load(name, folder)
    raw = data.load(name, str(folder), dtype="uint8")
    assert not loaded.subset and loaded.source == str(folder)
    assert np.array_equal(raw.train[0], images) and np.array_equal(raw.train[1], np.arange(7))
    assert np.array_equal(loaded.train[0], images / np.float32(255)) and loaded.test[0].shape == (5, 28, 28)
    assert all(array.flags.writeable for pair in raw for array in pair)


def test_the_cache_is_looked_at_and_a_named_folder_goes_first(small, cache, tmp_path):
    write(cache / "mnist", small_idx_set(seed=1))
    folder = write(tmp_path / "own", small_idx_set(seed=2))
    cached, own = data.load("mnist"), data.load("mnist", folder)
    assert cached.source == str(cache / "mnist") and own.source == str(folder)
    assert not np.array_equal(cached.train[0], own.train[0])
    with pytest.raises(data.DatasetMissing):  # and no other is taken in its place
        data.load("mnist", tmp_path)


def test_the_users_cache_is_the_engines(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("ENGINE_CACHE_DIR", "/nowhere/engine")
    assert folders.default_folder("mnist") == Path("/nowhere/engine/data/mnist")


def test_missing_set_says_what_to_do(small, cache, tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        data.load("mnist")
    text = str(caught.value)
    assert isinstance(caught.value, data.DatasetMissing) and isinstance(caught.value, EngineError)
    for word in (*catalog.IDX_FILES, str(cache / "mnist"), "folder=", "download=True", "without .gz", "https://"):
        assert word in text
    files = small_idx_set()
    del files["t10k-labels-idx1-ubyte.gz"]
    with pytest.raises(data.DatasetMissing, match=r"is missing: t10k-labels-idx1-ubyte.gz\."):
        data.load("mnist", write(tmp_path / "part", files))
    with pytest.raises(data.DatasetMissing, match="cifar-10-binary.tar.gz.*pickle.*test_batch.bin"):
        data.load("cifar10")


def test_files_of_another_set_are_refused(small, tmp_path):
    with pytest.raises(data.DatasetCorrupt, match=r"expected shape \(7, 28, 28\), got \(8, 28, 28\)"):
        data.load("mnist", write(tmp_path / "a", small_idx_set(counts=(8, 5))))
    files = small_idx_set()
    files["train-labels-idx1-ubyte.gz"] = gzip.compress(idx_bytes(np.full(7, 46, np.uint8)))
    with pytest.raises(data.DatasetCorrupt, match=r"labels 0\.\.9, got 46"):
        data.load("mnist", write(tmp_path / "b", files))


# ---------------------------------------------------------------------------------------------------------- the formats
@pytest.mark.parametrize(("code", "kind"), [(8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")])
def test_idx_types(tmp_path, code, kind):
    array = np.arange(-3, 9).reshape(3, 1, 4).astype(kind)
    (tmp_path / "file").write_bytes(idx_bytes(array, code))
    read = data.read_idx(tmp_path / "file")
    assert read.dtype.isnative and read.dtype.kind == array.dtype.kind and np.array_equal(read, array)


def test_idx_without_values(tmp_path):
    (tmp_path / "file").write_bytes(idx_bytes(np.zeros((0, 28, 28), np.uint8)))
    assert data.read_idx(tmp_path / "file").shape == (0, 28, 28)


GOOD = idx_bytes(np.arange(200, dtype=np.uint8).reshape(2, 10, 10))
ZIPPED = gzip.compress(np.random.default_rng(0).bytes(4) + GOOD, mtime=0)


@pytest.mark.parametrize(("content", "text"), [
    (b"", "got nothing"),
    (b"<!DOCTYPE html>", "first 4 bytes are 0, 0, .* got 3c 21 44 4f"),
    (b"\0\0\x0a\x01", "got 00 00 0a 01"),
    (GOOD[:10], "3 sizes in the header, got 6 bytes"),
    (GOOD[:-1], r"expected 200 bytes of values for shape \(2, 10, 10\), got 199"),
    (GOOD + b"x", "expected 200 bytes .* got more"),
    (b"\0\0\x0e\x03" + b"\xff" * 12 + b"few", "got 3;"),  # asks for more bytes than any memory
    (gzip.compress(GOOD, mtime=0)[:-30], "whole gzip file"),
    (gzip.compress(GOOD, mtime=0)[:-8] + bytes(8), "whole gzip file"),
    (gzip.compress(GOOD, mtime=0)[:60] + b"spoilt" + gzip.compress(GOOD, mtime=0)[66:], "whole gzip file|expected"),
    (gzip.compress(GOOD, mtime=0)[:10] + b"\xff" * 50, "whole gzip file"),
    (ZIPPED, "first 4 bytes"),
])
def test_idx_errors(tmp_path, content, text):
    (tmp_path / "some-file").write_bytes(content)
    with pytest.raises(data.DatasetCorrupt, match=f"(?s)some-file.*({text})"):
        data.read_idx(tmp_path / "some-file")


def test_idx_absent(tmp_path):
    with pytest.raises(FileNotFoundError):
        data.read_idx(tmp_path / "none")


def test_cifar10_batch_is_channels_last(tmp_path):
    content, labels, planes = cifar_batch(4)
    (tmp_path / "batch.bin").write_bytes(content)
    images, read = data.read_cifar10(tmp_path / "batch.bin")
    assert images.shape == (4, 32, 32, 3) and images.flags.c_contiguous and images.flags.writeable
    assert np.array_equal(read, labels) and images[2, 5, 7, 1] == planes[2, 1, 5, 7]
    assert np.array_equal(np.moveaxis(images, -1, 1), planes)


@pytest.mark.parametrize("form", ["folder", "subfolder", "archive", "archive itself"])
def test_cifar10_from_a_folder_or_the_archive(small, tmp_path, form):
    batches = {name: cifar_batch(2, start)[0] for start, name in enumerate(catalog.CIFAR10_BATCHES)}
    if form.startswith("archive"):
        write(tmp_path, {"cifar-10-binary.tar.gz": cifar_archive(batches)})
    else:
        write(tmp_path / ("cifar-10-batches-bin" if form == "subfolder" else ""), batches)
    folder = tmp_path / "cifar-10-binary.tar.gz" if form == "archive itself" else tmp_path
    (x_train, y_train), (x_test, y_test) = data.load("cifar10", folder)
    assert x_train.shape == (10, 32, 32, 3) and x_train.dtype == np.float32 and x_train.max() <= 1
    assert y_train.tolist() == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5] and y_test.tolist() == [5, 6]
    assert np.array_equal(x_test * np.float32(255), np.moveaxis(cifar_batch(2, 5)[2], 1, -1))


def test_cifar10_errors(small, tmp_path):
    batches = {name: cifar_batch(2, start)[0] for start, name in enumerate(catalog.CIFAR10_BATCHES)}
    whole = cifar_archive(batches)
    cases = {
        "multiple of 3,073": {**batches, "data_batch_2.bin": batches["data_batch_2.bin"][:-1]},
        r"labels 0\.\.9, got 77": {**batches, "test_batch.bin": bytes([77]) + bytes(3072)},
        r"expected \(10, 10, 2, 2\).*got \(9, 9, 2, 2\)": {**batches, "data_batch_5.bin": cifar_batch(1)[0]},
        "whole .tar.gz": {"cifar-10-binary.tar.gz": whole[:-2000]},
        "whole .tar.gz, got": {"cifar-10-binary.tar.gz": b"not found"},
        "none named test_batch.bin": {"cifar-10-binary.tar.gz": cifar_archive(dict(list(batches.items())[:5]))},
    }
    for number, (text, files) in enumerate(cases.items()):
        with pytest.raises(data.DatasetCorrupt, match=text):
            data.load("cifar10", write(tmp_path / str(number), files))


# ------------------------------------------------------------------------------------------------------------ downloads
def test_nothing_is_downloaded_unless_asked(small, monkeypatch):
    import urllib.request

    def refuse(*arguments, **others):
        raise AssertionError("went to the network")

    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    with pytest.raises(data.DatasetMissing):
        data.load("mnist")
    assert data.load("fashion_mnist").subset
    data.load("digits", download=True)


def test_download_over_http_into_the_cache(small, server, cache):
    server.files.update({f"/mnist/{name}": content for name, content in small_idx_set().items()})
    loaded = data.load("mnist", download=True, mirror=f"{server.base}/mnist/")
    assert loaded.source == str(cache / "mnist") and loaded.train[0].shape == (7, 28, 28)
    assert sorted(path.name for path in (cache / "mnist").iterdir()) == sorted(catalog.IDX_FILES)
    data.load("mnist", download=True, mirror=f"{server.base}/mnist/")
    assert len(server.asked) == 4  # found the second time
    assert np.array_equal(data.load("mnist").train[0], loaded.train[0])


def test_download_replaces_the_embedded_subset(small, server, tmp_path):
    server.files.update({f"/{name}": content for name, content in small_idx_set().items()})
    loaded = data.load("fashion_mnist", tmp_path / "own", download=True, mirror=server.base)
    assert not loaded.subset and loaded.source == str(tmp_path / "own")


def test_download_of_cifar10_from_a_file_address(small, tmp_path):
    batches = {name: cifar_batch(2, start)[0] for start, name in enumerate(catalog.CIFAR10_BATCHES)}
    mirror = write(tmp_path / "mirror", {"cifar-10-binary.tar.gz": cifar_archive(batches)})
    loaded = data.load("cifar10", tmp_path / "own", download=True, mirror=mirror.as_uri())
    assert loaded.source == str(tmp_path / "own" / "cifar-10-binary.tar.gz") and len(loaded.train[1]) == 10


def test_second_mirror_and_kept_files(small, server, monkeypatch, tmp_path):
    files = small_idx_set()
    server.files.update({f"/b/{name}": content for name, content in files.items()})
    entry = dataclasses.replace(catalog.CATALOG["mnist"], mirrors=(f"{server.base}/a", f"{server.base}/b"))
    monkeypatch.setitem(catalog.CATALOG, "mnist", entry)
    kept = dict(list(files.items())[:3])
    data.load("mnist", write(tmp_path, kept), download=True)
    (last,) = set(files) - set(kept)
    assert server.asked == [f"/a/{last}", f"/b/{last}"]


@pytest.mark.parametrize(("answer", "text"), [
    (None, "404"),
    (b"<html>moved</html>", "expected an idx file"),
    ((b"x" * 100, 200), "expected 200 bytes, got 100"),
    (gzip.compress(idx_bytes(np.zeros((6, 28, 28), np.uint8)), mtime=0),
     r"expected shape \(7, 28, 28\), got \(6, 28, 28\)"),
    (bytes(3 << 20), "expected at most .* got more"),
])
def test_bad_download_leaves_nothing_behind(small, server, cache, answer, text):
    server.files["/train-images-idx3-ubyte.gz"] = answer
    with pytest.raises(data.DatasetMissing, match=f"train-images.*{text}.*mirror="):
        data.load("mnist", download=True, mirror=server.base)
    assert list((cache / "mnist").iterdir()) == []


def test_download_compares_the_checksum(small, server, monkeypatch, cache):
    files = small_idx_set()
    server.files.update({f"/{name}": content for name, content in files.items()})
    digests = (("train-images-idx3-ubyte.gz", "0" * 64),)
    entry = dataclasses.replace(catalog.CATALOG["mnist"], digests=digests)
    monkeypatch.setitem(catalog.CATALOG, "mnist", entry)
    with pytest.raises(data.DatasetMissing, match="SHA-256 0000"):
        data.load("mnist", download=True, mirror=server.base)
    assert list((cache / "mnist").iterdir()) == []


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_known_checksums_accept_the_real_files(cache):
    from engine.data.download import download_file

    for name in ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", "train-labels-idx1-ubyte.gz"):
        cache.mkdir(exist_ok=True)
        download_file(catalog.FASHION_MNIST, name, cache / name, (DEBIAN.as_uri(),))
        assert (cache / name).read_bytes() == (DEBIAN / name).read_bytes()


# --------------------------------------------------------------------------------------------------------- preparations
def test_split_gives_every_example_once_and_keeps_the_shares():
    y = np.repeat([0, 1, 2], [600, 300, 100])
    parts = data.split(np.arange(1000), y, (0.7, 0.2, 0.1), seed=3)
    assert [len(x) for x, _ in parts] == [700, 200, 100]
    assert sorted(np.concatenate([x for x, _ in parts])) == list(range(1000))
    for x, labels in parts:
        assert np.array_equal(labels, y[x])
        assert np.abs(np.bincount(labels) - np.array([0.6, 0.3, 0.1]) * len(x)).max() <= 1
        assert len(np.unique(labels[:30])) > 1  # mixed, not class by class


@pytest.mark.parametrize(("parts", "sizes"), [
    (0.25, [75, 25]), (10, [90, 10]), ((50, 20), [50, 20]), ((0.333, 0.667), [33, 67]), (np.array([60, 40]), [60, 40]),
])
@pytest.mark.parametrize("stratify", [True, False])
def test_split_sizes(parts, sizes, stratify):
    made = data.split(np.arange(100), np.arange(100) % 7, parts, stratify=stratify)
    assert [len(x) for x, _ in made] == sizes
    assert len(set(np.concatenate([x for x, _ in made]))) == sum(sizes)


def test_split_depends_on_the_seed_alone():
    x, y = np.arange(60), np.arange(60) % 3
    first, again, other = (data.split(x, y, 0.5, seed=seed)[0][0] for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert np.array_equal(x, np.arange(60))


def test_split_deals_rare_classes_fairly_and_mixes():
    y = np.concatenate([np.zeros(90, int), np.arange(1, 11)])  # ten classes of one example each
    for x, labels in data.split(np.arange(100), y, (10, 80, 10)):
        assert (labels > 0).sum() == (10 if len(x) == 80 else 0)
    (_, labels), _ = data.split(np.arange(1000), np.arange(1000) % 2, 0.5)
    assert 0.2 < (labels[::2] == labels[1::2]).mean() < 0.8  # the classes do not take turns


def test_split_errors():
    x, y = np.zeros((10, 2)), np.arange(10) % 2
    for parts in ((0.5, 0.2), (6, 5), 1.0, 0.0, (0.99, 0.01), (), (-1, 5), "half", [[5, 5]], (np.nan, 0.5)):
        with pytest.raises(ValueError, match="parts: expected"):
            data.split(x, y, parts)
    with pytest.raises(ValueError, match="x, y"):
        data.split(x, y[:9])
    with pytest.raises(ValueError, match="stratify=False"):
        data.split(x, y * 0.5)
    with pytest.raises(ValueError, match="one-hot"):
        data.split(x, data.one_hot(y))
    assert data.split(x, y * 0.5, stratify=False)[1][1].shape == (2,)


def test_one_hot():
    labels = np.array([[0, 3], [2, 1]], np.uint8)
    rows = data.one_hot(labels)
    assert rows.shape == (2, 2, 4) and rows.dtype == np.float32 and np.array_equal(rows.argmax(-1), labels)
    assert np.array_equal(rows.sum(-1), np.ones((2, 2))) and data.one_hot([1], 3, "int8").tolist() == [[0, 1, 0]]
    assert data.one_hot([], 3).shape == (0, 3)
    for bad in ([3], [-1]):
        with pytest.raises(ValueError, match=r"expected values 0\.\.2"):
            data.one_hot(bad, 3)
    with pytest.raises(ValueError, match="whole numbers"):
        data.one_hot([0.0, 1.0])


@pytest.mark.parametrize(("axis", "shape"), [(0, (1, 4, 4, 3)), ((0, 1, 2), (1, 1, 1, 3)), (None, (1, 1, 1, 1))])
def test_standardise(axis, shape):
    x = np.random.default_rng(0).normal(7, 3, (50, 4, 4, 3)).astype(np.float32)
    x[:, 0, 0, 0] = 0.1  # constant
    kept = x.copy()
    train, test, mean, std = data.standardise(x, x[:5] + 1, axis=axis)
    assert mean.shape == std.shape == shape and train.dtype == mean.dtype == np.float32
    assert np.allclose(train.mean(axis), 0, atol=1e-5) and np.array_equal(x, kept)
    moving = x.max(axis, keepdims=True) > x.min(axis, keepdims=True)
    assert np.allclose(train.std(axis, keepdims=True)[moving], 1, atol=1e-5) and (std[~moving] == 1).all()
    assert np.array_equal(test, (x[:5] + 1 - mean) / std)


def test_standardise_types_and_errors():
    constants = [np.full((n, 2), 0.1) for n in range(2, 60)]
    assert any(constant.std(0).max() > 0 for constant in constants)  # rounding leaves a deviation
    assert all((data.standardise(constant)[-1] == 1).all() for constant in constants)
    assert data.standardise(np.arange(6, dtype=np.uint8).reshape(3, 2))[0].dtype == np.float32
    far = 1e9 + np.arange(4.0)
    assert np.allclose(data.standardise(far)[0], [-1.3416408, -0.4472136, 0.4472136, 1.3416408])
    for bad in (np.zeros((0, 2)), np.array([1.0, np.nan]), np.array([1.0, np.inf])):
        with pytest.raises(ValueError, match="train: expected"):
            data.standardise(bad)
    with pytest.raises(ValueError, match=r"others\[1\]"):
        data.standardise(np.eye(3), np.eye(3), np.zeros((2, 4)))


def test_batches_cover_everything_once_in_an_order_of_the_seed():
    x = np.arange(23)
    pieces = list(data.batches(x, -x, size=5, seed=(1, 0)))
    assert [len(a) for a, _ in pieces] == [5, 5, 5, 5, 3] and all(np.array_equal(a, -b) for a, b in pieces)
    order = np.concatenate([a for a, _ in pieces])
    assert sorted(order) == list(range(23)) and not np.array_equal(order, x)
    orders = [np.concatenate(list(data.batches(x, size=5, seed=(1, epoch)))) for epoch in (0, 1)]
    assert np.array_equal(orders[0], order) and not np.array_equal(orders[1], order)


def test_batches_in_order_are_views():
    x = np.arange(10)
    pieces = list(data.batches(x, size=4, shuffle=False, drop_last=True))
    assert [piece.tolist() for piece in pieces] == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert all(piece.base is x for piece in pieces)
    assert list(data.batches(np.zeros(0))) == []


def test_batches_refuse_before_the_first_step():
    with pytest.raises(ValueError, match="size"):
        data.batches(np.zeros(3), size=0)
    with pytest.raises(ValueError, match="x, y"):
        data.batches(np.zeros(3), np.zeros(2))


# ----------------------------------------------------------------------------------------------------------------- toys
def perceptron(x, y, epochs):
    """Rosenblatt's rule; the weights and the number of mistakes in the last epoch."""
    x = np.column_stack([x.reshape(len(x), -1), np.ones(len(x))])
    weights, mistakes = np.zeros(x.shape[1]), 0
    for _ in range(epochs):
        mistakes = 0
        for cells, sign in zip(x, 2 * y - 1, strict=True):
            if sign * (weights @ cells) <= 0:
                weights += sign * cells
                mistakes += 1
        if not mistakes:
            break
    return weights, mistakes


def accuracy(weights, x, y):
    return ((x.reshape(len(x), -1) @ weights[:-1] + weights[-1] > 0) == y).mean()


@pytest.mark.parametrize("kind", data.TOYS)
def test_toys_have_types_and_depend_on_the_seed(kind):
    x, y = data.toy(kind, 40, 1)
    again, other = data.toy(kind, 40, 1), data.toy(kind, 40, 2)
    assert x.shape == ((40, 20, 20) if kind == "photocells" else (40, 2))
    assert x.dtype == np.float32 and y.dtype == np.int64 and y.shape == (40,) and set(y) == {0, 1}
    assert np.array_equal(x, again[0]) and np.array_equal(y, again[1])
    assert kind == "xor" or not np.array_equal(x, other[0])
    assert kind == "linear" or np.bincount(y).tolist() == [20, 20]


@pytest.mark.parametrize("seed", range(3))
def test_a_perceptron_learns_photocells(seed):
    x, y = data.toy("photocells", 600, seed)
    assert set(np.unique(x)) == {0, 1}
    weights, mistakes = perceptron(x[:400], y[:400], 50)
    assert mistakes == 0 and accuracy(weights, x[400:], y[400:]) > 0.95


def test_photocells_are_squares_and_triangles():
    x, y = data.toy("photocells", 200, 0, noise=0)
    for image, label in zip(x, y, strict=True):
        rows = image.sum(1)[image.any(1)]
        assert image[0].sum() == image[-1].sum() == 0 and 8 <= len(rows) <= 12
        widths = [len(rows)] * len(rows) if label == 0 else [w + (len(rows) - w) % 2 for w in range(1, len(rows) + 1)]
        assert rows.tolist() == widths
    noisy = data.toy("photocells", 200, 0, noise=0.1)[0]
    assert 0.09 < (noisy != x).mean() < 0.11


def test_a_perceptron_learns_linear_but_not_xor():
    for seed in range(5):
        x, y = data.toy("linear", 300, seed)
        weights, mistakes = perceptron(x, y, 500)
        assert mistakes == 0 and accuracy(weights, x, y) == 1 and 0.2 < y.mean() < 0.8
    x, y = data.toy("xor")
    assert perceptron(x, y, 200)[1] > 0
    assert data.toy("xor", 6)[1].tolist() == [0, 1, 1, 0, 0, 1]


@pytest.mark.parametrize(("kind", "classes"), [("spirals", 2), ("spirals", 3), ("moons", 2)])
def test_curved_toys_need_more_than_a_line(kind, classes):
    x, y = data.toy(kind, 600, 0, classes=classes)
    design = np.column_stack([x, np.ones(len(x))])
    lines = np.linalg.lstsq(design, data.one_hot(y), rcond=None)[0]
    straight = ((design @ lines).argmax(1) == y).mean()
    distance = ((x[:, None] - x[None]) ** 2).sum(-1) + 1e9 * np.eye(len(x))
    neighbour = (y[distance.argmin(1)] == y).mean()
    assert neighbour > 0.95 and straight < 0.92 and straight < neighbour - 0.05


def test_blobs_classes_and_noise():
    x, y = data.toy("blobs", 301, 0, noise=0, classes=4)
    assert np.bincount(y).tolist() == [76, 75, 75, 75] and len(np.unique(x, axis=0)) == 4
    assert np.allclose((x ** 2).sum(1), 1)
    spread = data.toy("blobs", 3000, 0, noise=0.5)
    assert abs(spread[0][spread[1] == 0].std(0) - 0.5).max() < 0.03


def test_toy_errors():
    with pytest.raises(UnknownName, match="did you mean 'spirals'"):
        data.toy("spiral")
    for arguments, word in (({"n": 0}, "n"), ({"noise": -1}, "noise"), ({"noise": np.nan}, "noise"),
                            ({"classes": 3}, "classes"), ({"classes": 1}, "classes")):
        with pytest.raises(ValueError, match=f"{word}: expected"):
            data.toy("moons", **arguments)
    with pytest.raises(ValueError, match="noise"):
        data.toy("photocells", noise=1.5)


# -------------------------------------------------------------------------------------------------------- the package
@pytest.mark.parametrize("module", MODULES)
def test_examples_in_docstrings_run(module):
    name = "engine.data" if module == "__init__" else f"engine.data.{module}"
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_every_public_name_is_documented():
    for name in data.__all__:
        assert name.isupper() or getattr(data, name).__doc__


def test_import_is_light():
    """Only NumPy, the standard library and the engine's bottom; and of the library nothing that only few calls need."""
    allowed = {"numpy", "engine.errors", "engine.settings", *sys.stdlib_module_names}
    own = {"augment": {"engine", "engine.graph", "engine.runtime"}, "images": {"PIL"}}      # inside functions only
    for path in PACKAGE.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            assert "pickle" not in names and not getattr(node, "level", 0)
            for name in names:
                here = allowed | own.get(path.stem, set())
                assert name in here or name.partition(".")[0] in here - {"engine"} or name.startswith("engine.data"), (
                    path.name, name)
    code = (
        "import sys, types, numpy; root = types.ModuleType('engine'); root.__path__ = [sys.argv[1]];"
        "sys.modules['engine'] = root; before = set(sys.modules); import engine.data; new = set(sys.modules) - before;"
        "heavy = {'numba', 'llvmlite', 'urllib.request', 'tarfile', 'tempfile', 'numpy.random', 'sklearn'} & new;"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code, str(PACKAGE.parent)], check=True)
