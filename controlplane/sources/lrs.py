"""What gRPC clients report of their calls, added up until it is asked for, and turned into observations once.

Reports are deltas: a client counts each call once, when it has ended, by cluster, which names service,
version and segment. Every status but OK is an error. Calls that found no endpoint to go to are in no report
(`evidence/reach.py` has what is made of that), and there are no latencies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from google.protobuf.message import DecodeError

from controlplane._pb.lrs_pb2 import ClusterStats, LoadStatsRequest
from controlplane.evidence.observation import Cell, Observation, Tally
from controlplane.evidence.observed import Observed
from controlplane.policy.latency import EDGES_MS
from controlplane.resources.names import segment_cluster
from controlplane.sources.audiences import Audiences
from controlplane.sources.collector import SILENT_AFTER, origin
from controlplane.xds.messages import MAX_NODE_ID
from controlplane.xds.view import Peer

MAX_BYTES = 1 << 20  # of one report
MAX_CLUSTERS = 2000  # that one client is remembered to have reported between two observations
MAX_STRANGERS = 2000  # the same, of all together that have no ADS stream yet
MAX_ENTRIES = 30_000  # clusters and their localities in one report: reading more takes too long at a time
MAX_COUNT = 1 << 53
_TOO_MANY = "reports more clusters than are counted"
_STRANGE = "reported before it had an xDS stream, beside more strangers than are counted"

_Place = tuple[str, str, Cell]  # origin, service, cell
_NO_CALLS = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Client:
    """The open ADS streams of the gRPC clients with one node id.

    Attributes:
        origins: Where they come from.
        services: Names of the services that they ask for.
    """

    origins: frozenset[str]
    services: frozenset[str]


class _Counts:
    """Calls that ended, those of them that failed, and calls that began, by place."""

    def __init__(self) -> None:
        self.at: dict[_Place, tuple[int, int, int]] = {}

    def add(self, place: _Place, calls: int, errors: int, issued: int) -> None:
        before = self.at.get(place, _NO_CALLS)
        self.at[place] = (before[0] + calls, before[1] + errors, before[2] + issued)


@dataclass(frozen=True, slots=True)
class _Interval:
    """An interval in the making: who asks for which services, and what was reported of each."""

    start: datetime
    end: datetime
    audiences: Audiences = field(default_factory=Audiences)
    tallies: dict[str, dict[Cell, Tally]] = field(default_factory=dict)
    issued: dict[str, Counter[Cell]] = field(default_factory=dict)

    def add(self, service: str, cell: Cell, calls: int, errors: int, issued: int) -> None:
        """Take in what one place came to; a cell may have several."""
        if calls:
            found = self.tallies.setdefault(service, {})
            found[cell] = found.get(cell, Tally()) + _tally(calls, errors)
        self.issued.setdefault(service, Counter())[cell] += issued

    def observation(self, service: str, _healthy: bool) -> Observation:
        """Return what was seen of a service; clients say nothing of endpoints."""
        told = self.audiences.told(service)
        return Observation(
            service,
            self.start,
            self.end,
            tuple(sorted(self.tallies.get(service, {}).items(), key=lambda item: item[0])),
            told.fresh,
            told.silent,
            told.partial,
            tuple(sorted((+self.issued.get(service, Counter())).items())),
        )


class LoadReports:
    """Adds up the reports of all clients.

    Counts leave by ``commit``, once an observation with them was stored; until then ``counting`` counts the
    same again. A crash loses what was not stored, of all versions alike. Not thread-safe.
    """

    def __init__(
        self,
        interval: timedelta = timedelta(seconds=5),
        present: Callable[[str, str], bool] = lambda _node, _origin: False,
    ) -> None:
        """Add up the reports of clients that report every ``interval``.

        ``present`` says whether a node id has an ADS stream of this origin now; those of the last observation
        count as well.
        """
        self._interval = interval
        self._present = present
        self._counts = _Counts()  # since the last observation
        self._taken = _Counts()  # of the last observation, until it is stored
        self._open: Counter[tuple[str, str]] = Counter()  # streams by node id and origin
        self._since: dict[str, datetime] = {}
        self._clients: Mapping[str, Client] = {}
        self._next_clients: Mapping[str, Client] = {}
        self._services: Mapping[str, AbstractSet[str]] | None = None
        self._room: Counter[tuple[str, str] | None] = Counter()  # places by client; None: of strangers
        self._ignored: dict[tuple[str, str], str] = {}  # who reported more than there is room for, and where
        self._told: Mapping[tuple[str, str], str] = {}  # those of the last observation

    def opened(self, peer: Peer) -> Stream:
        """Return what takes the messages of a new stream."""
        return Stream(self, origin(peer))

    def counting(
        self,
        start: datetime,
        end: datetime,
        connected: Mapping[str, Client],
        services: Mapping[str, AbstractSet[str]],
    ) -> Generator[None, None, Observed]:
        """Count what was reported since the last committed observation, a place or a client in each step.

        Reports may arrive between two steps: the next observation counts them.

        Args:
            start: Begin of the interval, UTC.
            end: End of the interval, UTC: the present.
            connected: Clients with an open ADS stream, by node id.
            services: Names of the versions of each service; counts of others are dropped.

        Returns:
            One observation for each service that a connected client asks for, or that was reported.
        """
        latest, self._counts = self._counts, _Counts()
        self._next_clients = dict(connected)
        self._services, self._told = services, dict(self._ignored)
        self._since = {node: self._since.get(node, end) for node in connected}
        if self._taken.at:  # were not stored
            for place, counted in latest.at.items():
                self._taken.add(place, *counted)
        else:
            self._taken = latest
        at = _Interval(start, end)
        for place, counted in self._taken.at.items():
            yield
            source, service, cell = place
            client = connected.get(cell.proxy) or self._clients.get(cell.proxy)
            # Whoever reports without an ADS stream of the same host is not known to us.
            if client is not None and source in client.origins and cell.version in services.get(service, ()):
                at.add(service, cell, *counted)
        for node, client in sorted(connected.items()):
            yield
            self._place(node, client, at)
        asked = at.audiences.services() | at.issued.keys()
        return Observed(asked & services.keys(), at.tallies.keys(), at.observation)

    def commit(self) -> None:
        """Say that the last observation was stored."""
        self._taken, self._clients = _Counts(), self._next_clients
        self._room = Counter(self._whose(place) for place in self._counts.at)
        self._ignored = {who: why for who, why in self._ignored.items() if who not in self._told}

    def _place(self, node: str, client: Client, at: _Interval) -> None:
        audience = at.audiences.of(client.services)
        # A client without calls sends no reports: that its streams are open must do.
        if all(self._open[node, source] for source in client.origins):
            audience.fresh.append(node)
            if why := max((self._told.get((node, source), "") for source in client.origins), default=""):
                audience.partial.append((node, why))
        elif self._since[node] <= at.end - SILENT_AFTER * self._interval:
            audience.silent.append(node)

    def _whose(self, place: _Place) -> tuple[str, str] | None:
        """Return whose room a place takes: what nobody knows shall take none of what is known."""
        source, _, cell = place
        client = self._clients.get(cell.proxy)
        known = (client is not None and source in client.origins) or self._present(cell.proxy, source)
        return (cell.proxy, source) if known else None

    def _enter(self, node: str, source: str) -> None:
        self._open[node, source] += 1

    def _leave(self, node: str, source: str) -> None:
        self._open[node, source] -= 1
        if not self._open[node, source]:
            del self._open[node, source]

    def _count(self, node: str, source: str, request: LoadStatsRequest) -> None:
        entries = len(request.cluster_stats)
        if entries <= MAX_ENTRIES:
            entries += sum(len(stats.upstream_locality_stats) for stats in request.cluster_stats)
        if entries > MAX_ENTRIES:
            raise ValueError(f"more than {MAX_ENTRIES} clusters and localities in one report")
        for stats in request.cluster_stats:
            self._add(node, source, stats)

    def _add(self, node: str, source: str, stats: ClusterStats) -> None:
        good, bad, issued = 0, stats.total_dropped_requests, 0
        for locality in stats.upstream_locality_stats:
            good += locality.total_successful_requests
            bad += locality.total_error_requests
            issued += locality.total_issued_requests
        named = segment_cluster(stats.cluster_name) if good + bad + issued else None
        if named is not None:
            service, version, segment = named
            if self._services is not None and version not in self._services.get(service, ()):
                return
            place = (source, service, Cell(node, segment, version))
            new = place not in self._counts.at and place not in self._taken.at
            whose = self._whose(place)
            most = MAX_STRANGERS if whose is None else MAX_CLUSTERS
            if good + bad + issued > MAX_COUNT or (new and self._room[whose] >= most):
                self._ignored[node, source] = _STRANGE if whose is None else _TOO_MANY
                return
            self._room[whose] += new
            self._counts.add(place, good + bad, bad, issued)


class Stream:
    """The messages of one client; only the first has to say who it is."""

    def __init__(self, reports: LoadReports, source: str) -> None:
        self._reports = reports
        self._source = source
        self._node = ""

    def receive(self, data: bytes) -> None:
        """Take one message.

        Raises:
            ValueError: If it cannot be read, or if the first one names no node, or one that cannot be shown.
        """
        if len(data) > MAX_BYTES:
            raise ValueError(f"report of {len(data)} bytes, at most {MAX_BYTES} are allowed")
        try:
            request = LoadStatsRequest.FromString(data)
        except DecodeError as error:
            raise ValueError("not a LoadStatsRequest") from error
        if not self._node:
            _check(request.node.id)
            self._node = request.node.id
            self._reports._enter(self._node, self._source)
        self._reports._count(self._node, self._source, request)

    def close(self) -> None:
        """Say that the stream has ended."""
        if self._node:
            self._reports._leave(self._node, self._source)


def _check(node: str) -> None:
    """Raise a ValueError unless it is the id of a node that may have an ADS stream."""
    if not node:
        raise ValueError("the first message has no node id")
    if len(node) > MAX_NODE_ID:
        raise ValueError(f"the node id is longer than {MAX_NODE_ID} characters")
    if not node.isprintable():
        raise ValueError("the node id has characters that cannot be printed")


def _tally(calls: int, errors: int) -> Tally:
    # Without a latency a call counts as slow: what was not measured must never pass.
    return Tally(requests=calls, errors=errors, slower=(calls,) * len(EDGES_MS))
