from pathlib import Path

from controlplane.policy.agents import PATTERNS

PAGE = Path(__file__).parents[2] / "docs" / "segments.md"


def test_the_patterns_of_browsers_are_published_as_they_are():
    text = PAGE.read_text()

    for name, (pattern, but) in PATTERNS.items():
        assert f"\n{name:8} {pattern}\n" in text
        assert but is None or f"\n{'not':>8} {but}\n" in text
