"""Every round runs every task once, in an order of its own that a seed repeats."""

import itertools

from hybrid_seg_ros.evaluation.benchmark.rounds import run_interleaved


def orders_of(rounds, seed):
    """Run four tasks, and return the order in which each round ran them."""
    calls = []
    tasks = {name: lambda number, name=name: calls.append((number, name)) or f'{name}{number}' for name in 'abcd'}
    results = run_interleaved(tasks, rounds, seed)
    assert results == {name: [f'{name}{number}' for number in range(rounds)] for name in 'abcd'}
    assert [number for number, _ in calls] == sorted(number for number, _ in calls), 'rounds follow one another'
    return [[name for _, name in group] for _, group in itertools.groupby(calls, key=lambda call: call[0])]


def test_every_round_runs_every_task_once_in_an_order_of_its_own():
    orders = orders_of(20, 7)
    assert len(orders) == 20 and all(sorted(order) == list('abcd') for order in orders)
    assert {order[0] for order in orders} == set('abcd'), 'no task always runs first'
    assert orders == orders_of(20, 7) != orders_of(20, 8)
