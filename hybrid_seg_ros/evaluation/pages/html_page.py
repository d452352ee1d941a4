"""Result pages: one HTML file with tables, plots and pictures inside, which opens anywhere, without a network."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Union

import cv2
import numpy as np

from hybrid_seg_ros.files import write_text

_TEMPLATE = Path(__file__).with_name('html_page.html.j2')
_JPEG_QUALITY = 88
_PNG_START = b'\x89PNG'


@dataclass(frozen=True)
class Table:
    """A table of texts; the first column names the rows. `note` stands below it."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ''

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f'expected {len(self.columns)} cells a row ({", ".join(self.columns)}), got {row}')


@dataclass(frozen=True)
class Picture:
    """An image file's bytes, PNG or JPEG, and what it shows. `alt` is for those who cannot see it."""

    data: bytes = field(repr=False)
    caption: str = ''
    alt: str = ''

    @staticmethod
    def of_rgb(rgb: np.ndarray, caption: str = '', alt: str = '') -> Picture:
        """Compress (H, W, 3) uint8 RGB as JPEG."""
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
        return Picture(cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY])[1].tobytes(), caption, alt)

    @property
    def uri(self) -> str:
        """The picture as a data: URI."""
        kind = 'png' if self.data.startswith(_PNG_START) else 'jpeg'
        return f'data:image/{kind};base64,{base64.b64encode(self.data).decode("ascii")}'


@dataclass(frozen=True)
class Gallery:
    """Pictures side by side, as many in a row as there is room for, each at least `width_px` wide."""

    pictures: Sequence[Picture]
    width_px: int = 320


Part = Union[str, Table, Picture, Gallery]


@dataclass(frozen=True)
class Section:
    """A heading and what follows it, in order: paragraphs, tables, pictures."""

    title: str
    parts: Sequence[Part]

    @property
    def anchor(self) -> str:
        """Return the section's name in links."""
        return ''.join(c if c.isalnum() else '-' for c in self.title.lower())


@dataclass(frozen=True)
class Page:
    """A page: what it is about, its `facts` (name, value) in short, `warnings` for the reader, and its sections."""

    title: str
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()
    warnings: Sequence[str] = ()


def write_page(page: Page, path: Path) -> None:
    """Write a page, whole or not at all. Raises ModuleNotFoundError if Jinja2 is not there."""
    write_text(path, render_page(page))


def render_page(page: Page) -> str:
    """Return a page as HTML; all texts are escaped."""
    require_jinja2()
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.tests.update(text=lambda part: isinstance(part, str), table=lambda part: isinstance(part, Table),
                             picture=lambda part: isinstance(part, Picture))  # fmt: skip
    return environment.from_string(_TEMPLATE.read_text(encoding='utf-8')).render(page=page)


def require_jinja2() -> None:
    """Raise ModuleNotFoundError that says how to get Jinja2, if it is not there."""
    try:
        import jinja2  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            'pages need Jinja2: pip install jinja2 or, for the Python of a sourced ROS 2, '
            'sudo apt install python3-jinja2'
        ) from error
