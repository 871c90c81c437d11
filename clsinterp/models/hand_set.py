"""Weights set by hand: blocks that fetch, hold and forget a label, in Hugging Face's own ViT and BEiT.

What `clsinterp.models.planted` is made of. N patches; C classes; patch (i, j) of an image shows its label as pixel values.

**Coordinates** of the residual stream, d = 2 + 4 C of them. A label is written as its code, onehot(k) - 1/C, whose sum is 0
and whose squared norm is 1 - 1/C whatever the label::

    kind    (2)  +1, -1 in the CLS token; -1, +1 in patches
    says    (C)  what patches say of the label, from the embeddings on; 0 in CLS
    holds   (C)  what CLS holds of it before it is used; nothing but probes reads it
    reads   (C)  what the classifier reads of CLS, or what patches fetch from it
    fetched (C)  what patches have fetched from CLS

**LayerNorm** only divides by a known number: a token that holds m codes has mean 0 and variance (2 + m (1 - 1/C)) / d, for
every image, and whether or not its CLS token is a donor's. ``kind`` keeps that from 0 where a CLS token holds nothing.

**Fetching** is attention. With queries and keys of 0 it is uniform: every token gets the mean over all N + 1 tokens of
``says``, to which CLS gives 0, so N / (N + 1) of the code, which the output map scales back. Where tokens fetch from CLS, the
query is a constant and the key reads ``kind``: CLS then scores at least `AHEAD` above every patch.

**Parking** is the same attention to CLS, for values that are 0 there: an attention sink.

**Forgetting** is an MLP: x = gelu(x) - gelu(-x) for every x, so two units per coordinate give the negative of a range, which
the residual connection adds. It is scaled for CLS; in patches, whose norm is another, a part of the range stays.

A block that was not asked for anything has weights of 0 and passes the stream on, bit by bit.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import transformers

RANGES = ("says", "holds", "reads", "fetched")  # C coordinates each, after `kind`
GAIN = 10.0  # weight of the classifier on the range it reads
AHEAD = 60.0  # exp(-60) vanishes beside 1 in float32


class HandSet:
    """A model whose weights are set block by block, from the first to the last.

    It keeps count of the codes that a token holds by then, which is all that LayerNorm depends on.

    Args:
        reads: ``cls`` (a ViT) or ``patches`` (a BEiT whose classifier reads the mean patch).
        n_layers: blocks.
        n_classes: C.
        grid: patches along each side of an image.

    Attributes:
        model: a ViTForImageClassification or BeitForImageClassification.
    """

    def __init__(self, reads: str, n_layers: int, n_classes: int, grid: int) -> None:
        self.n, self.d, self.n_patches = n_classes, 2 + len(RANGES) * n_classes, grid**2
        self.held: dict[str, set[str]] = {"cls": set(), "patches": {"says"}}
        patch = math.ceil(math.sqrt(n_classes))  # room for a pixel per class
        names = {k: f"class_{k}" for k in range(n_classes)}
        config: dict[str, Any] = {
            "hidden_size": self.d,
            "num_hidden_layers": n_layers,
            "num_attention_heads": 1,
            "intermediate_size": 2 * n_classes,
            "image_size": grid * patch,
            "patch_size": patch,
            "hidden_act": "gelu",
            "id2label": names,
            "label2id": {name: k for k, name in names.items()},
        }
        pooled = {"use_mean_pooling": True, "layer_scale_init_value": 1.0, "drop_path_rate": 0.0}
        with torch.random.fork_rng(devices=[]):  # what is drawn is overwritten; the caller's draws stay as they were
            if reads == "cls":
                self.model: Any = transformers.ViTForImageClassification(transformers.ViTConfig(**config))
            else:
                self.model = transformers.BeitForImageClassification(transformers.BeitConfig(**config | pooled))
        self.body: Any = self.model.vit if reads == "cls" else self.model.beit
        self.model.eval()
        self._embed(patch)

    def _at(self, name: str) -> slice:
        start = 2 + RANGES.index(name) * self.n
        return slice(start, start + self.n)

    @torch.no_grad()
    def _embed(self, patch: int) -> None:
        """Everything 0, LayerNorm and LayerScale neutral; then tokens of their kind, and patches that say their label."""
        for name, p in self.model.named_parameters():
            p.fill_(1.0 if "lambda" in name or ("norm" in name and name.endswith("weight")) else 0.0)
        kind = torch.tensor([1.0, -1.0])
        self.body.embeddings.cls_token[0, 0, :2] = kind
        projection = self.body.embeddings.patch_embeddings.projection
        projection.bias[:2] = -kind
        projection.bias[self._at("says")] = 0.5 - 1 / self.n
        for k in range(self.n):  # pixel k of the red channel is 1 for label k, else -1
            projection.weight[self._at("says")][k, 0, k // patch, k % patch] = 0.5

    def _sd(self, kind: str) -> float:
        """What LayerNorm divides tokens of this kind by, now."""
        variance = (2 + len(self.held[kind]) * (1 - 1 / self.n)) / self.d
        return math.sqrt(variance + self.model.config.layer_norm_eps)

    @torch.no_grad()
    def fetch(self, block: int, source: str, target: str, *, of: str) -> None:
        """Attention of `block` adds to `target`, in every token, the code that the tokens `of` a kind hold in `source`."""
        attention = self.body.layers[block].attention
        eye, sd, share = torch.eye(self.n), self._sd(of), self.n_patches / (self.n_patches + 1)
        if of == "cls":
            attention.q_proj.bias[0] = AHEAD * math.sqrt(self.d) * sd
            attention.k_proj.weight[0, 0] = 1.0
            share = 1.0
        attention.v_proj.weight[: self.n, self._at(source)] = eye
        attention.o_proj.weight[self._at(target), : self.n] = eye * sd / share
        for held in self.held.values():
            held.add(target)

    @torch.no_grad()
    def park(self, block: int) -> None:
        """Attention of `block` rests on CLS, which says nothing: nothing comes of it. Kept from CLS, patches read what patches
        say and subtract it twice, so that they say the opposite."""
        attention = self.body.layers[block].attention
        eye = torch.eye(self.n)
        attention.q_proj.bias[0] = AHEAD * math.sqrt(self.d) * self._sd("cls")
        attention.k_proj.weight[0, 0] = 1.0
        attention.v_proj.weight[: self.n, self._at("says")] = eye
        attention.o_proj.weight[self._at("says"), : self.n] = -2 * eye * self._sd("patches")

    @torch.no_grad()
    def forget(self, block: int, name: str) -> None:
        """The MLP of `block`, after its attention, takes away what CLS holds in range `name`."""
        mlp = self.body.layers[block].mlp
        eye = torch.eye(self.n)
        mlp.fc1.weight[:, self._at(name)] = torch.cat([eye, -eye])
        mlp.fc2.weight[self._at(name)] = torch.cat([-eye, eye], dim=1) * self._sd("cls")
        self.held["cls"].remove(name)

    @torch.no_grad()
    def classify(self, name: str) -> None:
        """The classifier reads range `name`."""
        self.model.classifier.weight[:, self._at(name)] = GAIN * torch.eye(self.n)
