"""The images of a page: those it was opened with, and those its tabs upload, kept encoded and in memory only."""

import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from clsinterp.data.images import to_rgb
from clsinterp.data.photos import PHOTOS, shipped
from clsinterp.errors import RequestError
from clsinterp.explore.budget import Budget
from clsinterp.models.source import zoo_names

logger = logging.getLogger(__name__)
MAX_BYTES = 10 * 2**20  # of a request's body, and so of an upload
MAX_PIXELS = 25_000_000  # checked in the header, before anything is decoded
MAX_SHOWN = 60  # images of a folder or data set in the gallery
MAX_UPLOADS = 20  # of one tab; the oldest goes
MAX_UPLOADED = 200 * 2**20  # bytes of all tabs; the oldest of the tab that holds most goes
PER_PIXEL = 20  # bytes while an image is decoded, turned and made RGB
DECODING = Budget(512 * 2**20)  # of all tabs
THUMBNAIL = 96
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")


@dataclass(frozen=True)
class Picture:
    """An image of the page.

    Attributes:
        key: a hash of its bytes: what the address and the browser call it.
        data: the encoded file.
        name: what people call it.
        source: a Python expression that gives the PIL image, for code to copy.
        thumbnail: a small PNG.
    """

    key: str
    data: bytes = field(repr=False)
    name: str
    source: str
    thumbnail: bytes = field(repr=False)

    @classmethod
    def of(cls, data: bytes, name: str, source: str) -> "Picture":
        """Check and decode `data`.

        Raises:
            RequestError: too many pixels, or no readable image.
        """
        buffer = BytesIO()
        with decoded(data, name) as small:
            small.thumbnail((THUMBNAIL, THUMBNAIL))
            small.save(buffer, "PNG")
        return cls(hashlib.blake2b(data, digest_size=8).hexdigest(), data, name, source, buffer.getvalue())

    def image(self) -> Image.Image:
        """The image as RGB."""
        with decoded(self.data, self.name) as image:
            return image

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return len(self.data) + len(self.thumbnail)


@contextmanager
def decoded(data: bytes, name: str) -> Iterator[Image.Image]:
    """The image in `data` as RGB, if it is of a usual format and not too large; what that takes is of the shared budget.

    Raises:
        RequestError: otherwise, or none of the budget came free in time.
    """
    with DECODING.hold(PER_PIXEL * _pixels(data, name)):
        with _readable(name), Image.open(BytesIO(data), formats=FORMATS) as image:
            image.load()
            rgb = to_rgb(image)
        yield rgb


def _pixels(data: bytes, name: str) -> int:
    """How many `data` says it has."""
    with _readable(name), Image.open(BytesIO(data), formats=FORMATS) as image:
        if image.width * image.height > MAX_PIXELS:
            raise RequestError(
                f"{name} has {image.width} x {image.height} pixels; at most {MAX_PIXELS // 10**6} million are "
                "taken. Make it smaller and try again."
            )
        return image.width * image.height


@contextmanager
def _readable(name: str) -> Iterator[None]:
    """Says what is wrong with the file called `name`."""
    try:
        yield
    except RequestError:
        raise
    except UnidentifiedImageError as error:
        raise RequestError(f"{name} is not an image this page reads; it takes {', '.join(FORMATS)}.") from error
    # Pillow's decoders raise all of these on damaged files.
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError) as error:
        raise RequestError(f"{name} is damaged or cut short and cannot be decoded.") from error


class Gallery:
    """The page's own images and, by tab, the uploaded ones. Safe to use from several threads."""

    def __init__(self, pictures: Iterable[Picture], setup: str = "") -> None:
        self.pictures = list({p.key: p for p in pictures}.values())
        self.setup = setup  # lines of Python that the pictures' sources need
        self._uploads: dict[str, OrderedDict[str, Picture]] = {}
        self._lock = threading.Lock()

    def add(self, tab: str, data: bytes, name: str) -> Picture:
        """Take an upload.

        Raises:
            RequestError: it is no image that can be taken.
        """
        picture = Picture.of(data, name, f"Image.open({name!r})")
        with self._lock:
            mine = self._uploads.setdefault(tab, OrderedDict())
            mine[picture.key] = picture
            mine.move_to_end(picture.key)
            while len(mine) > MAX_UPLOADS:
                mine.popitem(last=False)
            self._make_room()
        return picture

    def _make_room(self) -> None:
        """Forget uploads until all together are no more than `MAX_UPLOADED`: a tab that fills the memory loses its own."""
        sizes = {tab: sum(p.nbytes for p in held.values()) for tab, held in self._uploads.items()}
        while sum(sizes.values()) > MAX_UPLOADED:
            fullest = max(sizes, key=sizes.__getitem__)
            _, gone = self._uploads[fullest].popitem(last=False)
            sizes[fullest] -= gone.nbytes
            if not self._uploads[fullest]:
                del self._uploads[fullest], sizes[fullest]

    def uploads(self, tab: str) -> list[Picture]:
        """What `tab` has uploaded, oldest first."""
        with self._lock:
            return list(self._uploads.get(tab, {}).values())

    def drop(self, tab: str) -> None:
        """Forget the uploads of a closed tab."""
        with self._lock:
            self._uploads.pop(tab, None)

    def find(self, tab: str, key: str | None) -> Picture:
        """The image called `key`. Only what is held is looked up: no path is ever opened.

        Raises:
            RequestError: not held (any more).
        """
        for picture in (*self.pictures, *self.uploads(tab)):
            if picture.key == key:
                return picture
        raise RequestError(
            "The image this address names is not here. It was uploaded in another tab, or the page was opened with other "
            "images. Pick one from the gallery, or upload it again."
        )


def gallery_of(model: str, folder: Path | None, data: str | None) -> Gallery:
    """The images of `folder` or `data`; where neither is given, what `model` is made for: the zoo's garments for a checkpoint
    that ships, photos for any other.

    Raises:
        RequestError: as `from_folder` and `from_data`.
    """
    if folder is not None:
        return from_folder(folder)
    if data is None and model not in {f"zoo/{name}" for name in zoo_names()}:
        return from_folder(PHOTOS)
    return from_data("zoo" if data is None else data)


def from_folder(folder: Path) -> Gallery:
    """The images in `folder` and its folders, sorted by name; the first `MAX_SHOWN` that can be read.

    Args:
        folder: any; ``zoo/photos`` are those that ship.

    Raises:
        RequestError: no such folder, or no image in it.
    """
    folder = shipped(folder)
    if not folder.is_dir():
        raise RequestError(f"there is no folder {folder}; a folder of images is expected.")
    ending = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
    pictures: list[Picture] = []
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in ending and p.is_file()):
        if len(pictures) == MAX_SHOWN:
            break
        name = str(path.relative_to(folder))
        source = f"sample_photos()[{path.stem!r}]" if folder == PHOTOS else f"Image.open({str(path)!r})"
        try:
            pictures.append(Picture.of(path.read_bytes(), name, source))
        except RequestError as error:
            logger.warning("left out: %s", error)
    if not pictures:
        raise RequestError(f"{folder} holds no image that can be read; {', '.join(FORMATS)} are looked for.")
    return Gallery(pictures)


def from_data(data: str) -> Gallery:
    """The first `MAX_SHOWN` test images of `data` in their seeded order.

    Raises:
        RequestError: as in `clsinterp.data.sources.open_data`.
    """
    from clsinterp.data.sources import open_data

    _, test = open_data(data, limit=MAX_SHOWN)
    pictures = [
        Picture.of(test.encoded(i), f"{test.class_names[test.labels[i]]} ({test.sources[i]})", f"images.image({i})")
        for i in range(len(test))
    ]
    setup = f"from clsinterp.data.sources import open_data\n\nimages = open_data({data!r}, limit={MAX_SHOWN})[1]  # test images"
    return Gallery(pictures, setup)
