"""The lines of Python behind a view: a trace that anyone can run, and the figure in one more line."""

from clsinterp.explore.gallery import Picture
from clsinterp.explore.session import Session
from clsinterp.explore.state import State
from clsinterp.models.layers import EMBEDDINGS

# How each replacement is written when row 0 is the image and the others are the reference images.
NEW_TOKEN = {
    "swap": "{cls}[1]",
    "mean": "mean({cls}[1:])[0]",
    "zero": "0",
    "noise": "noise(seed=0)({cls}[1:])[0]",
}
# quantity -> its numbers by token, and what they need imported
NUMBERS = {
    "probability": ("logits.softmax(-1)[:, CLASS]", None),
    "logit": ("logits[:, CLASS]", None),
    "rank": ("ranks(logits, torch.full((len(logits),), CLASS))", "from clsinterp.probing.metrics import ranks"),
    "identifiability": (
        "identifiability(ranks(logits, torch.full((len(logits),), CLASS)), logits.shape[-1])",
        "from clsinterp.probing.metrics import identifiability, ranks",
    ),
    "top1": ("logits.argmax(-1)", None),
    "entropy": ("torch.special.entr(logits.softmax(-1)).sum(-1) / math.log(2)", "import math"),
    "similarity": ("torch.cosine_similarity(tokens[0], tokens[0, :1], dim=-1)  # to the CLS token", None),
    "attention": ("pattern[PATTERN][0, :, 0].HEAD  # (token,): what the CLS token attends to", None),
}


def code(session: Session, state: State, tab: str, layer: int, class_index: int) -> str:
    """A script whose ``numbers`` are those of the shown map at `layer`, by token, and ``output`` the output's logits.

    Args:
        session: the page's.
        state: what is shown.
        tab: whose uploads may be named.
        layer: the layer shown.
        class_index: the class shown.

    Raises:
        RequestError: an image that is not here.
    """
    picture = session.gallery.find(tab, state.image)
    reference = _reference(session, state, session.donor(state, tab))
    numbers, needs = NUMBERS[state.quantity]
    attends = state.quantity == "attention"
    names = [] if attends else ["token_logits"]
    names += ["own_head"] if state.cls_only else []
    plain = [needs] if needs and not needs.startswith("from clsinterp") else []
    photos = ["sample_photos"] if "sample_photos()" in picture.source + reference else []
    ours = [f"from clsinterp import {', '.join(['VisionModel', 'lens', *photos])}"]
    ours += ["from clsinterp.hooks.points import walk"] if attends else []
    ours += [f"from clsinterp.interventions import {state.replace}"] if state.replace in ("mean", "noise") else []
    ours += ["from clsinterp.views import Intervention"] if state.intervenes else []
    ours += [f"from clsinterp.probing.lens import {', '.join(sorted(names))}"] if names else []
    ours += [needs] if needs and not plain else []
    gallery_import, _, gallery = session.gallery.setup.partition("\n\n")
    uses_gallery = "images.image(" in picture.source + reference
    ours += [gallery_import] if uses_gallery else []
    theirs = ["import torch"] + (["from PIL import Image"] if "Image.open(" in picture.source + reference else [])
    head = "mean(0)" if state.head is None else f"select(0, {state.head})"
    pattern = f'"blocks.{layer}.attn.hook_pattern"'
    numbers = numbers.replace("CLASS", str(class_index)).replace("HEAD", head).replace("PATTERN", pattern)
    lines = [*plain, *([""] if plain else []), *theirs, "", *sorted(ours), ""]
    lines += [gallery] if uses_gallery else []
    options = "".join(f", {name}={value!r}" for name, value in session.loaded_with.items())
    lines += [f"model = VisionModel({session.model.checkpoint.source!r}{options})", f"image = {picture.source}"]
    lines += [f"reference = {reference}"] if reference else []
    lines += ["pattern = {}"] if attends else []
    lines += ["", *_trace(session, state, layer, pattern if attends else None, bool(reference)), ""]
    lines += [] if attends else ["logits = token_logits(model, tokens)[0]  # (token, class)"]
    lines += [f"numbers = {numbers}"]
    lines += ['output = own_head(model).only("cls", readout)  # the others at zero'] if state.cls_only else []
    return "\n".join([*lines, "", *_figure(state, layer, class_index, bool(reference))]) + "\n"


def _reference(session: Session, state: State, donor: Picture | None) -> str:
    """The images whose CLS tokens are put in, as Python; nothing for zeros."""
    if donor is not None:
        return f"[{donor.source}]"
    if state.replace not in ("mean", "noise"):
        return ""
    if session.gallery.setup:
        return f"[images.image(i) for i in range({session.n_reference})]"
    return f"[{', '.join(p.source for p in session.gallery.pictures[: session.n_reference])}]"


def _trace(session: Session, state: State, layer: int, pattern: str | None, has_reference: bool) -> list[str]:
    """What is changed and what is read, in the order of the forward: a trace runs along with it."""
    steps: list[tuple[float, list[str]]] = []  # (when, lines)
    if state.replace is not None:
        if state.at == EMBEDDINGS:
            new = NEW_TOKEN[state.replace].format(cls="entering[:, 0]")
            change = ["entering = model.blocks[0].input.clone()", f"entering[0, 0] = {new}"]
            steps.append((-1, [*change, "model.blocks[0].input = entering"]))
        else:
            new = NEW_TOKEN[state.replace].format(cls="block.cls")
            steps.append((state.at, [f"block = model.blocks[{state.at}]", f"block.cls[0] = {new}"]))
    if pattern is not None:
        steps.append((layer - 0.1, [f"walk(model, [{pattern}], pattern.__setitem__)"]))
    else:
        steps.append((layer + 0.1, [f"tokens = model.blocks[{layer}].resid[:1].save()"]))
    end = "readout = model.readout[0].save()" if state.cls_only else "output = model.logits[0].save()"
    steps.append((session.model.n_layers, [end]))
    body = [line for _, lines in sorted(steps) for line in lines]
    start = "[image, *reference]" if has_reference else "image"
    return [f"with torch.no_grad(), model.trace({start}):", *(f"    {line}" for line in body)]


def _figure(state: State, layer: int, class_index: int, has_reference: bool) -> list[str]:
    edit = [repr(state.replace), f"layer={state.at}"] if state.replace else []
    edit += ["reference=reference"] if has_reference else []
    edit += ["cls_only=True"] if state.cls_only else []
    done = f", Intervention({', '.join(edit)})" if edit else ""
    options = f", class_index={class_index}, head={state.head}, layer={layer}"
    return [
        f"view = lens(model, image{done})  # every layer and token in one trace",
        f"figure = view.figure({state.quantity!r}{options})  # figure.show()",
    ]
