from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests.distribution import BothEnds, row


class Process:
    """What a scheduler knows of one: it takes tests by their places in the row."""

    shutting_down = False

    def __init__(self, name):
        self.gateway = SimpleNamespace(id=name)
        self.given = []

    def send_runtest_some(self, places):
        self.given += places

    def shutdown(self):
        self.shutting_down = True


def test_processes_take_the_row_from_both_ends_until_they_meet():
    option = SimpleNamespace(loadscopereorder=True)
    config = SimpleNamespace(option=option, getvalue=lambda _: ["popen", "popen", "popen"])
    scheduler = BothEnds(config)
    processes = [Process(f"gw{number}") for number in range(3)]
    names = [f"tests/test_it.py::test_it[{number}]" for number in range(20)]
    for process in processes:
        scheduler.add_node(process)
        scheduler.add_node_collection(process, names)
    scheduler.schedule()

    done = dict.fromkeys(range(3), 0)
    while not all(process.shutting_down for process in processes):
        for number, process in enumerate(processes):
            if done[number] < len(process.given):
                scheduler.mark_test_complete(process, process.given[done[number]])
                done[number] += 1

    front, back = sorted(processes[0].given + processes[2].given), processes[1].given
    assert front == list(range(len(front)))
    assert back == list(range(19, len(front) - 1, -1))
    assert len(back) >= 6


def test_what_waits_is_in_front_and_what_is_long_at_the_ends():
    def item(*marks):
        return SimpleNamespace(marks=marks, iter_markers=lambda: [getattr(pytest.mark, m) for m in marks])

    placed = row([item(), item("long"), item("waits"), item("envoy", "long"), item("chaos"), item("envoy")])

    ends = [("envoy", "long"), ("waits",), ("envoy",), (), ("chaos",), ("long",)]
    assert [each.marks for each in placed] == ends
