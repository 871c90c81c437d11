"""How far the answers of many samples can be trusted: calibration error, agreement, entropy."""

from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from clsinterp.studies.readouts.learned import LAST, divergence, mean_answer
from clsinterp.studies.tidy import Rows

BINS = 10  # of confidence, equally wide

Answers = Float[Tensor, "n classes"]  # rows are distributions


def counted(logits: Float[Tensor, "samples n classes"]) -> Answers:
    """The share of samples that give each class as their answer."""
    return F.one_hot(logits.argmax(-1), logits.shape[-1]).double().mean(0)


def entropy(p: Answers) -> Float[Tensor, " n"]:
    """In nats; 0 where all is in one class."""
    return -torch.xlogy(p, p).sum(-1)


def reliability(
    confidence: Float[Tensor, " n"], right: Bool[Tensor, " n"], bins: int = BINS
) -> list[tuple[float, Float[Tensor, " m"]]]:
    """For every bin of confidence that holds images, their mean confidence, and whether each of them is right."""
    which = (confidence * bins).long().clamp(max=bins - 1)  # a confidence of 1 belongs to the last bin
    return [
        (float(confidence[which == b].mean()), right[which == b].double())
        for b in range(bins)
        if bool((which == b).any())
    ]


def expected_calibration_error(p: Answers, labels: Int[Tensor, " n"], bins: int = BINS) -> float:
    """Mean over images of |confidence - accuracy| of their bin of confidence (Guo et al. 2017); 0 is calibrated.

    Example:
        >>> p = torch.tensor([[0.75, 0.25]] * 4)
        >>> expected_calibration_error(p, torch.tensor([0, 0, 0, 1])), expected_calibration_error(p, torch.tensor([1] * 4))
        (0.0, 0.75)
    """
    confidence, answer = p.double().max(-1)
    found = reliability(confidence, answer == labels, bins)
    return sum(abs(mean - float(right.mean())) * len(right) for mean, right in found) / len(p)


def agreement(counts: Answers, own: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The share of samples that give the model's own answer."""
    return counts.gather(1, own.unsqueeze(1)).squeeze(1)


def by_quantile(x: Float[Tensor, " n"], parts: int = 5) -> list[Int[Tensor, " m"]]:
    """Images in `parts` groups of increasing `x`, as equal in size as can be; ties stand in order of the images."""
    return [part for part in x.argsort(stable=True).chunk(parts) if len(part)]


def measure(
    rows: Rows, parts: Iterable[tuple[Float[Tensor, "layer samples n classes"], Answers, Int[Tensor, " n"]]]
) -> None:
    """Add to `rows` what the samples of every layer say, from batches of (their logits, the model's own logits, labels).

    Curves, with ``layer``: ``calibrated`` (accuracy of the mean answer), ``calibrated, one sample``, ``agreement`` (samples
    that give the model's answer), ``divergence`` (of the mean answer from the model's distribution, nats), ``entropy``
    (of the counts), ``ece, counts`` and ``ece, mean answer``, and ``ece, model`` once, without a layer. With a ``bin``
    besides, in which ``x`` is its mean confidence or entropy: ``reliability, counts``, ``reliability, mean answer``,
    ``reliability, model`` (accuracy), and ``agreement by entropy``.
    """
    found: dict[str, list[Tensor]] = {}
    for logits, own, labels in parts:
        batch = {
            "counts": torch.stack([counted(x) for x in logits]),
            "mean": torch.stack([mean_answer(x, LAST) for x in logits]).double(),
            "one": logits[:, 0].argmax(-1) == labels,
            "model": own.double().softmax(-1).unsqueeze(0),
            "labels": labels.unsqueeze(0),
        }
        for name, x in batch.items():
            found.setdefault(name, []).append(x)
    counts, mean, one, model, labels = (torch.cat(x, dim=1) for x in found.values())
    target, said = labels[0], model[0].argmax(-1)

    def trust(p: Answers, name: str, layer: int | None) -> None:
        rows.add(expected_calibration_error(p, target), n=len(p), curve=f"ece, {name}", layer=layer)
        confidence, answer = p.max(-1)
        for b, (x, right) in enumerate(reliability(confidence, answer == target)):
            rows.share(right, curve=f"reliability, {name}", layer=layer, bin=b, x=x)

    trust(model[0], "model", None)
    for layer in range(len(counts)):
        same, spread = agreement(counts[layer], said), entropy(counts[layer])
        rows.share(mean[layer].argmax(-1) == target, curve="calibrated", layer=layer)
        rows.share(one[layer], curve="calibrated, one sample", layer=layer)
        rows.mean(same, curve="agreement", layer=layer)
        rows.mean(divergence(mean[layer], model[0]), curve="divergence", layer=layer)
        rows.mean(spread, curve="entropy", layer=layer)
        for name, p in (("counts", counts[layer]), ("mean answer", mean[layer])):
            trust(p, name, layer)
        for b, images in enumerate(by_quantile(spread)):
            rows.mean(same[images], curve="agreement by entropy", layer=layer, bin=b, x=float(spread[images].mean()))
