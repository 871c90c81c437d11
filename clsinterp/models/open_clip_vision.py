"""open_clip's vision transformer with its parts as modules that a trace can read and write.

open_clip makes queries, keys and values inside one function call and adds tokens and positions in a method. Here the same
parameters, shared and not copied, stand in modules: one for the embeddings, one linear map for queries, keys and values
side by side. What the forward computes is the same, operation by operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Float


class Embeddings(nn.Module):
    """Patches to tokens, the class token before them, positions added."""

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.conv1 = visual.conv1
        self.class_embedding, self.positional_embedding = visual.class_embedding, visual.positional_embedding

    def forward(self, pixels: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch token d_model"]:
        """The tokens of `pixels`."""
        x = self.conv1(pixels)
        x = x.flatten(2).mT
        cls = self.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        return torch.cat([cls, x], dim=1) + self.positional_embedding.to(x.dtype)


class TokenMajor(nn.Linear):
    """A linear map of (batch, token, d) applied to (token, batch, d), as in ``nn.MultiheadAttention``.

    How the rows lie decides which kernel torch takes and so how it rounds: with this the forward equals open_clip's to the
    bit, where torch does not fuse all of attention into one kernel (``torch.backends.mha.set_fastpath_enabled(False)``, or
    gradients on).
    """

    def __init__(self, weight: Any, bias: Any) -> None:
        super().__init__(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
        self.weight = weight
        if bias is not None:
            self.bias = bias

    def forward(self, input: Float[Tensor, "batch token d_in"]) -> Float[Tensor, "batch token d_out"]:
        """The map of every token."""
        return F.linear(input.transpose(0, 1), self.weight, self.bias).transpose(0, 1)


class Attention(nn.Module):
    """Self-attention of ``nn.MultiheadAttention``, with its fused map as a module of its own."""

    def __init__(self, attn: nn.MultiheadAttention) -> None:
        super().__init__()
        self.n_heads = attn.num_heads
        assert attn.in_proj_weight is not None  # open_clip's queries, keys and values are of one width
        self.in_proj = TokenMajor(attn.in_proj_weight, attn.in_proj_bias)
        self.out_proj = TokenMajor(attn.out_proj.weight, attn.out_proj.bias)

    def forward(self, x: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        """What attention adds to the residual stream, before LayerScale."""
        parts = self.in_proj(x).chunk(3, dim=-1)
        q, k, v = (part.unflatten(2, (self.n_heads, -1)).transpose(1, 2) for part in parts)
        z = F.scaled_dot_product_attention(q, k, v)  # (batch, head, token, d_head)
        return self.out_proj(z.permute(2, 0, 1, 3).flatten(2).transpose(0, 1))


class Block(nn.Module):
    """A residual block: attention, then the MLP, each after a norm."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.ln_1, self.ln_2, self.mlp = block.ln_1, block.ln_2, block.mlp
        self.ls_1, self.ls_2 = block.ls_1, block.ls_2
        self.attn = Attention(block.attn)

    def forward(self, x: Float[Tensor, "batch token d_model"]) -> Float[Tensor, "batch token d_model"]:
        """The residual stream after the block."""
        x = x + self.ls_1(self.attn(self.ln_1(x)))
        return x + self.ls_2(self.mlp(self.ln_2(x)))


class OpenClipVision(nn.Module):
    """An open_clip ``VisionTransformer`` up to its projection, then `head`.

    Args:
        visual: the open_clip module; it is left as it is.
        head: what reads the pooled tokens: the image projection, or a classifier.
        row, sizes: what the family table says of it; kept for one who gets this module loaded.
    """

    def __init__(self, visual: Any, head: nn.Module, row: Any = None, sizes: Any = None) -> None:
        super().__init__()
        self.row, self.sizes = row, sizes
        self.embed = Embeddings(visual)
        self.ln_pre = visual.ln_pre
        self.blocks = nn.ModuleList(map(Block, visual.transformer.resblocks))
        self.ln_post = visual.ln_post
        self.head = head
        self.pools_first = visual.final_ln_after_pool
        self.mean = visual.pool_type == "avg"

    def forward(self, pixels: Float[Tensor, "batch channel height width"]) -> Float[Tensor, "batch d_out"]:
        """What `head` makes of the image."""
        x = self.ln_pre(self.embed(pixels))
        for block in self.blocks:
            x = block(x)
        if not self.pools_first:
            x = self.ln_post(x)
        x = x[:, 1:].mean(dim=1) if self.mean else x[:, 0]
        return self.head(self.ln_post(x) if self.pools_first else x)

    def unprojected(self) -> OpenClipVision:
        """The same tower, its modules shared, that gives what `head` reads."""
        twin = type(self).__new__(type(self))
        nn.Module.__init__(twin)
        for name, part in self.named_children():
            twin.add_module(name, nn.Identity() if name == "head" else part)
        twin.row, twin.sizes, twin.pools_first, twin.mean = self.row, self.sizes, self.pools_first, self.mean
        return twin.eval()


class Projection(nn.Linear):
    """open_clip's image projection, a bare matrix there."""

    def __init__(self, matrix: Float[Tensor, "d_model d_out"]) -> None:
        d_model, d_out = matrix.shape
        super().__init__(d_model, d_out, bias=False, device="meta")
        self.weight = nn.Parameter(matrix.detach().mT, requires_grad=matrix.requires_grad)
