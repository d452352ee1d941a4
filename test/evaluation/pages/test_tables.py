"""Tables in a terminal and as Markdown, and how GFLOPs are written."""

import pytest

from hybrid_seg_ros.evaluation.pages.tables import format_gflops, format_table

COLUMNS, ROWS = ('variant', 'how', 'ms'), [('dense', '', '122.0'), ('cts', 'merging', '')]


def test_names_are_flush_left_and_numbers_flush_right():
    assert format_table(COLUMNS, ROWS, names=2).splitlines() == [
        'variant  how         ms',
        'dense             122.0',
        'cts      merging',
    ]
    assert format_table(COLUMNS, ROWS).splitlines()[0] == 'variant      how     ms'


@pytest.mark.parametrize('names, rule', [(1, '| --- | ---: | ---: |'), (2, '| --- | --- | ---: |')])
def test_markdown(names, rule):
    assert format_table(COLUMNS, ROWS, markdown=True, names=names).splitlines() == [
        '| variant | how | ms |', rule, '| dense |  | 122.0 |', '| cts | merging |  |',
    ]  # fmt: skip


def test_without_rows():
    assert format_table(COLUMNS, []) == 'variant  how  ms'


@pytest.mark.parametrize('gflops, text', [(None, '–'), (0.1573, '0.157'), (1.0, '1.00'), (109.7, '109.70')])
def test_gflops(gflops, text):
    assert format_gflops(gflops) == text
