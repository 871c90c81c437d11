"""A block of which only the first tokens are wanted: keys and values of all tokens, everything else of those.

Where a classifier reads tokens before the patches and pools nothing, what the last block makes of the patches is read by
nobody. The block here is the model's own, but its attention forms the rows of the first tokens, and its MLP gets those alone.
Both give zeros for the other tokens, so every shape stays. Travels to a server, see `clsinterp.remote.travelling`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from clsinterp.models.block_maps import by_head
from clsinterp.models.unstable import untraced

if TYPE_CHECKING:
    from jaxtyping import Float

    from clsinterp.models.family import Family
    from clsinterp.models.traced import Traced


def prefix_block(model: Traced, i: int) -> nn.Module | None:
    """Block `i` for the tokens before the patches; it is called as the block is.

    Returns:
        A module that shares the block's parameters, and that no trace sees. None where the block is not as its library made
        it: hooks stand in it, or a ``forward`` was replaced.
    """
    family, n, made = model.family, model.layout.n_prefix, untraced(model.blocks[i]._module)
    if made is not None:
        setattr(made, family.attn, PrefixAttention(getattr(made, family.attn), family, model.n_heads, n))
        setattr(made, family.mlp, Prefix(getattr(made, family.mlp), n))
    return made


class Prefix(nn.Module):
    """`inner` of the first `n` tokens, and zeros for the others."""

    def __init__(self, inner: nn.Module, n: int) -> None:
        nn.Module.__init__(self)  # methods that travel have no super()
        self.inner, self.n = inner, n

    def forward(self, x: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        """As many tokens as `x` has."""
        return _padded(self.inner(x[:, : self.n]), x.shape[1])


class PrefixAttention(nn.Module):
    """Attention of the first `n` tokens to all, by the family's own arithmetic, and zeros for the others."""

    def __init__(self, attn: nn.Module, family: Family, n_heads: int, n: int) -> None:
        nn.Module.__init__(self)
        self.attn, self.family, self.n_heads, self.n = attn, family, n_heads, n

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the module in its place gives: (batch, token, d_model), in `transformers` beside a pattern that is None."""
        x = args[0] if args else next(iter(kwargs.values()))
        attn: Any = self.attn
        family, first = self.family, x[:, : self.n]
        if len(family.qkv) == 1:
            side_by_side = getattr(attn, family.qkv[0])(x).unflatten(-1, (3, -1))
            q, k, v = (by_head(part, self.n_heads).transpose(1, 2) for part in side_by_side.unbind(-2))
            q = q[:, :, : self.n]
        else:
            parts = zip(family.qkv, (first, x, x), strict=True)
            q, k, v = (by_head(getattr(attn, name)(tokens), self.n_heads).transpose(1, 2) for name, tokens in parts)
        z = (family.scores(attn, q, k, args, kwargs).softmax(dim=-1) @ v).transpose(1, 2)
        if family.after_mixing:
            z = family.after_mixing(attn, z, (first,))
        out = _padded(getattr(attn, family.attn_out)(z.flatten(2)), x.shape[1])
        return (out, None) if family.library == "transformers" else out


def _padded(x: Tensor, n_tokens: int) -> Tensor:
    return nn.functional.pad(x, (0, 0, 0, n_tokens - x.shape[1]))
