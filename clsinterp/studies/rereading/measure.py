"""Answers of the test images under knock-outs and swaps, and their rows of a tidy table."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from clsinterp.interventions import permute, swap
from clsinterp.studies.setup import Batch, Setup
from clsinterp.studies.tidy import Rows, joined
from clsinterp.sweeps.answers import Answers
from clsinterp.sweeps.readers import Readers
from clsinterp.sweeps.variants import INTACT, Edit, on, variants

Place = tuple[str, int | None]  # curve and layer


@dataclass
class Measured:
    """What was seen of every copy of the test images.

    Attributes:
        seen: (curve, layer), name of a value -> one tensor per batch; names as in `clsinterp.sweeps.answers`.
        probes: layer -> one tensor per batch: which images the probe of the intact CLS token is right on.
    """

    seen: dict[tuple[Place, str], list[Tensor]] = field(default_factory=dict)
    probes: dict[int, list[Tensor]] = field(default_factory=dict)

    def value(self, place: Place, name: str) -> Tensor:
        """A value of all images, (image,)."""
        return joined(self.seen[place, name])


def measured(setup: Setup, edits: Mapping[tuple[str, int], Edit]) -> Measured:
    """The test images intact, under `edits`, and with CLS tokens permuted at each layer."""
    probes, mean = setup.read_train()
    readers, out = Readers(setup.head, rest=mean), Measured()
    for batch in setup.batches(setup.test, "test"):
        every = {**edits, **_swaps(setup, batch)}
        reader = Answers(readers, batch.targets)
        found = variants(setup.model, batch.pixels, list(every.values()), watched=setup.layers, reader=reader)
        for k, place in enumerate([("intact", None), *every]):
            for name, values in found.read[k].items():
                out.seen.setdefault((place, name), []).append(values)
        for i, layer in enumerate(setup.layers):
            right = probes.scores(found.tokens[layer][INTACT].cpu(), i).argmax(-1) == batch.labels
            out.probes.setdefault(layer, []).append(right)
    return out


def _swaps(setup: Setup, batch: Batch) -> dict[tuple[str, int], Edit]:
    where, index = setup.model.layout.index("cls"), permute(len(batch), (setup.seed, batch.number))
    return {("shuffle", layer): Edit({layer: on(where, swap(index))}) for layer in setup.layers}


def add_sinks(rows: Rows, found: Measured) -> None:
    """What a knock-out costs more than its control (`clsinterp.sweeps.knock.keeps_sinks`), image by image.

    The label is missing under both, so this is what the place to attend to was worth: `sink_until`, `sink_patches_until`.
    """
    for (curve, layer), name in found.seen:
        if curve.startswith("mean_kv_") and name.startswith("rank"):
            what, which = curve.removeprefix("mean_kv_"), name.removeprefix("rank")
            kept, cut = (found.value((c, layer), name) == 0 for c in (curve, f"knock_{what}"))
            rows.mean(kept.double() - cut.double(), metric="cost", curve=f"sink_{what}{which}", layer=layer)


def add_rows(rows: Rows, found: Measured) -> None:
    """For every copy: accuracy, ``cost`` (intact minus edited, image by image) and ``agreement`` with the intact answers."""
    intact = ("intact", None)
    for probed, parts in found.probes.items():
        rows.share(joined(parts), curve="probe", metric="accuracy", layer=probed)
    for which in ("", "_cls_only"):
        for place, name in found.seen:
            if name != f"rank{which}":
                continue
            curve, layer = place
            where = {"curve": f"{curve}{which}", "layer": layer}
            right, before = found.value(place, name) == 0, found.value(intact, name) == 0
            rows.share(right, metric="accuracy", **where)
            if place != intact:
                answer = f"answer{which}"
                rows.mean(before.double() - right.double(), metric="cost", **where)
                rows.share(found.value(place, answer) == found.value(intact, answer), metric="agreement", **where)
