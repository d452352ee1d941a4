"""Installs the package; name, version and the like are read from package.xml."""

from glob import glob
from os.path import dirname, isfile, join
from xml.etree import ElementTree

from setuptools import find_packages, setup

manifest = ElementTree.parse('package.xml').getroot()
package_name = manifest.findtext('name')


def share_files(*folders):
    """List the files of the folders as data_files, for share/PACKAGE; subfolders are kept."""
    paths = [path for folder in folders for path in glob(join(folder, '**'), recursive=True)]
    by_folder = {}
    for path in sorted(path for path in paths if isfile(path) and not path.endswith(('.partial', '.pyc'))):
        by_folder.setdefault(join('share', package_name, dirname(path)), []).append(path)
    return list(by_folder.items())


setup(
    name=package_name,
    version=manifest.findtext('version'),
    description=' '.join(manifest.findtext('description').split()),
    maintainer=manifest.findtext('maintainer'),
    maintainer_email=manifest.find('maintainer').get('email'),
    license=manifest.findtext('license'),
    packages=find_packages(include=[package_name, f'{package_name}.*']),
    package_data={package_name: ['inference/backends/tensorrt/*.cu', 'evaluation/pages/*.j2']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{package_name}']),
        (f'share/{package_name}', ['package.xml']),
        *share_files('launch', 'config', 'models', 'bags'),
    ],
    python_requires='>=3.10',
    install_requires=['setuptools'],
    extras_require={'test': ['pytest', 'pytest-timeout']},
    zip_safe=False,
    entry_points={
        'console_scripts': [
            'hybrid_seg = hybrid_seg_ros.cli:main',
            'segmentation_node = hybrid_seg_ros.ros.segmentation_node:main',
        ],
    },
)
