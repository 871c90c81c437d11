"""What a running page holds: the model behind its lock, the gallery, the cache; from a state to its views."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clsinterp.errors import RequestError
from clsinterp.explore.cache import TabCache
from clsinterp.explore.gallery import Gallery, Picture
from clsinterp.explore.state import State
from clsinterp.explore.tabs import Tabs
from clsinterp.models.layers import EMBEDDINGS
from clsinterp.probing.lens import own_head
from clsinterp.sweeps.capture import capture
from clsinterp.views.intervention import Intervention
from clsinterp.views.lens import LensView, lens
from clsinterp.vision_model import VisionModel

REFERENCE = 32  # gallery images that mean and noise are taken from
AT_ONCE = 8  # of them in a trace


@dataclass(frozen=True)
class _Tokens:
    """CLS tokens of the reference images, (layer from -1 on, image, d_model)."""

    by_layer: Tensor

    @property
    def nbytes(self) -> int:
        return self.by_layer.nbytes


class Session:
    """A model and its images, serving the tabs of a page.

    Args:
        model: must have a classifier.
        gallery: its images.
        max_bytes: of cached views.
        loaded_with: options the model was loaded with, for code to copy.

    Raises:
        RequestError: the checkpoint has no classifier.
    """

    def __init__(
        self,
        model: VisionModel,
        gallery: Gallery,
        max_bytes: int = 256 * 2**20,
        loaded_with: Mapping[str, Any] | None = None,
    ) -> None:
        self.model, self.gallery, self.loaded_with = model, gallery, dict(loaded_with or {})
        self.head = own_head(model)
        self.views_cache: TabCache[LensView] = TabCache(max_bytes)
        self.tabs = Tabs(self._free)
        self._reference: _Tokens | None = None

    def warm_up(self) -> None:
        """Look at the first image once, so that the first page does not pay for what is set up on first use."""
        lens(self.model, self.gallery.pictures[0].image()).figure()

    def _free(self, tab: str) -> None:
        self.views_cache.drop(tab)
        self.gallery.drop(tab)

    @property
    def n_reference(self) -> int:
        """Images that mean and noise are taken from."""
        return min(REFERENCE, len(self.gallery.pictures))

    def views(self, state: State, tab: str) -> list[LensView]:
        """The intact view of the state's image and, if anything is done to the forward, the intervened one.

        Raises:
            RequestError: images, layers, heads or classes that are not here, or what the family does not have.
        """
        self._check(state)
        self.tabs.alive(tab)
        picture = self.gallery.find(tab, state.image)
        found = [self._view((picture.key,), tab, lambda: lens(self.model, picture.image()))]
        if state.intervenes:
            donor = self.donor(state, tab)
            edit = Intervention(state.replace, state.at, None, cls_only=state.cls_only)

            def make() -> LensView:
                reference: Any = [donor.image()] if donor is not None else None
                if state.replace in ("mean", "noise"):
                    reference = self.reference_tokens(state.at)
                whole = Intervention(edit.replace, edit.layer, reference, edit.seed, edit.cls_only)
                return lens(self.model, picture.image(), whole)

            key = (picture.key, edit.replace, edit.layer if edit.replace else None, donor and donor.key, edit.cls_only)
            found.append(self._view(key, tab, make))
        return found

    def _check(self, state: State) -> None:
        model = self.model
        for name, number, first, end in (
            ("layer", state.layer, 0, model.n_layers),
            ("at", state.at, EMBEDDINGS, model.n_layers),
            ("class", state.class_index, 0, model.n_classes or 0),
            ("head", state.head, 0, model.n_heads),
        ):
            if number is not None and not first <= number < end:
                raise RequestError(f"{name}={number} was given; this model has {first} to {end - 1}.")

    def donor(self, state: State, tab: str) -> Picture | None:
        """The picture whose CLS token is swapped in, or None."""
        if state.replace != "swap":
            return None
        if state.donor is None:
            raise RequestError("Choose the image whose CLS token is put in, under Intervention.")
        return self.gallery.find(tab, state.donor)

    def _view(self, key: object, tab: str, make: Callable[[], LensView]) -> LensView:
        return self.views_cache.get(key, tab, make)

    def reference_tokens(self, layer: int) -> Tensor:
        """CLS tokens after block `layer` of the gallery's first images, (image, d_model); captured once."""
        with self.views_cache.lock:
            if self._reference is None:
                layers = range(EMBEDDINGS, self.model.n_layers)
                pictures = self.gallery.pictures[: self.n_reference]
                parts = [
                    capture(self.model, self._pixels(pictures[i : i + AT_ONCE]), layers)[0].cpu()
                    for i in range(0, len(pictures), AT_ONCE)
                ]
                self._reference = _Tokens(torch.cat(parts, dim=1).clone())
            return self._reference.by_layer[layer + 1]

    def _pixels(self, pictures: Sequence[Picture]) -> Tensor:
        """What the model takes of `pictures`, one decoded at a time."""
        return torch.cat([self.model.pixels(p.image()) for p in pictures])
