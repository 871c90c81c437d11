"""A model and the images it is to be measured on, loaded and fitted to each other: what runs and studies both begin with."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from clsinterp.data.label_map import LabelMap
from clsinterp.data.labels import LabelMatch, match_labels, match_text
from clsinterp.data.sources import open_data
from clsinterp.data.splits import Split
from clsinterp.errors import RequestError
from clsinterp.vision_model import VisionModel


@dataclass(frozen=True)
class Loaded:
    """A model with its images.

    Attributes:
        model, train, test: loaded.
        match: how labels of the data become classes of the classifier.
    """

    model: VisionModel
    train: Split
    test: Split
    match: LabelMatch

    @staticmethod
    def matched(
        model: VisionModel, train: Split, test: Split, head: str = "auto", label_map: LabelMap | None = None
    ) -> "Loaded":
        """The same from what is loaded already.

        Args:
            model, train, test: as the attributes.
            head, label_map: as in `clsinterp.data.labels.match_labels`.

        Raises:
            RequestError: as `match_labels`.
        """
        return Loaded(model, train, test, match_labels(train.class_names, model.class_names, head, label_map))


def load_model(source: str, check: Callable[[VisionModel], None] = lambda model: None, **options: Any) -> VisionModel:
    """Load a model that images can be prepared for.

    Args:
        source: hub id, checkpoint folder or zoo/NAME.
        check: refuses a model before any image is looked at.
        **options: of `VisionModel`.

    Raises:
        RequestError: a model that cannot be had, no image processor, or what `check` refuses.
    """
    model = VisionModel(source, **options)
    check(model)
    if model.image_processor is None:
        raise RequestError(f"{source} ships no image processor (preprocessor_config.json) to prepare images with.")
    return model


def load(
    source: str,
    data: str,
    *,
    model: dict[str, Any],
    images: dict[str, Any],
    head: str = "auto",
    classes: Sequence[str] | None = None,
    templates: Sequence[str] | None = None,
    label_map: LabelMap | None = None,
    check: Callable[[VisionModel], None] = lambda model: None,
) -> Loaded:
    """Load a model, then its images.

    Args:
        source, check: as for `load_model`.
        data: as in `clsinterp.data.sources.open_data`.
        model: options of `VisionModel`.
        images: options of `open_data`.
        head, label_map: as in `Loaded.matched`; or ``text``: the data's class names are read by the checkpoint's text tower.
        classes: under ``text``, names to read in the place of the data's.
        templates: under ``text``, sentences to put them in.

    Raises:
        RequestError: as `load_model`, `clsinterp.data.labels.match_text` and `Loaded.matched`, or data that cannot be had.
    """
    if head == "text":  # the classes are part of the model, so the data come first
        train, test = open_data(data, **images)
        match = match_text(train.class_names, classes)
        named = train.class_names if classes is None else classes
        return Loaded(load_model(source, check, classes=named, templates=templates, **model), train, test, match)
    return Loaded.matched(load_model(source, check, **model), *open_data(data, **images), head, label_map)
