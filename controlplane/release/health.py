"""Where versions answer, by what documents say and by what proxies see of their endpoints. Pure."""

from __future__ import annotations

from collections import defaultdict

from controlplane.evidence.observation import Observation
from controlplane.release.traffic import Endpoints


def alive(where: Endpoints, observation: Observation | None, growing: str = "") -> Endpoints:
    """Return the endpoints that can take requests.

    A version answers as long as one proxy has a healthy endpoint of it; ``growing``, which is to get more
    requests, only while every proxy has one. A proxy that reports nothing says nothing against a version.

    Args:
        where: By documents, and by names that were resolved.
        observation: The last of the service, None before the first.
        growing: The version that a release leads to, '' without one.
    """
    if observation is None or not observation.healthy:
        return where
    seen: dict[str, dict[str, int]] = defaultdict(dict)
    for proxy, version, count in observation.healthy:
        seen[version][proxy] = count
    places, hosts, missing = dict(where.places), dict(where.hosts), dict(where.missing)
    for version in filter(where.there, sorted(seen)):
        reported, listed = seen[version], where.count(version)
        most = max(reported.values())
        hosts[version] = most if listed is None else min(most, listed)
        without = [proxy for proxy, count in reported.items() if not count]
        silent = set(observation.fresh) - reported.keys()
        if without and (version == growing or (not most and not silent)):
            del places[version]
            missing[version] = f" that are healthy, says {', '.join(without)}"
    return Endpoints(places, missing, hosts)
