"""The train pass: ridge statistics from one pass over the images, then probes, and heads where they are wanted."""

import time

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from clsinterp.capture import capture
from clsinterp.errors import RunError
from clsinterp.fork import Readers
from clsinterp.loader import batches
from clsinterp.probes import FOLDS, Ridge, RidgeStats, solve
from clsinterp.readout import Head
from clsinterp.request import SAVE_EVERY, Progress
from clsinterp.results import RunFolder
from clsinterp.study import Study


def fit(study: Study, folder: RunFolder, progress: Progress) -> tuple[Readers, Ridge]:
    """Readers for the test pass, from ``probes.safetensors`` in the folder, which is made first if it is not there."""
    saved = folder.path / "probes.safetensors"
    if not saved.exists():
        tensors = _solve(study, *_statistics(study, folder, progress))
        classes = {"classes": "\n".join(study.train.class_names)}
        folder.write(saved, lambda p: save_file(tensors, p, metadata=classes))
    tensors = load_file(saved)
    device = study.model.device
    exact = torch.device("cpu") if device.type == "mps" else device  # MPS has no float64
    ridge = Ridge(*(tensors[f"probe.{name}"] for name in ("weight", "bias", "alpha", "cv_error"))).to(exact)
    if study.match.how == "fit":
        weights, biases = tuple(tensors["head.weight"]), tuple(tensors["head.bias"])
        head = Head(weights, biases, study.model.family.readouts, own=False).to(exact)
    else:
        head = Head.of(study.model.family, study.model.heads)
    cls_head = None
    if study.request.cls_only == "refit":
        cls_head = Head((tensors["cls_head.weight"],), (tensors["cls_head.bias"],), ("cls",), own=False).to(exact)
    return Readers(head, cls_head, ridge, study.layers, study.request.final_norm), ridge


def _statistics(study: Study, folder: RunFolder, progress: Progress) -> tuple[RidgeStats, RidgeStats | None]:
    """Ridge statistics of the CLS tokens at every layer and of the read-out, resumed from the last save."""
    model, n, size = study.model, len(study.train), study.request.batch_size
    n_classes, folds = len(study.train.class_names), min(FOLDS, n)
    cls = RidgeStats(len(study.layers), model.d_model, n_classes, folds)
    parts = len(model.heads) if model.family.averages_heads else 1
    width = model.d_model * len(model.family.readouts) // parts
    wants_head = study.match.how == "fit" or study.request.cls_only == "refit"
    stats = {"cls": cls} | ({"head": RidgeStats(parts, width, n_classes, folds)} if wants_head else {})
    state_file = folder.work / "train.safetensors"
    first = _load(stats, state_file) if state_file.exists() else 0
    labels = torch.tensor(study.train.labels)
    progress("train", min(first * size, n), n)
    saved_at = time.monotonic()
    for b, pixels in enumerate(batches(study.train, model.image_processor, size, first, study.workers), start=first):
        index = torch.arange(b * size, b * size + len(pixels))
        tokens, readout = capture(model, pixels, study.layers)
        _refuse_non_finite(tokens, study.layers)
        cls.update(tokens.cpu(), labels[index], index)
        if wants_head:
            stats["head"].update(torch.stack(readout.cpu().chunk(parts, dim=-1)), labels[index], index)
        progress("train", int(index[-1]) + 1, n)
        if time.monotonic() - saved_at > SAVE_EVERY:
            _save(stats, b + 1, folder, state_file)
            saved_at = time.monotonic()
    return cls, stats.get("head")


def _save(stats: dict[str, RidgeStats], upto: int, folder: RunFolder, path) -> None:
    state = {f"{name}.{key}": value for name, s in stats.items() for key, value in s.state().items()}
    folder.write(path, lambda p: save_file({"next": torch.tensor(upto), **state}, p))


def _load(stats: dict[str, RidgeStats], path) -> int:
    state = load_file(path)
    for name, s in stats.items():
        s.load({key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")})
    return int(state["next"])


def _solve(study: Study, cls: RidgeStats, head: RidgeStats | None) -> dict[str, Tensor]:
    ridge = solve(cls)
    tensors = {f"probe.{name}": getattr(ridge, name) for name in ("weight", "bias", "alpha", "cv_error")}
    tensors["probe.layers"] = torch.tensor(study.layers)
    if head is not None:
        fitted = solve(head)
        tensors |= {"head.weight": fitted.weight, "head.bias": fitted.bias, "head.alpha": fitted.alpha}
    if head is not None and study.request.cls_only == "refit":
        alone = solve(head.part(slice(0, study.model.d_model)))  # the CLS token is the first read-out
        tensors |= {
            "cls_head.weight": alone.weight[0],
            "cls_head.bias": alone.bias[0],
            "cls_head.alpha": alone.alpha[0],
        }
    return {name: tensor.contiguous() for name, tensor in tensors.items()}


def _refuse_non_finite(tokens: Tensor, layers: tuple[int, ...]) -> None:
    finite = torch.isfinite(tokens).all(-1).all(-1)
    if not finite.all():
        layer = layers[int((~finite).nonzero()[0])]
        raise RunError(
            f"NaN or infinity in the CLS tokens, first after layer {layer}. Look at the checkpoint's weights, and at --dtype."
        )
