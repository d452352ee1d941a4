"""Result pages: what a browser gets to see, and that nothing is fetched from elsewhere."""

import base64

import numpy as np
import pytest
from page_reader import look_at

from hybrid_seg_ros.evaluation.pages.html_page import Gallery, Page, Picture, Section, Table, render_page, write_page

PICTURE = Picture.of_rgb(np.zeros((8, 12, 3), np.uint8), 'a picture')
PAGE = Page(
    'A <title> & more', (
        Section('Numbers', (
            'One paragraph.', Table(('variant', 'mIoU %'), (('dense', '72.1'), ('cts', '71.9')), 'a note'),
        )),
        Section('Pictures', (PICTURE, Gallery((PICTURE, PICTURE)))),
        Section('Last', ()),
    ), facts=(('bag', '<b>bags/x</b>'),), warnings=('cut off after 3 frames',),
)  # fmt: skip


def test_everything_is_on_the_page_and_escaped():
    seen = look_at(PAGE)
    assert seen.texts['h1'] == seen.texts['title'] == ['A <title> & more']
    assert seen.texts['h2'] == seen.texts['a'] == ['Numbers', 'Pictures', 'Last']
    assert [link['href'] for link in seen.attributes['a']] == ['#' + at['id'] for at in seen.attributes['h2']]
    assert seen.texts['th'] == ['variant', 'mIoU %'] and seen.texts['td'] == ['dense', '72.1', 'cts', '71.9']
    assert seen.texts['dt'] == ['bag'] and seen.texts['dd'] == ['<b>bags/x</b>']
    assert seen.texts['p'] == ['cut off after 3 frames', 'One paragraph.', 'a note']
    assert len(seen.attributes['img']) == len(seen.texts['figcaption']) == 3


def test_pictures_are_inside_and_nothing_is_fetched():
    seen = look_at(PAGE)
    for image in seen.attributes['img']:
        kind, data = image['src'].split(',')
        assert kind == 'data:image/jpeg;base64' and base64.b64decode(data) == PICTURE.data and image['alt']
    assert 'http' not in render_page(PAGE) and 'script' not in seen.attributes
    assert Picture(b'\x89PNG...').uri.startswith('data:image/png;base64,')


def test_a_page_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / 'folder' / 'page.html'
    write_page(PAGE, path)
    before = path.read_bytes()
    with pytest.raises(ValueError, match='expected 2 cells'):
        write_page(Page('x', (Section('y', (Table(('a', 'b'), (('1',),)),)),)), path)
    assert path.read_bytes() == before and [file.name for file in path.parent.iterdir()] == ['page.html']
