"""The kinds of noise that a simulation can have, by name."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.simulation.noise import Drifting, Family, Switching
from controlplane.simulation.users import HARSH, Users

FAMILIES: Mapping[str, Family] = {  # by strength
    "iid": Drifting(),
    "mod": Drifting(0.15, 0.3, 0.10, 0.3, 0.02, 2.0, 0.0, 0.2),
    "harsh": Drifting(0.30, 0.5, 0.20, 0.5, 0.05, 5.0, 0.4, 0.4),
    "switching": Switching(),
    "switching-harsh": Switching(5.0, 3.0, 0.05, 1.3, 80.0, 0.25, 8.0),
    "users": Users(),
    "users-harsh": HARSH,
}
