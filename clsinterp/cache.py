"""ActivationCache: activations by hook name, and what the residual stream is made of."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from einops import rearrange
from jaxtyping import Float, Int
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.hookpoints import ATTN, attn_bias, head_results, layer_scale, mlp_maps

if TYPE_CHECKING:
    from clsinterp.model import VisionModel

Key = str | tuple


class ActivationCache(Mapping[str, Tensor]):
    """Activations of one forward, by hook name or shorthand: ``cache["resid_post", 3]``, ``cache["pattern", -1]``,
    ``cache["scale", 3, "ln1"]``, ``cache["embed"]``.

    Args:
        activations: hook name -> tensor.
        model: the model they come from; its weights are needed to take the residual stream apart.
        has_batch_dim: whether the first axis is the batch.
        grads: hook name -> gradient.
    """

    def __init__(
        self,
        activations: dict[str, Tensor],
        model: "VisionModel",
        has_batch_dim: bool = True,
        grads: dict[str, Tensor] | None = None,
    ) -> None:
        self.activations, self.model, self.has_batch_dim, self.grads = activations, model, has_batch_dim, grads or {}

    # -- mapping ---------------------------------------------------------------

    def name(self, key: Key) -> str:
        """The full hook name that `key` stands for."""
        if isinstance(key, str):
            return key if key in self.activations or "hook_" in key else f"hook_{key}"
        what, layer, *part = key
        if layer is None:
            return f"{part[0]}.hook_{what}" if part else f"hook_{what}"
        layer = layer + self.model.n_layers if layer < 0 else layer
        where = part[0] if part else self._part(what)
        return ".".join(filter(None, (f"blocks.{layer}", where, f"hook_{what}")))

    @staticmethod
    def _part(what: str) -> str:
        if f"hook_{what}" in ATTN:
            return "attn"
        return "mlp" if what in ("pre", "post") else ""

    def __getitem__(self, key: Key) -> Tensor:
        name = self.name(key)
        if name not in self.activations:
            some = ", ".join(list(self.activations)[:4])
            raise KeyError(
                f"{name} is not in this cache of {len(self.activations)} activations ({some}, ..); ask for it in names_filter"
            )
        return self.activations[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.activations)

    def __len__(self) -> int:
        return len(self.activations)

    def __contains__(self, key: object) -> bool:
        return self.name(key) in self.activations if isinstance(key, (str, tuple)) else False

    def grad(self, key: Key) -> Tensor:
        """Gradient at a hook name.

        Raises:
            KeyError: it was not asked for with ``incl_bwd``.
        """
        name = self.name(key)
        if name not in self.grads:
            raise KeyError(
                f"no gradient at {name}; run_with_cache(.., incl_bwd=function of the logits) keeps gradients"
            )
        return self.grads[name]

    def to(self, device: str | torch.device) -> "ActivationCache":
        """The same cache with its tensors on `device`."""
        moved, grads = ({n: t.to(device) for n, t in x.items()} for x in (self.activations, self.grads))
        return ActivationCache(moved, self.model, self.has_batch_dim, grads)

    def remove_batch_dim(self) -> "ActivationCache":
        """The cache of a single image without its batch axis.

        Raises:
            RequestError: it holds several images.
        """
        if not self.has_batch_dim:
            return self
        if any(len(t) != 1 for t in self.activations.values()):
            raise RequestError("the batch axis can be removed only from a cache of one image.")
        flat, grads = ({n: t[0] for n, t in x.items()} for x in (self.activations, self.grads))
        return ActivationCache(flat, self.model, False, grads)

    def save(self, path: str | Path) -> None:
        """Write activations and gradients as safetensors."""
        # Clones, since one tensor may stand under two names (a block's output is the next one's input).
        tensors = {n: t.clone(memory_format=torch.contiguous_format) for n, t in self.activations.items()}
        tensors |= {f"grad:{n}": t.contiguous() for n, t in self.grads.items()}
        save_file(tensors, path, metadata={"has_batch_dim": json.dumps(self.has_batch_dim)})

    @classmethod
    def load(cls, path: str | Path, model: "VisionModel") -> "ActivationCache":
        """Read what `save` wrote; `model` must be the one the activations came from."""
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            has_batch_dim = json.loads(file.metadata()["has_batch_dim"])
        grads = {n.removeprefix("grad:"): t for n, t in tensors.items() if n.startswith("grad:")}
        return cls({n: t for n, t in tensors.items() if not n.startswith("grad:")}, model, has_batch_dim, grads)

    # -- the residual stream taken apart -----------------------------------------

    def stack_activation(self, what: str, layer: int | None = None, part: str | None = None) -> Tensor:
        """``what`` of every block before `layer` (default all), stacked on a new first axis."""
        keys = [(what, i, part) if part else (what, i) for i in range(self._upto(layer))]
        return torch.stack([self[key] for key in keys])

    def accumulated_resid(
        self, layer: int | None = None, incl_mid: bool = False, apply_ln: bool = False, return_labels: bool = False
    ) -> Any:
        """The residual stream as it grows: before block 0, .. before block `layer` (default: after the last one).

        Args:
            layer: up to the stream that enters this block.
            incl_mid: also between attention and MLP of each block.
            apply_ln: apply the norm that reads the last of them, with its scale frozen.
            return_labels: also return names.

        Returns:
            (component, batch, token, d_model).
        """
        upto, labels, parts = self._upto(layer), [], []
        for i in range(upto):
            labels.append(f"{i}_pre")
            parts.append(self["resid_pre", i])
            if incl_mid:
                labels.append(f"{i}_mid")
                parts.append(self["resid_mid", i])
        labels.append(f"{upto}_pre" if upto < self.model.n_layers else "final_post")
        parts.append(self["resid_post", upto - 1] if upto else self["resid_pre", 0])
        stack = torch.stack(parts)
        stack = self.apply_ln_to_stack(stack, layer) if apply_ln else stack
        return (stack, labels) if return_labels else stack

    def decompose_resid(
        self, layer: int | None = None, mode: str = "all", apply_ln: bool = False, return_labels: bool = False
    ) -> Any:
        """What was added to the stream before block `layer` (default: in all): embeddings, attention and MLP outputs.

        With ``mode="all"`` the components sum to the residual stream there; ``attn`` and ``mlp`` give only those.

        Returns:
            (component, batch, token, d_model).
        """
        if mode not in ("all", "attn", "mlp"):
            raise RequestError(f"mode {mode!r} was given; all, attn or mlp is expected.")
        parts, labels = self._embeds() if mode == "all" else ([], [])
        for i in range(self._upto(layer)):
            for kind in ("attn", "mlp"):
                if mode in ("all", kind):
                    parts.append(self[f"{kind}_out", i])
                    labels.append(f"{i}_{kind}_out")
        return self._stacked(parts, labels, layer, apply_ln, return_labels)

    def stack_head_results(
        self,
        layer: int | None = None,
        incl_remainder: bool = False,
        apply_ln: bool = False,
        return_labels: bool = False,
    ) -> Any:
        """What each head of each block before `layer` added to the stream, (head, batch, token, d_model).

        From ``hook_result`` where it is cached, else from ``hook_z``. `incl_remainder` adds the rest of the stream as a
        last component.
        """
        parts, labels = self._heads(self._upto(layer))
        if incl_remainder:
            stream = self.accumulated_resid(layer)[-1]
            parts.append(stream - torch.stack(parts).sum(0) if parts else stream)
            labels.append("remainder")
        return self._stacked(parts, labels, layer, apply_ln, return_labels)

    def get_full_resid_decomposition(
        self,
        layer: int | None = None,
        expand_neurons: bool = False,
        apply_ln: bool = False,
        return_labels: bool = False,
    ) -> Any:
        """Heads, MLPs (or their neurons), embeddings and biases; they sum to the stream before block `layer`.

        `expand_neurons` gives one component per MLP neuron: large.
        """
        upto = self._upto(layer)
        parts, labels = self._heads(upto)
        bias = torch.zeros_like(self["resid_pre", 0])
        for i in range(upto):
            bias = bias + attn_bias(self.model, i)
            if not expand_neurons:
                parts.append(self["mlp_out", i])
                labels.append(f"{i}_mlp_out")
                continue
            mlp = self.model.blocks[i].mlp._module
            out = getattr(mlp, mlp_maps(mlp)[1])
            post, scale = self["post", i], layer_scale(self.model, i, "scale2")
            neurons = torch.einsum("...n,mn->n...m", post, out.weight) * scale
            parts += list(neurons)
            labels += [f"{i}_neuron_{n}" for n in range(len(neurons))]
            bias = bias + (out.bias * scale if out.bias is not None else 0)
        embeds, names = self._embeds()
        return self._stacked([*parts, *embeds, bias], [*labels, *names, "bias"], layer, apply_ln, return_labels)

    def apply_ln_to_stack(
        self, stack: Float[Tensor, "component ... token d_model"], layer: int | None = None, mlp_input: bool = False
    ) -> Tensor:
        """The norm before block `layer`'s attention (or MLP; default: the final norm) on each component, scale frozen.

        Centred, divided by the cached scale, times the norm's weight. Its bias is left out, since it belongs to no
        component: the results sum to the norm's output minus its bias. CLIP has no final norm: the stack comes back.
        """
        if layer is None or layer == self.model.n_layers:
            norm, key = self.model.lens_norm, "ln_final.hook_scale"
            if norm is None:
                return stack
        else:
            which = "ln2" if mlp_input else "ln1"
            layer = layer + self.model.n_layers if layer < 0 else layer
            norm, key = getattr(self.model.blocks[layer], which)._module, f"blocks.{layer}.{which}.hook_scale"
        scale = self[key]
        if scale.ndim < stack.ndim - 1:  # BEiT's norm after the patch mean has one scale per image
            scale = scale.unsqueeze(-2)
        return (stack - stack.mean(-1, keepdim=True)) / scale * norm.weight

    def class_directions(self, labels: Int[Tensor, "*rows"]) -> Float[Tensor, "*rows d_readout"]:
        """The classifier's weights for `labels`, over the concatenated read-outs (DeiT: each head's, halved)."""
        heads = self.model.heads
        if not heads:
            raise RequestError(f"a {self.model.family.name} checkpoint has no classifier.")
        return torch.cat([head.weight / len(heads) for head in heads], dim=-1)[labels]

    def logit_attrs(
        self, components: Float[Tensor, "component batch token d_model"], labels: int | Int[Tensor, " batch"]
    ) -> Float[Tensor, "component batch"]:
        """How much each component adds to the logit of `labels`, through the final norm (scale frozen) and the read-outs.

        Components that sum to the last residual stream give attributions that sum to the logit minus `logit_constant`.
        """
        index = torch.as_tensor(labels)
        directions = self.class_directions(index).split(self.model.d_model, dim=-1)
        normed = self.apply_ln_to_stack(components)
        total: Any = 0
        for readout, direction in zip(self.model.family.readouts, directions, strict=True):
            where = self.model.layout.index("patches" if readout == "patch_mean" else readout)
            tokens = normed[..., where, :]
            pooled = tokens.mean(-2) if readout == "patch_mean" else tokens
            total = total + (pooled * direction).sum(-1)
        return total

    def logit_constant(self, labels: int | Int[Tensor, " batch"]) -> Tensor:
        """The part of the logit of `labels` that no component makes: the classifier's bias and the final norm's."""
        index = torch.as_tensor(labels)
        bias = torch.stack([head.bias for head in self.model.heads]).mean(0)[index]
        if self.model.lens_norm is None:
            return bias
        parts = self.class_directions(index).split(self.model.d_model, dim=-1)
        return bias + torch.stack([(part * self.model.lens_norm.bias).sum(-1) for part in parts]).sum(0)

    # -- helpers -----------------------------------------------------------------

    def _upto(self, layer: int | None) -> int:
        n = self.model.n_layers
        upto = n if layer is None else layer + n if layer < 0 else layer
        if not 0 <= upto <= n:
            raise RequestError(f"layer {layer} was given; this model has layers 0 to {n - 1}.")
        return upto

    def _embeds(self) -> tuple[list[Tensor], list[str]]:
        """What enters block 0: tokens and positions, or CLIP's normed sum, which cannot be taken apart."""
        entering = self["resid_pre", 0]
        if "hook_pos_embed" not in self.activations or self.model.family.ln_pre:
            return [entering], ["ln_pre" if self.model.family.ln_pre else "full_embed"]
        positions = self["hook_pos_embed"]
        return [entering - positions, positions], ["embed", "pos_embed"]

    def _heads(self, upto: int) -> tuple[list[Tensor], list[str]]:
        parts, labels = [], []
        for i in range(upto):
            if ("result", i) in self:
                result = self["result", i]
            else:
                z = self["z", i]
                result = head_results(self.model, i, z if self.has_batch_dim else z.unsqueeze(0))
                result = result if self.has_batch_dim else result[0]
            parts += list(rearrange(result, "... h m -> h ... m"))
            labels += [f"L{i}H{h}" for h in range(self.model.n_heads)]
        return parts, labels

    def _stacked(self, parts: list, labels: list[str], layer: int | None, apply_ln: bool, return_labels: bool) -> Any:
        if not parts:
            raise RequestError("there are no components before block 0.")
        stack = torch.stack(parts)
        stack = self.apply_ln_to_stack(stack, layer) if apply_ln else stack
        return (stack, labels) if return_labels else stack
