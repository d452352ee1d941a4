"""Every round runs every task once, in an order of its own that a seed repeats."""

import itertools

import pytest

from hybrid_seg_ros.evaluation.benchmark.rounds import round_orders, run_interleaved


def test_every_round_runs_every_task_once():
    calls = []
    tasks = {name: lambda number, name=name: calls.append((number, name)) or f'{name}{number}' for name in 'abcd'}
    laps = run_interleaved(tasks, 6, 0)
    assert laps == {name: [f'{name}{number}' for number in range(6)] for name in 'abcd'}
    rounds = [[name for _, name in group] for _, group in itertools.groupby(calls, key=lambda call: call[0])]
    assert [number for number, _ in calls] == sorted(number for number, _ in calls), 'rounds follow one another'
    assert len(rounds) == 6 and all(sorted(order) == list('abcd') for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1


@pytest.mark.parametrize('count, rounds', [(1, 3), (5, 1), (5, 20)])
def test_orders(count, rounds):
    orders = list(round_orders(count, rounds, 7))
    assert orders == list(round_orders(count, rounds, 7))
    assert len(orders) == rounds and all(sorted(order) == list(range(count)) for order in orders)
    if rounds == 20:
        assert orders != list(round_orders(count, rounds, 8))
        firsts = {order[0] for order in orders}
        assert len(firsts) == count, 'no task always runs first'
