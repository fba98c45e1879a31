"""PyTorch's files, written here byte by byte: what is read, what is refused, and how weights find their layers."""
import io
import os
import pickle
import random
import struct
import zipfile

import numpy as np
import pytest

import engine
from engine import BatchNorm, Concat, Conv2D, Dense, Flatten, Input, Sequential
from engine.errors import EngineError, FileError, UnknownName
from engine.torch_file import read
from engine.torch_weights import feature_orders, load_torch, torch_state

KINDS = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage", "u1": "ByteStorage",
         "bfloat16": "BFloat16Storage"}


def text(word):
    data = word.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value):
    return b"J" + struct.pack("<i", value)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(key, kind, count, offset, shape, strides):
    """The instructions that make a tensor of a storage."""
    storage = b"(" + text("storage") + f"ctorch\n{KINDS[kind]}\n".encode() + text(key) + text("cpu") + number(count)
    return (b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"tQ" + number(offset) + numbers(shape)
            + numbers(strides) + b"\x89ccollections\nOrderedDict\n)RtR")


def dictionary(entries):
    """The pickle of {name: instructions}."""
    return b"\x80\x02}(" + b"".join(text(name) + made for name, made in entries.items()) + b"u."


def archive(path, data, storages):
    """A file as torch.save writes it."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/byteorder", "little")
        for key, content in storages.items():
            file.writestr(f"archive/data/{key}", content)
    return path


def legacy(path, data, storages):
    """A file as torch.save wrote it before version 1.6; storages: key -> (element size, bytes)."""
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
    keys = b"\x80\x02](" + b"".join(map(text, storages)) + b"e."
    body = b"".join(struct.pack("<q", len(c) // size) + c for size, c in storages.values())
    path.write_bytes(magic + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2) + data + keys + body)
    return path


def saved(path, arrays):
    """A zip file of contiguous arrays."""
    entries, storages = {}, {}
    for key, (name, array) in enumerate(arrays.items()):
        array = np.ascontiguousarray(array)
        strides = [s // array.itemsize for s in array.strides]
        entries[name] = tensor(str(key), array.dtype.str[1:], array.size, 0, array.shape, strides)
        storages[key] = array.tobytes()
    return archive(path, dictionary(entries), storages)


# -------------------------------------------------------------------------------------------------------------- reading


def test_strides_offsets_kinds_and_shared_storages(tmp_path):
    base = np.arange(20, dtype=np.float32)
    half, large = np.array([1.5, -2.0], "f2"), np.array([2 ** 40, -1], "i8")
    brain = (np.array([1.0, -3.5, 1e30], np.float32).view(np.uint32) >> 16).astype("<u2")
    entries = {
        "whole": tensor("0", "f4", 20, 0, (4, 5), (5, 1)),
        "turned": tensor("0", "f4", 20, 0, (5, 4), (1, 5)),
        "part": tensor("0", "f4", 20, 7, (2, 3), (5, 1)),
        "again": tensor("0", "f4", 20, 3, (4,), (0,)),
        "one": tensor("0", "f4", 20, 19, (), ()),
        "none": tensor("0", "f4", 20, 20, (0, 3), (3, 1)),
        "half": tensor("1", "f2", 2, 0, (2,), (1,)),
        "brain": tensor("2", "bfloat16", 3, 0, (3,), (1,)),
        "large": tensor("3", "i8", 2, 0, (2,), (1,)),
        "double": tensor("4", "f8", 1, 0, (1,), (1,)),
        "epoch": number(7),
    }
    storages = {"0": (4, base.tobytes()), "1": (2, half.tobytes()), "2": (2, brain.tobytes()),
                "3": (8, large.tobytes()), "4": (8, np.array([np.pi]).tobytes())}
    for path in (archive(tmp_path / "a.pt", dictionary(entries), {k: c for k, (_, c) in storages.items()}),
                 legacy(tmp_path / "b.pth", dictionary(entries), storages)):
        found = read(path)
        table = base.reshape(4, 5)
        np.testing.assert_array_equal(found["whole"], table)
        np.testing.assert_array_equal(found["turned"], table.T)
        np.testing.assert_array_equal(found["part"], table[1:3, 2:])
        np.testing.assert_array_equal(found["again"], [3, 3, 3, 3])
        assert found["one"] == 19 and found["one"].shape == () and found["none"].shape == (0, 3)
        np.testing.assert_array_equal(found["half"], half)
        np.testing.assert_allclose(found["brain"], [1.0, -3.5, 1e30], rtol=2 ** -7)
        assert found["brain"].dtype == np.float32 and found["double"] == np.pi and found["epoch"] == 7
        np.testing.assert_array_equal(found["large"], large)
        assert np.shares_memory(found["whole"], found["part"]) and not found["whole"].flags.writeable


def test_safetensors_with_halves(tmp_path):
    import json
    brain = (np.array([2.0, -0.5], np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
    plain = np.arange(6, dtype=np.float32).tobytes()
    header = json.dumps({"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]},
                         "b": {"dtype": "F32", "shape": [2, 3], "data_offsets": [4, 28]}}).encode()
    (tmp_path / "m.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + brain + plain)
    found = read(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(found["a"], [2.0, -0.5])
    np.testing.assert_array_equal(found["b"], np.arange(6).reshape(2, 3))


class Payload:
    """Unpickled, it would run a command."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.system, (f"touch {self.proof}",)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_payload_is_refused_and_does_not_run(tmp_path, protocol):
    proof = tmp_path / "ran"
    data = pickle.dumps({"w": Payload(proof)}, protocol)
    for path in (archive(tmp_path / "a.pt", data, {}), legacy(tmp_path / "b.pt", data, {})):
        with pytest.raises(FileError, match="refused: the file"):
            read(path)
    (tmp_path / "c.pt").write_bytes(data)
    with pytest.raises(FileError):
        read(tmp_path / "c.pt")
    assert not proof.exists()
    pickle.loads(data)
    assert proof.exists(), "the payload is real: unpickled it runs"


def hostile(instructions, storages=None):
    return lambda path: archive(path, b"\x80\x02" + instructions, storages or {})


def compressed(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", dictionary({"w": tensor("0", "u1", 1 << 20, 0, (1 << 20,), (1,))}))
        file.writestr("archive/data/0", bytes(1 << 20))
    return path


def tar(path):
    import tarfile
    with tarfile.open(path, "w") as file:
        file.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
    return path


def written(data):
    def write(path):
        path.write_bytes(data)
        return path
    return write


REFUSED = {
    "a builtin": ("asks for builtins.eval", hostile(b"cbuiltins\neval\n(" + text("1") + b"tR.")),
    "a whole module": (r"asks for torch.nn.modules.linear.Linear; .* torch.save\(model.state_dict\(\), path\)",
                       hostile(b"ctorch.nn.modules.linear\nLinear\n)\x81}b.")),
    "a name below an allowed one": ("asks for torch._utils._rebuild_tensor_v2.__globals__",
                                    hostile(text("torch._utils") + text("_rebuild_tensor_v2.__globals__") + b"\x93.")),
    "an object made without a call": (r"instruction b'\\x81'", hostile(b"ccollections\nOrderedDict\n)\x81.")),
    "an instance": (r"instruction b'i'", hostile(b"(ios\nsystem\n.")),
    "an extension": (r"instruction b'\\x82'", hostile(b"\x82\x01.")),
    "a call of a string": ("calls what is no function", hostile(text("print") + b")R.")),
    "a call of a storage": ("calls what is no function", hostile(b"ctorch\nFloatStorage\n)R.")),
    "attributes of a name": ("sets attributes of what is no dictionary", hostile(b"ccollections\nOrderedDict\n}b.")),
    "a method appended to": ("appends to what is no list", hostile(b"}" + number(1) + b"a.")),
    "a tensor outside its storage": ("reaches element 9 of a storage of 4", hostile(
        dictionary({"w": tensor("0", "f4", 4, 0, (10,), (1,))})[2:], {"0": bytes(16)})),
    "a tensor before its storage": ("cannot be", hostile(
        dictionary({"w": tensor("0", "f4", 4, -1, (2,), (1,))})[2:], {"0": bytes(16)})),
    "a storage that is too short": ("a storage of 400 elements has only 16 bytes", hostile(
        dictionary({"w": tensor("0", "f4", 400, 0, (4,), (1,))})[2:], {"0": bytes(16)})),
    "a storage of fewer than none": ("a storage of -1 elements", hostile(
        dictionary({"w": tensor("0", "f4", -1, 0, (0,), (1,))})[2:], {"0": bytes(16)})),
    "a storage that is not there": ("is damaged", hostile(
        dictionary({"w": tensor("9", "f4", 4, 0, (4,), (1,))})[2:], {"0": bytes(16)})),
    "a bomb": ("compressed or larger", compressed),
    "a pickle cut short": ("the file ends within its pickle", hostile(dictionary({"w": number(3)})[2:-3])),
    "a stack that is empty": ("is damaged", hostile(b"R.")),
    "a zip of something else": ("is a zip archive, but not one of torch.save", lambda path: _zip_of_text(path)),
    "the oldest format": ("is a tar archive, PyTorch's format before version 0.1.10", tar),
    "another pickle": ("is a pickle, but not one of torch.save", written(pickle.dumps({"a": 1}, 2))),
    "a text": ("is neither a file of torch.save nor a safetensors file; it begins with b'hello", written(b"hello you")),
    "nothing": ("is neither a file of torch.save", written(b"")),
}


def _zip_of_text(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "hello")
    return path


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_state_dict_is_refused(case, tmp_path):
    match, write = REFUSED[case]
    with pytest.raises(FileError, match=match):
        read(write(tmp_path / "m.pt"))


def test_damaged_files_are_refused_and_nothing_else_happens(tmp_path):
    rng = random.Random(0)
    whole = saved(tmp_path / "m.pt", {"a": np.ones((3, 4), "f4"), "b": np.ones(2)}).read_bytes()
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        if rng.random() < 0.3:
            data = data[:rng.randrange(len(data))]
        else:
            for _ in range(3):
                data[rng.randrange(400)] = rng.randrange(256)
        (tmp_path / "d.pt").write_bytes(data)
        try:
            read(tmp_path / "d.pt")
        except FileError:
            refused += 1
    assert refused > 200


# ------------------------------------------------------------------------------------------------- weights into a model


def small():
    return Sequential([Input((3, 5, 2)), Conv2D(4, (2, 3), name="c"), BatchNorm(name="n"), Flatten(),
                       BatchNorm(name="f"), Dense(6, name="d"), Dense(3, name="e")])


def state(rng):
    """Arrays of `small` as PyTorch has them."""
    def norm(name, size):
        return {f"{name}.{k}": rng.standard_normal(size) for k in ("weight", "bias", "running_mean", "running_var")}
    return {"c.weight": rng.standard_normal((4, 2, 2, 3)), "c.bias": rng.standard_normal(4), **norm("n", 4),
            "n.num_batches_tracked": np.array(5), **norm("f", 24), "d.weight": rng.standard_normal((6, 24)),
            "d.bias": rng.standard_normal(6), "e.weight": rng.standard_normal((3, 6)), "e.bias": rng.standard_normal(3)}


def test_layouts_and_the_features_behind_a_flatten(tmp_path):
    given = {k: v.astype("f4") if v.ndim else v for k, v in state(np.random.default_rng(0)).items()}
    model = small()
    report = load_torch(model, saved(tmp_path / "m.pt", given))
    assert report.complete and report.by == "names" and len(report.loaded) == 14
    found = model.weights
    np.testing.assert_array_equal(found["c.kernel"], given["c.weight"].transpose(2, 3, 1, 0))
    for h, w, c in np.ndindex(2, 3, 4):
        here, there = (h * 3 + w) * 4 + c, (c * 2 + h) * 3 + w
        np.testing.assert_array_equal(found["d.kernel"][here], given["d.weight"][:, there])
        assert found["f.moving_mean"][here] == given["f.running_mean"][there]
    np.testing.assert_array_equal(found["e.kernel"], given["e.weight"].T)
    back = torch_state(model)
    for name, array in back.items():
        np.testing.assert_array_equal(array, given[name])
    assert set(back) == set(given) - {"n.num_batches_tracked"}


def test_features_of_flattened_branches_are_placed_one_after_the_other():
    model = Sequential([Input((2, 2, 3)), Concat([[Flatten()], [Flatten(), Dense(2)]]), Dense(1, name="last")])
    order = feature_orders(model.build().network)["last"]
    np.testing.assert_array_equal(order[:12], np.arange(12).reshape(3, 2, 2).transpose(1, 2, 0).ravel())
    np.testing.assert_array_equal(order[12:], [12, 13])


def test_weights_are_found_by_order_and_by_other_names():
    given = state(np.random.default_rng(1))
    del given["n.num_batches_tracked"]
    other = {f"module.net.{'abcde'['cnfde'.index(k[0])]}{k[1:]}": v for k, v in given.items()}
    model, plain = small(), small()
    report = load_torch(model, {"epoch": 3, "state_dict": other})
    assert report.by == "order" and report.complete
    load_torch(plain, given)
    for a, b in zip(model.get_weights(), plain.get_weights()):
        np.testing.assert_array_equal(a, b)
    again = small()
    names = {k: f"net.{v}" for k, v in zip("cnfde", "abcde")}
    assert load_torch(again, other, names=names).complete
    np.testing.assert_array_equal(again.weights["d.kernel"], plain.weights["d.kernel"])
    with pytest.raises(UnknownName, match="load_torch: names: unknown name 'x'"):
        load_torch(again, other, names={"x": "net.a"})
    with pytest.raises(EngineError, match="expected names as"):
        load_torch(again, other, names=3)


def test_what_does_not_fit_is_reported_and_changes_nothing():
    given = state(np.random.default_rng(2))
    given["e.weight"] = np.ones((5, 6))
    given["head.weight"] = given.pop("d.bias")
    model = small()
    before = [w.tobytes() for w in model.build().get_weights()]
    with pytest.raises(FileError, match="Nothing was changed") as caught:
        load_torch(model, given)
    assert [w.tobytes() for w in model.get_weights()] == before
    for line in ("12 weights loaded by names", "missing     d.bias: the file has no 'd.bias'",
                 "unexpected  head.weight",
                 r"mismatched  e.kernel: expected 'e.weight' of shape (3, 6), got (5, 6)"):
        assert line in str(caught.value)
    report = load_torch(model, given, strict=False)
    assert not report.complete and len(report.loaded) == 12
    np.testing.assert_array_equal(model.weights["e.bias"], given["e.bias"].astype("f4"))


def test_sources_that_hold_no_weights_have_their_sentence(tmp_path):
    with pytest.raises(FileError, match="expected a state dict, names and tensors, in the dictionary, got only a"):
        load_torch(small(), {"a": 1})
    path = archive(tmp_path / "m.pt", b"\x80\x02" + number(3) + b".", {})
    with pytest.raises(FileError, match="got int"):
        load_torch(small(), path)
    with pytest.raises(FileNotFoundError):
        load_torch(small(), tmp_path / "absent.pt")
    with pytest.raises(EngineError, match="not built"):
        engine.load_torch(Sequential([Dense(2)]), {"a": np.ones(2)})
