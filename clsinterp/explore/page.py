"""The page's layout: what stands where. What it shows comes from `callbacks` and the scripts in ``assets``."""

from typing import Any

from dash import dcc, html

from clsinterp.explore.how_to_read import how_to_read
from clsinterp.explore.session import Session
from clsinterp.models.layers import EMBEDDINGS
from clsinterp.views.intervention import no_cls_only, no_replacing
from clsinterp.views.maps import OF_CLS, QUANTITIES

AUTO = "auto"  # the class or head that the page chooses: the output's first class, the mean of heads
NONE = "none"
REPLACING = {
    NONE: "Nothing (intact)",
    "swap": "Another image's CLS token",
    "mean": "Mean over the gallery",
    "zero": "Zeros",
    "noise": "Noise (gallery's mean and spread)",
}
NAMES = {
    "probability": "Probability of a class",
    "logit": "Logit of a class",
    "rank": "Rank of a class",
    "identifiability": "Identifiability of a class",
    "top1": "Most probable class",
    "entropy": "Entropy",
    "attention": "CLS attention",
    "similarity": "Similarity to CLS",
}
GRAPH: Any = {"displayModeBar": False, "responsive": True, "doubleClick": False, "showTips": False}


def facts(session: Session) -> dict[str, Any]:
    """What the browser must know of the model before any image is looked at."""
    model = session.model
    return {
        "class_names": model.class_names,
        "n_layers": model.n_layers,
        "n_heads": model.n_heads,
        "has_cls": model.family.has_cls,
        "no_replacing": no_replacing(model),
        "no_cls_only": no_cls_only(model),
        "gallery": [{"key": p.key, "name": p.name} for p in session.gallery.pictures],
        # A ridge head's logits are what it was fitted to; its probabilities are all pale.
        "quantity": "logit" if model.checkpoint.head == "fitted" else "probability",
        "quantities": [q for q in QUANTITIES if q not in OF_CLS or model.family.has_cls],
        "replacing": list(REPLACING),
    }


def layout(session: Session) -> html.Div:
    """The whole page."""
    return html.Div(
        [
            dcc.Store(id="facts", data=facts(session)),
            dcc.Store(id="tab"),
            dcc.Store(id="picked"),
            dcc.Store(id="donor"),
            dcc.Store(id="uploads", data=[]),
            dcc.Store(id="token", data=0),
            dcc.Store(id="theme", data="light"),
            dcc.Store(id="view"),
            dcc.Store(id="asked"),
            dcc.Store(id="query", data=""),
            dcc.Store(id="shelved"),
            dcc.Interval(id="clock", interval=900, disabled=True),
            _header(session),
            html.Main([_sidebar(session), _content(session)], className="columns"),
            html.Div(id="notice", className="notice", role="alert", hidden=True),
            _code_dialog(),
        ],
        id="page",
    )


def _header(session: Session) -> html.Header:
    model = session.model
    about = f"{model.family.name} · {model.n_layers} layers · {model.n_classes} classes"
    return html.Header(
        [
            html.H1("clsinterp", className="brand"),
            html.Span(model.checkpoint.source or "loaded model", className="model", title=model.checkpoint.source),
            html.Span(about, className="about"),
            html.Span("computing …", className="working", role="status"),
            html.Span(className="grow"),
            html.Button("Copy as code", id="code-open", className="button"),
            html.A("Download HTML", id="download-html", className="button", href="#", download=""),
            html.A("Download numbers", id="download-parquet", className="button", href="#", download=""),
            html.Button("Dark", id="theme-switch", className="button", **_aria("Switch to dark or light")),
        ]
    )


def _sidebar(session: Session) -> html.Aside:
    model = session.model
    why_not = no_replacing(model)
    cls_only = no_cls_only(model)
    off = ", ".join(_WORDS.get(r, r) for r in model.family.other_readouts)
    how = "" if model.family.averages_heads else " (set to zero)"
    return html.Aside(
        [
            html.Section(
                [
                    html.H2("Image"),
                    html.Div(
                        [
                            html.Div(id="current", className="current"),
                            html.Div(
                                [
                                    html.Button("Upload an image", id="upload", className="button"),
                                    html.Small("or drop one anywhere; up to 10 MB, kept in memory only"),
                                ],
                                className="upload",
                            ),
                        ],
                        className="current-row",
                    ),
                    html.Div(id="current-name", className="fine cut"),
                    html.Div(id="gallery", className="gallery", role="group", **_aria("Images to pick from")),
                ],
                className="card images",
            ),
            html.Section(
                [
                    html.H2("Intervention"),
                    _field(
                        "Replace the CLS token with",
                        dcc.Dropdown(
                            id="replace", value=NONE, clearable=False, searchable=False, disabled=bool(why_not),
                            options=[{"label": text, "value": key} for key, text in REPLACING.items()],
                        ),
                    ),
                    _field(
                        "after block",
                        dcc.Dropdown(
                            id="at", value=0, clearable=False, searchable=False, disabled=bool(why_not),
                            options=[{"label": "before block 0 (a control)", "value": EMBEDDINGS}]
                            + [{"label": f"block {i}", "value": i} for i in range(model.n_layers)],
                        ),
                    ),
                    html.P(why_not, className="reason") if why_not else None,
                    dcc.Checklist(
                        id="cls_only", value=[],
                        options=[
                            {
                                "label": f"Turn off {off}{how}" if off else "Turn off other read-outs",
                                "value": "on", "disabled": bool(cls_only),
                            }
                        ],
                    ),
                    html.P(cls_only, className="reason") if cls_only else None,
                    html.Div(
                        [
                            html.Div(id="donor-label", className="label"),
                            html.Div(
                                id="donors", className="gallery", role="group",
                                **_aria("Images to take the CLS token from"),
                            ),
                        ],
                        id="donor-box", hidden=True,
                    ),
                ],
                className="card intervention",
            ),
        ]
    )  # fmt: skip


_WORDS = {"distill": "the distillation head", "patch_mean": "the patch mean"}


def _content(session: Session) -> html.Div:
    model = session.model
    last = model.n_layers - 1
    step = 1 if model.n_layers <= 24 else 4
    return html.Div(
        [
            html.Section(
                [
                    _field("Colour by", dcc.Dropdown(id="quantity", value="probability", clearable=False,
                           searchable=False, options=_quantities(model))),
                    _field("Class", dcc.Dropdown(id="class", value=AUTO, clearable=False, options=[
                        {"label": "the output's first", "value": AUTO},
                        *({"label": name, "value": str(i)} for i, name in enumerate(model.class_names or ()))])),
                    _field("Head", dcc.Dropdown(id="head", value=AUTO, clearable=False, searchable=False, options=[
                        {"label": "mean", "value": AUTO},
                        *({"label": f"head {i}", "value": str(i)} for i in range(model.n_heads))])),
                    html.Div(
                        [
                            html.Button("Play", id="play", className="button", **_aria("Play the layers")),
                            html.Div(
                                [
                                    html.Span("Layer", className="label"),
                                    dcc.Slider(id="layer", min=0, max=last, step=1, value=last, included=False,
                                               marks={i: str(i) for i in range(0, last + 1, step)},
                                               updatemode="drag", allow_direct_input=False),
                                ],
                                className="layer",
                            ),
                        ],
                        className="layers",
                    ),
                ],
                className="card toolbar",
            ),
            html.Section(
                [
                    html.Div(dcc.Graph(id="maps", config=GRAPH, figure=_blank()), id="maps-box", className="maps one",
                             tabIndex=0, role="application",
                             **_aria("Patch maps. Arrow keys move between patches; P goes to the prefix tokens.")),
                    html.Div(how_to_read(session), id="empty", className="empty"),
                ],
                className="card stage", id="stage",
            ),
            html.Section(
                [
                    html.Div(dcc.Graph(id="trajectory", config=GRAPH, figure=_blank()), className="trajectory"),
                    html.Div(id="token-panel", className="panel", **_aria(live="polite")),
                    html.Div(id="output-panel", className="panel"),
                ],
                className="card charts",
            ),
        ],
        className="content",
    )  # fmt: skip


def _aria(label: str | None = None, **more: str) -> dict[str, Any]:
    """Attributes for screen readers, as keyword arguments."""
    names = {"label": label, **more}
    return {f"aria-{name}": text for name, text in names.items() if text is not None}


def _blank() -> dict[str, Any]:
    axis = {"visible": False}
    clear = "rgba(0,0,0,0)"
    return {"data": [], "layout": {"xaxis": axis, "yaxis": axis, "paper_bgcolor": clear, "plot_bgcolor": clear}}


def _quantities(model: Any) -> list[dict[str, Any]]:
    no_cls = not model.family.has_cls
    return [
        {"label": NAMES[q] + (" (no CLS token)" if q in OF_CLS and no_cls else ""), "value": q,
         "disabled": q in OF_CLS and no_cls}
        for q in QUANTITIES
    ]  # fmt: skip


def _field(label: str, control: Any) -> html.Div:
    return html.Div([html.Label(label, className="label", htmlFor=control.id), control], className="field")


def _code_dialog() -> html.Dialog:
    return html.Dialog(
        [
            html.H2("This view in Python"),
            html.P("Runs as it stands, and gives the same numbers.", className="fine"),
            dcc.Textarea(id="code", readOnly=True, spellCheck=False, className="code"),
            html.Div(
                [
                    html.Button("Copy", id="code-copy", className="button strong"),
                    html.Button("Close", id="code-close", className="button"),
                ],
                className="row",
            ),
        ],
        id="code-dialog",
        **_aria("This view in Python"),
    )
