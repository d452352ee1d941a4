"""A folder of results has all its files or none, and a file in its place is found before anything is measured."""

import pytest
from hybrid_seg_ros.evaluation.result_folder import check_file, check_folder, write_files


def test_files_are_written_all_or_none(tmp_path):
    (tmp_path / 'mine.txt').write_text('mine')
    write_files(tmp_path, {'a': b'1', 'b': b'2'})
    (tmp_path / 'b.partial').mkdir()
    with pytest.raises(OSError):
        write_files(tmp_path, {'a': b'3', 'b': b'4'})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == {
        'a': b'1', 'b': b'2', 'mine.txt': b'mine',
    }  # fmt: skip


def test_the_folder_may_be_new_or_there_but_no_file(tmp_path):
    check_folder(tmp_path)
    check_folder(tmp_path / 'new' / 'deeper')
    assert not (tmp_path / 'new').exists()
    (tmp_path / 'file').touch()
    for folder in (tmp_path / 'file', tmp_path / 'file' / 'below'):
        with pytest.raises(NotADirectoryError, match='expected a folder, .*file is a file'):
            check_folder(folder)


def test_a_folder_where_a_file_should_be_is_named(tmp_path):
    (tmp_path / 'file').write_text('mine')
    check_file(None, '--json')
    check_file(tmp_path / 'new' / 'x.json', '--json')
    check_file(tmp_path / 'file', '--json')
    with pytest.raises(IsADirectoryError, match='--json .*: expected a file, that is a folder'):
        check_file(tmp_path, '--json')
    with pytest.raises(NotADirectoryError, match='--html .*: expected a file in a folder, .*file is a file'):
        check_file(tmp_path / 'file' / 'x.html', '--html')
