"""A page's session over a tiny model and small pictures, for the tests of the explorer."""

from io import BytesIO

from PIL import Image

from clsinterp.explore.gallery import Gallery, Picture
from clsinterp.explore.session import Session


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gallery(pictures, n: int = 6) -> Gallery:
    made = [encoded(pictures(i % 3, i)) for i in range(n)]
    return Gallery([Picture.of(data, f"picture {i} <b>", f"Image.open('{i}.png')") for i, data in enumerate(made)])


def session(model, pictures, **options) -> Session:
    return Session(model, gallery(pictures), **options)


def session_of(checkpoint, folder) -> Session:
    from clsinterp.explore.gallery import from_folder
    from clsinterp.vision_model import VisionModel

    return Session(VisionModel(str(checkpoint("vit")), device="cpu"), from_folder(folder / "test"))
