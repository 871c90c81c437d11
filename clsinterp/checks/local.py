"""Does this package read and write the model where it says? Checked against plain torch, checkpoint by checkpoint."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from torch import Tensor

from clsinterp.checks.plain_hooks import edited_forward
from clsinterp.checks.plain_sweep import plain_forward, sweep
from clsinterp.interventions import derange, generator
from clsinterp.models.classified import Classified
from clsinterp.models.layers import EMBEDDINGS
from clsinterp.models.loading import load_checkpoint, plain_of
from clsinterp.models.outputs import hidden_of, logits_of
from clsinterp.models.source import resolve
from clsinterp.models.tokens import GROUPS
from clsinterp.probing.head import Head
from clsinterp.probing.ridge import RidgeStats, solve
from clsinterp.sweeps.fork import fork
from clsinterp.sweeps.readers import Readers
from clsinterp.vision_model import VisionModel

BATCH = 5


@dataclass(frozen=True)
class Finding:
    """One thing that was checked.

    Attributes:
        what: the claim.
        holds: whether it was seen to hold.
        detail: what was measured.
    """

    what: str
    holds: bool
    detail: str = ""


def check(model: VisionModel) -> Iterator[Finding]:
    """Yield findings about `model`, in order of depth; it is left as it came.

    Checked: the family table against the module tree and the weights against the model (both already at load), logits
    against the library's own forward to the last bit, every token view read, assigned and edited in place against a
    plain torch hook, several invokes in one trace, every hook name read and edited against blocks spelled out in plain
    torch, and the fork against one hooked forward per layer.
    """
    family = model.family
    yield Finding(
        "table row fits the module tree", True, f"{family.name}, {model.n_layers} blocks, width {model.d_model}"
    )
    own = "own classifier" if model.checkpoint.head_is_own else "no classifier of its own: a head can be fitted"
    yield Finding("every backbone weight was in the checkpoint", True, own)
    pixels = _pixels(model)
    of_names = family.text and family.library == "transformers" and model.checkpoint.source
    yield _pooled(model, pixels) if of_names else _logits(model, pixels)
    for group in (g for g in GROUPS if g in model.layout.slices):
        yield _view(model, pixels, group)
    yield _invokes(model, pixels)
    yield from _hooks(model, pixels)
    if not family.has_cls:
        yield Finding("fork", True, f"not for {family.name}: it has no CLS token to swap")
        return
    yield from _fork(model, pixels)


def _pixels(model: VisionModel) -> Tensor:
    """Random images: of the size in the config, or of 4 x 4 patches where that is over 256 and any size fits (DINOv2)."""
    (height, width), (rows, columns) = model.sizes.image, model.sizes.patch
    if model.family.any_size and height * width > 256 * rows * columns:
        height, width = 4 * rows, 4 * columns
    draw = torch.randn(BATCH, model.sizes.channels, height, width, generator=generator(0))
    return draw.to(next(model._module.parameters()))


def _logits(model: VisionModel, pixels: Tensor) -> Finding:
    """Logits (or, without a classifier, the last hidden state) in a trace against a module that nnsight never touched."""
    plain = _untouched(model)
    read: Any
    read, what = (logits_of, "logits") if model.heads else (hidden_of, "output")
    with torch.no_grad():
        expected = read(plain(pixels))
        with model.trace(pixels):
            output = model.output.save()
        found = read(output)
    same = torch.equal(expected, found)
    library = {"transformers": "Hugging Face"}.get(model.family.library, model.family.library)
    return Finding(
        f"{what} equal {library}'s to the last bit",
        same,
        f"largest difference {float((expected - found).abs().max()):.3g}",
    )


def _pooled(model: VisionModel, pixels: Tensor) -> Finding:
    """For a classifier of class names: what it reads against the pooled output of the vision tower, loaded for itself."""
    checkpoint, parameter = model.checkpoint, next(model._module.parameters())
    whole = getattr(transformers, model.family.hf_class).from_pretrained(
        resolve(checkpoint.source), config=model._module.config, dtype=parameter.dtype, revision=checkpoint.revision
    )
    with torch.no_grad():
        expected = whole.eval().to(parameter.device).vision_model(pixels).pooler_output
        with model.trace(pixels):
            found: Any = model.readout.clone()
            found = found.save()
    same, largest = torch.equal(expected, found), float((expected - found).abs().max())
    return Finding(
        "read-out equals Hugging Face's pooled output to the last bit", same, f"largest difference {largest:.3g}"
    )


def _untouched(model: VisionModel) -> Any:
    """The model loaded anew, and with the same classifier; the very module, where it was given as one."""
    module, checkpoint = model._module, model.checkpoint
    if not checkpoint.source:
        return module
    inner: Any = module.backbone if isinstance(module, Classified) else module
    parameter = next(module.parameters())
    plain: Any
    if (library_s := plain_of(replace(checkpoint, module=inner))) is not None:
        plain = library_s.to(parameter)
    elif type(inner).__name__ in (inner.config.architectures or ()):
        plain = type(inner).from_pretrained(
            resolve(checkpoint.source), config=inner.config, dtype=parameter.dtype, revision=checkpoint.revision
        )
    else:
        plain = load_checkpoint(checkpoint.source, revision=checkpoint.revision, dtype=parameter.dtype).module
    if isinstance(module, Classified):
        plain = Classified(plain, module.head, module.family, module.layout)
    plain = plain.eval().to(parameter.device)
    if checkpoint.head == "fitted":
        for mine, path in zip(model.heads, model.family.heads, strict=True):
            plain.set_submodule(path, mine)
    return plain


def _view(model: VisionModel, pixels: Tensor, group: str) -> Finding:
    """Read, assign and in-place edit of one token view at every block, against hooks."""
    where = model.layout.index(group)
    wrong = []
    for i in range(model.n_layers):
        # The last block's patches reach no output of a CLS read-out, so what is compared is the next residual stream.
        with torch.no_grad():
            states, _, _ = plain_forward(model, pixels)
            edited, _, _ = plain_forward(model, pixels, i, where, lambda t: t.flip(0) * 1.5)
            with model.trace(pixels):
                read = getattr(model.blocks[i], group).clone().save()
                setattr(model.blocks[i], group, getattr(model.blocks[i], group).flip(0) * 1.5)
                after_assigning = model.blocks[-1].output.clone().save()
            with model.trace(pixels):
                view = getattr(model.blocks[i], group)
                view[:] = view.flip(0) * 1.5
                after_editing = model.blocks[-1].output.clone().save()
        last = model.n_layers - 1
        if not torch.equal(read, states[i][:, where]):
            wrong.append(f"read at {i}")
        if not torch.equal(after_assigning, edited[last]) or torch.equal(edited[last], states[last]):
            wrong.append(f"assignment at {i}")
        if not torch.equal(after_editing, edited[last]):
            wrong.append(f"in-place edit at {i}")
    return Finding(f"token view .{group} reads and writes", not wrong, ", ".join(wrong) or f"{model.n_layers} blocks")


def _invokes(model: VisionModel, pixels: Tensor) -> Finding:
    with torch.no_grad():
        states, _, _ = plain_forward(model, pixels)
        with model.trace() as tracer:
            with tracer.invoke(pixels[:2]):
                first = model.blocks[0].resid.clone().save()
            with tracer.invoke(pixels[2:]):
                second = model.blocks[0].resid.clone().save()
    same = torch.equal(torch.cat([first, second]), states[0])
    return Finding("several invokes run as one batch", same)


def _hooks(model: VisionModel, pixels: Tensor) -> Iterator[Finding]:
    """Every hook name: its value, the sums it takes part in, and what an edit there does to the output."""
    names = model.hook_names()
    with torch.no_grad():
        _, cache = model.run_with_cache(pixels, names)
        untouched = model.run_with_hooks(pixels, [(names, lambda tensor, hook: None)])
        plain, logits = edited_forward(model, pixels, None, lambda value: value)
    wrong = [name for name, value in plain.items() if not _close(cache[name], value)]
    yield Finding(
        "every hook reads what plain torch computes there", not wrong, ", ".join(wrong) or f"{len(names)} names"
    )
    sums = [
        f"block {i}"
        for i in range(model.n_layers)
        if not (
            _close(cache["resid_pre", i] + cache["attn_out", i], cache["resid_mid", i])
            and _close(cache["resid_mid", i] + cache["mlp_out", i], cache["resid_post", i])
        )
    ]
    yield Finding("resid_pre + attn_out = resid_mid, resid_mid + mlp_out = resid_post", not sums, ", ".join(sums))
    wrong = [] if _close(untouched, logits) else ["hooks that do nothing"]
    pooled = model.family.lens_norm is not None and model.family.ln_final is None
    for name in names:
        if not model.family.heads and (name == "hook_readout" or (pooled and name.startswith("ln_final"))):
            continue  # the tokens that stand in for logits do not come from there

        def edit(value: Tensor, hook: object = None) -> Tensor:
            spread = float(value.std()) or 1.0  # BEiT and DINOv3 add zeros as position embeddings
            return value * 1.1 + 0.2 * spread * torch.randn(value.shape, generator=generator(3)).to(value)

        _, expected = edited_forward(model, pixels, name, edit)
        with torch.no_grad():
            found = model.run_with_hooks(pixels, [(name, edit)])
        if not _close(found, expected) or torch.equal(found, untouched):
            wrong.append(name)
    yield Finding("an edit at every hook moves the output as in plain torch", not wrong, ", ".join(wrong))


def _close(a: Tensor, b: Tensor) -> bool:
    """Equal up to the rounding of a forward in the model's precision."""
    tolerance = 2e-4 if a.dtype == torch.float32 else 5e-2
    return bool((a - b).abs().max() <= tolerance * max(1.0, float(b.abs().max())))


def _fork(model: VisionModel, pixels: Tensor) -> Iterator[Finding]:
    draw = generator(1)
    n_classes = model.n_classes or 10
    targets = torch.randint(n_classes, (BATCH,), generator=draw)
    layers = tuple(sorted({EMBEDDINGS, 0, model.n_layers // 2, model.n_layers - 1}))
    d = model.d_model
    if model.checkpoint.head_is_own:
        head = Head.of(model.family, model.heads)
    else:
        parts = max(1, len(model.heads)) if model.family.averages_heads else 1
        width = d * len(model.family.readouts) // parts
        maps = tuple(torch.randn(n_classes, width, generator=draw, dtype=torch.float64) for _ in range(parts))
        head = Head(
            maps, tuple(torch.zeros(n_classes, dtype=torch.float64) for _ in maps), model.family.readouts, own=False
        )
    stats = RidgeStats.zeros(len(layers), d, n_classes)
    n = 4 * n_classes
    stats.update(torch.randn(len(layers), n, d, generator=draw), torch.arange(n) % n_classes, torch.arange(n))
    device = next(model._module.parameters()).device
    readers = Readers(head.to(device), probes=solve(stats).to(device), probed=layers)
    donors = derange(BATCH, seed=2)
    expected = sweep(model, pixels, targets.to(device), donors.to(device), readers, layers=layers)
    for size in (None, 2):
        found = fork(model, pixels, targets.to(device), donors, readers, layers=layers, micro_batch=size)
        differ = sorted(set(found) ^ set(expected)) + [k for k in found if not torch.equal(found[k], expected[k].cpu())]
        what = "fork equals one hooked forward per layer" + (f", {size} images at a time" if size else "")
        yield Finding(
            what, not differ, ", ".join(differ) or f"{len(found)} rank columns, layers {', '.join(map(str, layers))}"
        )
    control = torch.equal(found["rank_shuffle_-1"], found["rank_intact"])
    yield Finding("a swap before block 0 changes nothing", control)
