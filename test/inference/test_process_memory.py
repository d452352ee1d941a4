"""Memory is kept where the C library can."""

import platform

from hybrid_seg_ros.inference.process_memory import keep_freed_memory


def test_freed_memory_is_kept_where_glibc_can():
    assert keep_freed_memory() == (platform.libc_ver()[0] == 'glibc')


def test_other_c_libraries_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, 'libc_ver', lambda: ('', ''))
    assert not keep_freed_memory()
