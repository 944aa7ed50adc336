"""When Python looks for cyclic garbage: seldom, in a process that holds thousands of streams."""

from __future__ import annotations

import gc
from typing import Final

# A stream keeps some hundred objects that are no garbage, and a push to N of them makes a dozen objects each
# that live until the write is over. With the defaults (700, 10, 10) the collector looked through all of them
# again and again: half of the CPU of a push to 5000 proxies (`make bench`). It looks once more objects are
# new than a push to 8000 makes, some 15 MB, and at twice as many at most: nobody is served meanwhile, 50 to
# 100 ms on a busy machine.
THRESHOLDS: Final = (110_000, 0, 24)


def collect_seldom() -> None:
    """Set this for the process, once it has loaded what stays: that is never looked through again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
