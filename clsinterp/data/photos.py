"""Photos that ship with the package, and image files by the path that the command line takes; neither needs torch."""

from pathlib import Path

from PIL import Image

from clsinterp.data.hub import alike
from clsinterp.data.images import decode
from clsinterp.errors import RequestError

ZOO = Path(__file__).parents[1] / "zoo"
PHOTOS = ZOO / "photos"


def sample_photos() -> dict[str, Image.Image]:
    """Photos that ship with the package, by name, at least 300 pixels on the shorter side.

    In the public domain; who made each stands in ``zoo/photos/README.md``. They have no labels: what they show is none of the
    classes of a head that ships. The command line takes them as ``zoo/photos/NAME.jpg``.

    Example:
        >>> {name: photo.size for name, photo in sample_photos().items()}
        {'cat': (451, 300), 'coffee': (480, 320), 'raccoon': (427, 320), 'rocket': (480, 320)}
    """
    return {path.stem: decode(path.read_bytes(), path.name) for path in sorted(PHOTOS.glob("*.jpg"))}


def shipped(path: Path) -> Path:
    """Where ``zoo/photos`` or ``zoo/photos/NAME.jpg`` lies in the package; any other path, and one that is there, as it is.

    Example:
        >>> shipped(Path("zoo/photos/cat.jpg")) == PHOTOS / "cat.jpg", shipped(Path("cat.jpg")).name
        (True, 'cat.jpg')
    """
    return ZOO / path.relative_to("zoo") if path.parts[:2] == ("zoo", "photos") and not path.exists() else path


def picture(path: Path) -> Image.Image:
    """The image in a file, 8-bit RGB.

    Raises:
        RequestError: a file that cannot be read, or is no image.
    """
    file = shipped(path)
    try:
        return decode(file.read_bytes(), str(path), "Give another file.")
    except FileNotFoundError as error:
        beside = file.parent.iterdir() if file.parent.is_dir() else ()
        close = alike(path.name, {p.name: str(path.with_name(p.name)) for p in beside if p.is_file()})
        raise RequestError(f"there is no image {path}.{close}") from error
    except OSError as error:
        raise RequestError(f"cannot read image {path}: {error.strerror or error}.") from error
