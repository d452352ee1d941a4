"""What is read of the machine: from made-up /sys trees, from this machine, and from what jtop returns.

No Jetson was at hand: its trees are made after the layouts of JetPack 5 and 6, what jtop returns after the
documentation of jetson-stats 4.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from diagnostic_msgs.msg import DiagnosticStatus

from hybrid_seg_ros.ros.health.jtop import JtopReader, parse_jtop
from hybrid_seg_ros.ros.health.machine_state import HOT_C, MachineState, machine_verdict, read_gpu, read_temperatures

OK, WARN = DiagnosticStatus.OK, DiagnosticStatus.WARN
TIMEOUT_S = 10.0


def tree(root: Path, **files: str) -> Path:
    """Write files, whose names have `__` for slashes, below a folder that stands for `/`."""
    for name, content in files.items():
        path = root / name.replace('__', '/')
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def add_zones(root: Path, *zones: tuple[str, str]) -> Path:
    for index, (kind, temperature) in enumerate(zones):
        zone = root / 'sys/class/thermal' / f'thermal_zone{index}'
        tree(zone, type=f'{kind}\n', temp=f'{temperature}\n')
    return root


def add_gpu(root: Path, folder: str, **files: str) -> Path:
    tree(root / 'sys/class/devfreq' / folder, **files)
    return root


def wait_for(condition) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, 'waited in vain'
        time.sleep(0.01)


def test_an_empty_tree_gives_nothing(tmp_path):
    assert read_temperatures(tmp_path) == read_gpu(tmp_path) == {}


def test_orin_zones_by_name(tmp_path):
    add_zones(tmp_path, ('cpu-thermal', '51500'), ('gpu-thermal', '48000'), ('cv0-thermal', '-256000'),
              ('soc0-thermal', ''), ('tj-thermal', '52125'), ('tboard_thermal', '-5000'))  # fmt: skip
    assert read_temperatures(tmp_path) == {
        'temperature_cpu_c': 51.5, 'temperature_gpu_c': 48.0, 'temperature_tj_c': 52.125, 'temperature_tboard_c': -5.0,
    }  # fmt: skip


def test_a_sensor_that_cannot_be_read_is_left_out(tmp_path):
    add_zones(tmp_path, ('cpu-thermal', '51500'), ('gpu-thermal', '48000'))
    (tmp_path / 'sys/class/thermal/thermal_zone1/temp').unlink()
    (tmp_path / 'sys/class/thermal/thermal_zone1/temp').mkdir()  # opening works, reading fails
    assert read_temperatures(tmp_path) == {'temperature_cpu_c': 51.5}


def test_xavier_zones_and_the_one_that_always_says_100(tmp_path):
    add_zones(tmp_path, ('CPU-therm', '40000'), ('PMIC-Die', '100000'), ('thermal-fan-est', '38500'))
    assert read_temperatures(tmp_path) == {'temperature_CPU_c': 40.0, 'temperature_thermal_fan_est_c': 38.5}


def test_zones_of_one_name_are_told_apart(tmp_path):
    add_zones(tmp_path, *(('acpitz', f'{20 + index}000') for index in range(11)))
    values = read_temperatures(tmp_path)
    assert len(values) == 11
    assert values['temperature_acpitz_c'] == 20.0 and values['temperature_acpitz_10_c'] == 30.0


@pytest.mark.parametrize('folder', ['17000000.gpu', '17000000.ga10b', '17000000.gv11b'])
def test_gpu_of_a_jetson(tmp_path, folder):
    add_gpu(tmp_path, '13e40000.host1x', cur_freq='1000000')
    add_gpu(tmp_path, folder, cur_freq='612000000\n', device__load='431\n')
    assert read_gpu(tmp_path) == {'gpu_frequency_mhz': 612.0, 'gpu_load_percent': 43.1}


def test_gpu_known_by_its_name_in_the_device_tree_only(tmp_path):
    add_gpu(tmp_path, 'devfreq0', cur_freq='306000000', device__of_node__name='ga10b\0', device__load='0')
    assert read_gpu(tmp_path) == {'gpu_frequency_mhz': 306.0, 'gpu_load_percent': 0.0}


@pytest.mark.parametrize('path', ['sys__devices__platform__gpu.0__load', 'sys__devices__gpu.0__load'])
def test_gpu_load_without_devfreq(tmp_path, path):
    tree(tmp_path, **{path: '999\n'})
    assert read_gpu(tmp_path) == {'gpu_load_percent': 99.9}


def test_load_of_another_vendor_s_gpu_is_not_misread(tmp_path):
    add_gpu(tmp_path, 'fb000000.gpu', cur_freq='200000000', device__load='45@200000000Hz')
    assert read_gpu(tmp_path) == {'gpu_frequency_mhz': 200.0}


def test_everything_that_a_tree_has_is_in_the_values(tmp_path):
    add_zones(tmp_path, ('tj-thermal', '61000'))
    add_gpu(tmp_path, '17000000.gpu', cur_freq='612000000', device__load='5')
    state = MachineState(tmp_path)
    try:
        wait_for(lambda: 'temperature_tj_c' in state.values())
        assert set(state.values()) - {'jtop'} == {
            'process_cpu_percent', 'process_memory_mb', 'cpu_percent', 'load_average_1min', 'ram_used_mb',
            'ram_total_mb', 'temperature_tj_c', 'gpu_frequency_mhz', 'gpu_load_percent',
        }  # fmt: skip
    finally:
        state.close()


def test_this_machine():
    before = threading.active_count()
    state = MachineState()
    used_s = time.process_time()
    while time.process_time() < used_s + 0.05:
        pass
    values = state.values()
    assert 0 < values['process_cpu_percent'] <= 105 * os.cpu_count()
    assert 5 < values['process_memory_mb'] < values['ram_total_mb']
    assert 0 < values['ram_used_mb'] < values['ram_total_mb']
    assert 0 <= values['cpu_percent'] <= 100 and values['load_average_1min'] >= 0
    assert all(isinstance(value, (float, str)) for value in values.values())
    assert machine_verdict(values)[1]
    state.close()
    wait_for(lambda: threading.active_count() == before)


class Jtop:
    """Has the attributes and methods of jtop.jtop that are used, with the layouts that its documentation describes."""

    def __init__(self, problem: str = '') -> None:
        self.problem, self.is_running, self.closed = problem, False, 0
        self.gpu = {'ga10b': {'type': 'integrated', 'status': {'load': 43.1}, 'freq': {'cur': 612000}}}
        self.memory = {'RAM': {'tot': 7800000, 'used': 3000000, 'shared': 500000}}
        self.power = {'rail': {'VDD_SOC': {'power': 1200}}, 'tot': {'power': 8123, 'avg': 8000}}
        self.fan = {'pwmfan': {'speed': [30.5], 'rpm': [1200], 'profile': 'quiet'}}
        self.nvpmodel = SimpleNamespace(name='MAXN', id=0)

    def start(self) -> None:
        if self.problem:
            raise RuntimeError(self.problem)
        self.is_running = True

    def ok(self, spin: bool = False) -> bool:
        assert spin, 'would wait for the next second'
        return self.is_running

    def close(self) -> None:
        self.closed += 1


def test_what_jtop_says():
    assert parse_jtop(Jtop()) == {
        'gpu_load_percent': 43.1, 'gpu_frequency_mhz': 612.0, 'gpu_memory_mb': 512.0, 'power_mw': 8123.0,
        'fan_pwmfan_percent': 30.5, 'power_mode': 'MAXN',
    }  # fmt: skip


@pytest.mark.parametrize(
    ('attribute', 'value', 'missing'),
    [
        ('gpu', {}, {'gpu_load_percent', 'gpu_frequency_mhz'}),
        ('power', {}, {'power_mw'}),
        ('power', None, {'power_mw'}),
        ('fan', {'pwmfan': {'speed': []}}, {'fan_pwmfan_percent'}),
        ('nvpmodel', None, {'power_mode'}),
        ('memory', {'RAM': {'tot': 1, 'shared': 'N/A'}}, {'gpu_memory_mb'}),
    ],
)
def test_what_a_board_does_not_have_is_left_out(attribute, value, missing):
    client = Jtop()
    complete = set(parse_jtop(client))
    setattr(client, attribute, value)
    assert set(parse_jtop(client)) == complete - missing


def test_an_attribute_that_jtop_lacks_is_left_out():
    client = Jtop()
    del client.nvpmodel
    assert 'power_mode' not in parse_jtop(client)


def test_a_service_that_does_not_answer_is_not_asked_every_second():
    made = []

    def make_client():
        made.append(Jtop('The jtop.service is not active.\nPlease run: x'))
        return made[-1]

    reader = JtopReader(make_client)
    expected = {'jtop': 'no answer: The jtop.service is not active. Please run: x'}
    assert reader.read() == reader.read() == reader.read() == expected
    assert len(made) == 1 and made[0].closed == 1


def test_a_module_that_cannot_be_imported_is_named():
    def make_client():
        raise ImportError('No module named smbus2')

    assert JtopReader(make_client).read() == {'jtop': 'no answer: No module named smbus2'}


def test_a_service_that_stops_is_left_and_takes_its_values_with_it():
    client = Jtop()
    reader = JtopReader(lambda: client)
    assert reader.read()['power_mw'] == 8123.0
    client.is_running = False
    assert reader.read() == {'jtop': 'no answer: it has stopped'} and client.closed == 1


def test_values_of_jtop_come_along_and_the_client_is_closed(tmp_path):
    client = Jtop()
    state = MachineState(tmp_path, lambda: client)
    wait_for(lambda: state.values().get('jtop') == 'ok')
    assert state.values()['power_mode'] == 'MAXN'
    state.close()
    wait_for(lambda: client.closed == 1)


def test_a_jtop_that_hangs_holds_nobody_up(tmp_path):
    release = threading.Event()

    class Hanging(Jtop):
        def start(self) -> None:
            release.wait(TIMEOUT_S)

    state = MachineState(tmp_path, Hanging)
    assert state.values()['jtop'] == 'no answer yet'
    state.close()
    release.set()


@pytest.mark.parametrize(
    ('values', 'level', 'message'),
    [
        ({}, OK, ''),
        ({'process_cpu_percent': 35.2, 'ram_used_mb': 3100.0, 'ram_total_mb': 7620.0, 'temperature_tj_c': 61.0}, OK,
         'process 35 % of a core, 3100 of 7620 MB of memory used, at most 61 C'),
        ({'temperature_tj_c': HOT_C, 'temperature_cpu_c': HOT_C - 1}, WARN, 'tj has 90 C'),
        ({'ram_used_mb': 7000.0, 'ram_total_mb': 7620.0}, WARN, '620 of 7620 MB of memory left'),
        ({'ram_used_mb': 7000.0, 'ram_total_mb': 7620.0, 'temperature_tj_c': 97.0}, WARN, 'tj has 97 C, 620 of 7620'),
        ({'jtop': 'no answer: x'}, OK, ''),
    ],
)  # fmt: skip
def test_verdict(values, level, message):
    verdict = machine_verdict(values)
    assert verdict[0] == level and verdict[1].startswith(message)
