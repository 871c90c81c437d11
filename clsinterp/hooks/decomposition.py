"""What a cached residual stream is made of, and what each part adds to a logit."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.models.block_maps import attn_bias, head_results, layer_scale, mlp_maps
from clsinterp.models.norms import centred
from clsinterp.models.readouts import pool
from clsinterp.models.text_head import TextHead, embedding_length

if TYPE_CHECKING:
    from clsinterp.models.traced import Traced


class Decomposition(Mapping[Any, Tensor]):
    """The part of `clsinterp.hooks.cache.ActivationCache` that takes the residual stream apart."""

    model: "Traced"
    activations: dict[str, Tensor]
    has_batch_dim: bool

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
            out = getattr(self.model.blocks[i].mlp._module, mlp_maps(self.model, i)[1])
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
            norm, key = cast(Any, self.model.lens_norm), "ln_final.hook_scale"
            if norm is None:
                return stack
        else:
            which = "ln2" if mlp_input else "ln1"
            layer = layer + self.model.n_layers if layer < 0 else layer
            norm, key = getattr(self.model.blocks[layer], which)._module, f"blocks.{layer}.{which}.hook_scale"
        scale = self[key]
        if scale.ndim < stack.ndim - 1:  # BEiT's norm after the patch mean has one scale per image
            scale = scale.unsqueeze(-2)
        divided = centred(norm, stack) / scale
        return divided if norm.weight is None else divided * norm.weight

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
            total = total + (pool(normed, self.model.layout, readout) * direction).sum(-1)
        return total / self._embedding_length()

    def logit_constant(self, labels: int | Int[Tensor, " batch"]) -> Tensor:
        """The part of the logit of `labels` that no component makes: the classifier's bias and the final norm's."""
        index = torch.as_tensor(labels)
        bias = torch.stack([head.bias for head in self.model.heads]).mean(0)[index]
        of_norm = getattr(self.model.lens_norm, "bias", None)
        if of_norm is None:
            return bias
        parts = self.class_directions(index).split(self.model.d_model, dim=-1)
        return bias + torch.stack([(part * of_norm).sum(-1) for part in parts]).sum(0) / self._embedding_length()

    def _embedding_length(self) -> Any:
        """What a head of class names divides by, frozen as norms are; 1 for every other head."""
        head = self.model.heads[0]
        return embedding_length(self["hook_readout"], head.projection)[..., 0] if isinstance(head, TextHead) else 1.0

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
