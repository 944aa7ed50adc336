"""Browsers by name, on the headers that they really send."""

import pytest

from controlplane.policy.agents import AGENTS
from controlplane.policy.segments import Request, matches

WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko)"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
PIXEL = f"Mozilla/5.0 (Linux; Android 14; Pixel 8) {WEBKIT}"
WINDOWS = f"Mozilla/5.0 (Windows NT 10.0; Win64; x64) {WEBKIT}"


@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (f"{WINDOWS} Chrome/131.0.0.0 Safari/537.36", "Chrome"),
        (f"{PIXEL} Chrome/131.0.0.0 Mobile Safari/537.36", "Chrome"),
        (f"{IPHONE} CriOS/131.0.6778.73 Mobile/15E148 Safari/604.1", "Chrome"),
        (f"{WINDOWS} Chrome/131.0.0.0 Safari/537.36 Edg/131.0.2903.63", "Edge"),
        (f"{PIXEL} Chrome/131.0.0.0 Mobile Safari/537.36 EdgA/131.0.2903.48", "Edge"),
        (f"{IPHONE} Version/18.0 EdgiOS/131.0.2903.48 Mobile/15E148 Safari/604.1", "Edge"),
        (f"{WINDOWS} Chrome/64.0.3282.140 Safari/537.36 Edge/18.17763", "Edge"),
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:133.0) Gecko/20100101 Firefox/133.0", "Firefox"),
        ("Mozilla/5.0 (Android 14; Mobile; rv:133.0) Gecko/133.0 Firefox/133.0", "Firefox"),
        (f"{IPHONE} FxiOS/133.0 Mobile/15E148 Safari/605.1.15", "Firefox"),
        (f"{MAC} Version/18.1 Safari/605.1.15", "Safari"),
        (f"{IPHONE} Version/18.1 Mobile/15E148 Safari/604.1", "Safari"),
        (f"{WINDOWS} Chrome/130.0.0.0 Safari/537.36 OPR/115.0.0.0", None),
        (f"{PIXEL} SamsungBrowser/27.0 Chrome/125.0.0.0 Mobile Safari/537.36", None),
        (f"{PIXEL[:-30]}; wv) {WEBKIT} Version/4.0 Chrome/131.0.0.0 Mobile Safari/537.36", None),
        ("Mozilla/5.0 (Linux; Android 4.4; Nexus 7) AppleWebKit/534.30 Version/4.0 Safari/534.30", None),
        (f"Mozilla/5.0 (X11; Linux x86_64) {WEBKIT} HeadlessChrome/131.0.0.0 Safari/537.36", None),
        ("Mozilla/5.0 (X11; rv:91.0) Gecko/20100101 Firefox/91.0 SeaMonkey/2.53.19", None),
        ("curl/8.5.0", None),
    ],
)
def test_each_browser_has_one_name(agent, name):
    request = Request(headers=(("user-agent", agent),))

    assert [known for known, tree in AGENTS.items() if matches(tree, request)] == ([name] if name else [])


def test_a_request_that_names_no_browser_is_none():
    assert not any(matches(tree, Request()) for tree in AGENTS.values())
