"""Find the model that a path or a name means."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Union

PACKAGE = 'hybrid_seg_ros'
SHIPPED_MODEL = 'segvit_small_camvid'
_SCHEME = 'package://'


def resolve_model_path(model: Union[str, Path]) -> Path:
    """Return the path of a model's YAML file, which need not exist.

    '' is the model that comes with the package; `package://PACKAGE/models/x.yaml` lies in a package's share folder;
    a bare name such as `segvit_small_camvid` is one of this package's models/; anything else is a path.
    Raises ValueError for a package that is not installed.
    """
    text = str(model)
    if text.startswith(_SCHEME):
        package, _, rest = text[len(_SCHEME) :].partition('/')
        return _share_folder(package) / rest
    if not text or ('/' not in text and not Path(text).suffix):
        return _share_folder(PACKAGE) / 'models' / f'{text or SHIPPED_MODEL}.yaml'
    path = Path(text).expanduser()
    if '/' not in text and not path.exists():
        return _share_folder(PACKAGE) / 'models' / text
    return path


def _share_folder(package: str) -> Path:
    """Return share/PACKAGE of a package; for this one, without colcon, the source tree or where pip put it."""
    try:
        from ament_index_python.packages import get_package_share_directory

        return Path(get_package_share_directory(package))
    except (ModuleNotFoundError, OSError, LookupError, ValueError) as error:  # without ROS 2, too
        if package != PACKAGE:
            raise ValueError(f'package {package!r} is not installed: {error}') from error
    source_tree = Path(__file__).resolve().parents[1]
    return source_tree if (source_tree / 'models').is_dir() else Path(sys.prefix) / 'share' / PACKAGE
