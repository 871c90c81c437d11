"""The words and tables of docs/evidence.md: every number is looked up in a run's tables."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from clsinterp.figures.note import published_curves
from clsinterp.runs.compare import markdown
from clsinterp.runs.results import Run

LINE = 128  # of a card, in characters
COLUMNS = {  # (curve, metric) -> its head
    ("probe", "accuracy"): "probe",
    ("shuffle", "accuracy"): "output, CLS swapped",
    ("agreement", "share"): "same answer",
    ("shuffle_cls_only", "accuracy"): "CLS-only, CLS swapped",
    ("donor", "accuracy"): "names the donor's label",
}
ALSO = {  # curves of --also and their heads
    "knock_until": "CLS reads nothing up to l",
    "knock_from": "CLS reads nothing from l on",
    "knock_at": "CLS reads nothing in 3 blocks from l",
    "knock_patches_until": "patches don't read CLS up to l",
    "erased": "label erased from CLS at l",
    "erased_cls_only": "the same, CLS-only",
    "probe_after_erasure": "fresh probe after it",
}


class Points:
    """The points of a run by curve, layer and metric."""

    def __init__(self, run: Run) -> None:
        self.run = run
        rows = [r for r in run.curves.to_pylist() if r["probed_layer"] in (None, r["layer"]) or r["layer"] is None]
        self.by = {(r["curve"], r["layer"], r["metric"]): r for r in rows if r["curve"] != "restoration"}
        self.layers = sorted({r["layer"] for r in rows if r["curve"] == "shuffle"})
        self.last = self.layers[-1]

    def has(self, curve: str) -> bool:
        return any(name == curve for name, _, _ in self.by)

    def value(self, curve: str, layer: int | None = None, metric: str = "accuracy") -> float:
        return self.by[curve, layer, metric]["value"]

    def short(self, curve: str, layer: int | None = None, metric: str = "accuracy") -> str:
        row = self.by.get((curve, layer, metric))
        return f"{row['value']:.3f}" if row else ""

    def full(self, curve: str, layer: int | None = None, metric: str = "accuracy") -> str:
        row = self.by[curve, layer, metric]
        return f"{row['value']:.3f} [{row['ci_low']:.3f}, {row['ci_high']:.3f}]"


def grid(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(runs: Mapping[str, Run], side_by_side: pa.Table, commands: Mapping[str, str], what: str) -> str:
    """The page as Markdown.

    Args:
        runs: by name; ``photos-224`` is the headline.
        side_by_side: their comparison.
        commands: what made each.
        what: the checkpoint, in the words used wherever it is named.
    """
    points = {name: Points(run) for name, run in runs.items()}
    parts = [_headline(points["photos-224"], what), _published(points["photos-224"])]
    parts += [_resolution(points), _swaps(points), _cls_only(points), _also(points)]
    parts += [_side_by_side(side_by_side), LIMITS, _made(runs, commands)]
    return "\n".join(part for part in parts if part)


def _headline(p: Points, what: str) -> str:
    report = p.run.report
    counts, floors = report.manifest.counts, report.facts.floors or {}
    rows = [[str(x), *(p.full(c, x, m) if m == "accuracy" else p.short(c, x, m) for c, m in COLUMNS)] for x in p.layers]
    before = p.last - 1
    return f"""# The headline on a real model and real photos

*Made by `experiments/evidence.py`; every number is read from the tables in [evidence/](evidence).*

![Probe and swap curves of DINOv2-small on photos](headline.png)

## What was measured

The {what}, on Imagenette: ten classes of ImageNet, {counts.train} train photos for probes and head, {counts.test} test photos for
every curve, at 224 pixels. The backbone has no classifier: a ridge head on its own read-outs (CLS token and patch mean) was
fitted on the train photos. CLS tokens are permuted within batches of 128; a donor has the image's own label with
probability {report.collision_rate:.3f}. CLS-only: the patch mean is held at its mean over the train photos.

## What came out

Intact {p.full("intact")}; CLS-only, intact {p.full("intact_cls_only")}; floor of use {floors["use"]:.3f}
(what is left if the output follows the donor), floor of availability {floors["availability"]:.3f}. 95% intervals over images.

{grid(["layer", *COLUMNS.values()], rows)}
A linear probe reads the label from the CLS token after block 0 in {p.full("probe", 0)} of the photos, after block {before} in
{p.full("probe", before)}. Swapping CLS tokens after block 0 leaves {100 * p.value("agreement", 0, "share"):.1f}% of the answers
what they were (accuracy {p.full("shuffle", 0)}); after block {before} it costs {p.full("cost", before)}, after block {p.last}
{p.full("cost", p.last)}. The label is decodable from layer {report.onsets["decodable_from"]} and used from layer
{report.onsets["used_from"]} (halfway points, with bootstrap intervals where resampling moves them).
"""


def _published(p: Points) -> str:
    data = published_curves()
    his = data["curves"]["dinov2"]
    rows = []
    for layer in p.layers:
        ours = [p.short(c, layer) for c in ("probe", "shuffle", "shuffle_cls_only")]
        rows.append([str(layer), *ours, *(f"{his[c][layer]:.3f}" for c in ("probe", "shuffle", "shuffle_cls_only"))])
    head = ["layer", "probe", "output, swapped", "CLS-only, swapped", "published: probe", "output", "CLS-only"]
    return f"""## The published panel beside it

The note measured `{data["checkpoints"]["dinov2"]}` on ImageNet-1k with its thousand classes (intact {his["intact"]:.3f},
CLS-only {his["intact_cls_only"]:.3f}; patch mean at zero). Another size of the model, a hundred times the classes, another head:
the numbers cannot agree, the shape can. Source: {data["source"]}; {data["how"].split(";")[0]}.

{grid(head, rows)}"""


def _resolution(points: Mapping[str, Points]) -> str:
    names = {
        "photos-224": "photos, 224 px", "photos-112": "photos, 112 px", "photos-56": "photos, 56 px",
        "garments-112": "garments (Fashion-MNIST sample), 28 px shown at 112",
    }  # fmt: skip
    found = {name: points[name] for name in names if name in points}
    if len(found) < 2:
        return ""
    rows = []
    for name, p in found.items():
        ends = [p.short("probe", x) for x in (0, p.last - 1)] + [p.short("shuffle", x) for x in (0, p.last - 1, p.last)]
        onsets = [str(p.run.report.onsets[x]) for x in ("decodable_from", "used_from")]
        rows.append([names[name], str(p.run.report.manifest.counts.test), p.full("intact"), *ends, *onsets])
    last = next(iter(found.values())).last
    head = [
        "images",
        "n",
        "intact",
        "probe 0",
        f"probe {last - 1}",
        "swapped 0",
        f"swapped {last - 1}",
        f"swapped {last}",
    ]
    return f"""## Resolution and data

The same model and commands on smaller pictures of the same photos, and on the garments that ship with the package.

{grid([*head, "decodable from", "used from"], rows)}"""


def _swaps(points: Mapping[str, Points]) -> str:
    if "photos-112-cross-label" not in points:
        return ""
    a, b = points["photos-112"], points["photos-112-cross-label"]
    rows = [
        [str(x), a.short("shuffle", x), b.short("shuffle", x), a.short("donor", x), b.short("donor", x)]
        for x in a.layers
    ]
    floors = [(p.run.report.facts.floors or {})["use"] for p in (a, b)]
    head = ["layer", "output, permuted", "output, other label", "donor named, permuted", "donor named, other label"]
    return f"""## Which swap

At 112 pixels. `permute` hands some images a token of their own label; `cross_label` never does (floors {floors[0]:.3f} and
{floors[1]:.3f}).

{grid(head, rows)}"""


def _cls_only(points: Mapping[str, Points]) -> str:
    kinds = {"photos-112": "mean", "photos-112-zero": "zero (the note's)", "photos-112-refit": "refitted head"}
    found = {name: points[name] for name in kinds if name in points}
    if len(found) < 2:
        return ""
    some = next(iter(found.values()))
    shown = [0, *range(some.last - 3, some.last + 1)]
    rows = [
        [kinds[name], p.full("intact_cls_only"), *(p.short("shuffle_cls_only", x) for x in shown)]
        for name, p in found.items()
    ]
    return f"""## How the patch mean is turned off

At 112 pixels: held at its mean over the train photos, at zero, or left out of a head fitted on the CLS token alone.

{grid(["patch mean", "intact, CLS-only", *(f"swapped at {x}" for x in shown)], rows)}"""


def _also(points: Mapping[str, Points]) -> str:
    p = points.get("photos-112-also")
    names = [c for c in ALSO if p and p.has(c)]
    if not p or not names:
        return ""
    rows = [[str(x), *(p.short(c, x) for c in names)] for x in p.layers]
    return f"""## Where it comes from: knock-out and erasure

At 112 pixels, {p.by["intact", None, "accuracy"]["n"]} test photos, intact {p.full("intact")}: accuracy of the output when
the CLS token may read nothing but itself in some blocks, and when the label is erased linearly from it (definitions:
[method.md](method.md)). A knock-out takes a place to attend to away, too, and not the information alone; the control for that, in
which the mean over images is read instead, is in [the gallery](../experiments/README.md) (rereading).

{grid(["l", *(ALSO[c] for c in names)], rows)}"""


def _side_by_side(table: pa.Table) -> str:
    return f"""## All runs side by side

`clsinterp compare`; the gap is availability minus use, each on its way from floor to top, averaged over layers.

{markdown(table)}"""


LIMITS = """## What it says, and what it doesn't

- Up to the last blocks, nothing in the output depends on *which image's* CLS token stands in the stream, though a probe reads the
  label from it. It does not follow that CLS tokens do nothing there: every image gets a real CLS token, only another's.
- Later blocks may write the label into the CLS token anew (see restoration in [the gallery](../experiments/README.md)); then the
  information that was there before is redundant rather than unread.
- A probe says what a linear map can find with labels, not what the model computes with.
- One backbone, and not stock DINOv2 (its publisher tuned it for saliency, on data he does not name); one data set of ten easily
  told classes, all of them in the data DINOv2 is likely to have seen. The head is a ridge fit, not a trained classifier.
"""


def _made(runs: Mapping[str, Run], commands: Mapping[str, str]) -> str:
    rows: list[list[Any]] = []
    for name, run in runs.items():
        seconds = sum(run.report.seconds.values())
        kinds = run.report.computed_on  # several where a run was interrupted and went on otherwise
        threads = " and ".join(map(str, sorted({kind["threads"] for kind in kinds})))
        on = f"{threads} thread{'s' * (threads != '1')}, {kinds[0]['hardware']}"
        rows.append([name, f"`{commands[name]}`", f"{seconds:.0f}", on])
    versions = ", ".join(f"{k} {v}" for k, v in next(iter(runs.values())).report.manifest.versions.items())
    return f"""## How it was made

`python experiments/evidence.py --photos PHOTOS` runs all of it; PHOTOS is a folder with `train` and `val` of ten class
folders each (Imagenette: 250 and 200 photos a class, chosen at random; its terms are ImageNet's, non-commercial research, and no
photo of it is in this repository). The same commands on the same machine give the same tables to the bit: all eight were run
again in other sessions by later commits (photos-224 partly by one thread and partly by two), and seven tables were equal to the
byte. In the eighth, garments-112, one image of 1,000 had another rank in the lens of block 7, where its fifth and sixth class
lie 3e-6 apart in logits; its table is that of the later runs, by one thread and by two, which agree. Seconds are wall-clock, two
runs at a time or beside other work.

{grid(["run", "command", "seconds", "on"], rows)}
Versions: {versions}.
"""


def head_card(run: Run, command: str, what: str) -> str:
    """The card of the head that ships for the backbone, from the run that fitted it."""
    p, report = Points(run), run.report
    classes, counts = ", ".join(report.manifest.class_names), report.manifest.counts
    said = (
        f"**Classes.** {classes}: the ten of Imagenette. Any other photo is given one of these too.",
        "**Reads.** The CLS token and the patch mean after the final norm, side by side, at 224 pixels.",
        f"**Fitted on** {counts.train} train photos; accuracy {p.full('intact')} (95% interval) on {counts.test} validation "
        "photos.",
        "**Licence.** Weights: MIT, as the rest. The photos are ImageNet's, for non-commercial research, and are not part of it.",
        f'**To fit it again:** `{command}`, then `FittedHead.of_run(RUN).save("head.safetensors")`; for photos of your own, '
        '`VisionModel("zoo/dinov2-small").fit_head(data)`.',
    )
    items = "\n".join(paragraph(f"- {item}", indent="  ") for item in said)
    return f"""---
license: mit
---
# zoo/dinov2-small: a head for the backbone

*Made by `experiments/evidence.py`.*

{paragraph(f"`head.safetensors` is a ridge classifier for the {what}, which does not ship: {GET_IT}")}

{items}
"""


GET_IT = (
    "`clsinterp zoo fetch dinov2-small` gets it. `clsinterp lens zoo/dinov2-small IMAGE` and `clsinterp explore "
    "zoo/dinov2-small` take this head unless `--classifier` names another."
)


def paragraph(text: str, indent: str = "") -> str:
    """`text` in lines that a reader of the file need not scroll; names and commands are not broken at a hyphen."""
    return textwrap.fill(text, LINE, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
