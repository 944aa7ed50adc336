from datetime import UTC, datetime, timedelta
from pathlib import Path

from controlplane.policy.problems import Problem
from controlplane.policy.settling import Settling, whole

EXAMPLES = Path(__file__).parents[2] / "policies"
NOW = datetime(2026, 11, 24, tzinfo=UTC)


def taken(*scans):
    """Return at which of the (seconds, content) scans the folder was taken."""
    state, times = Settling(), []
    for seconds, content in scans:
        state, take = state.scanned(content, NOW + timedelta(seconds=seconds))
        times += [seconds] if take else []
    return times


def test_a_folder_is_taken_once_it_was_the_same_for_a_second():
    assert taken((0, {"a": "1"}), (0.9, {"a": "1"}), (1.0, {"a": "1"}), (2, {"a": "1"}), (9, {"a": "1"})) == [
        1.0
    ]


def test_every_change_of_any_file_starts_the_wait_again():
    scans = [
        (0, {"a": "1"}),
        (0.8, {"a": "2"}),
        (1.6, {"a": "2", "b": "1"}),
        (2.4, {"a": "2"}),
        (3.4, {"a": "2"}),
    ]

    assert taken(*scans) == [3.4]


def test_a_change_there_and_back_is_not_taken_again():
    assert taken((0, {"a": "1"}), (1, {"a": "1"}), (2, {"a": "2"}), (2.5, {"a": "1"}), (4, {"a": "1"})) == [1]


def test_an_emptied_folder_is_a_content_too():
    assert taken((0, {"a": "1"}), (1, {"a": "1"}), (2, {}), (3, {})) == [1, 3]


def test_a_clock_that_went_back_takes_nothing():
    assert taken((10, {"a": "1"}), (5, {"a": "1"}), (5.5, {"a": "1"}), (6, {"a": "1"})) == [6]


def test_no_beginning_of_an_example_passes_for_the_file():
    files = {path.name: path.read_bytes() for path in EXAMPLES.rglob("*.yaml")}

    passed = [
        (name, end)
        for name, data in files.items()
        for end in range(len(data.rstrip()))
        if not isinstance(whole({name: data[:end]}, files)[name], Problem)
    ]

    assert len(files) > 10
    assert passed == []


def test_a_file_without_the_blank_lines_at_its_end_is_whole():
    assert whole({"a": b"kind: Fleet"}, {"a": b"kind: Fleet\n\n"}) == {"a": b"kind: Fleet"}
