"""What a model's forward gives: `transformers` outputs with named fields, or plain tensors (timm, open_clip).

Travels to a server, see `clsinterp.remote.travelling`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float


def logits_of(output: Any) -> Float[Tensor, "batch classes"]:
    """The logits in the output of a model with a classifier."""
    return output if isinstance(output, Tensor) else output.logits


def with_logits(output: Any, new: Float[Tensor, "batch classes"]) -> Any:
    """The same output with `new` for logits."""
    return new if isinstance(output, Tensor) else type(output)(**{**output, "logits": new})


def hidden_of(output: Any) -> Tensor:
    """The output of a model without a classifier: the last hidden state (batch, token, d_model), or the plain tensor."""
    return output if isinstance(output, Tensor) else output.last_hidden_state


def without_logits(output: Any) -> Any:
    """The same output without the logits it may have, for a model whose classifier was never trained."""
    if isinstance(output, Tensor) or getattr(output, "logits", None) is None:
        return output
    return type(output)(**{key: value for key, value in output.items() if key != "logits"})
