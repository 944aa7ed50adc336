"""Counters of Envoy's clusters that a condition may name; proxies report these and no others."""

from __future__ import annotations

from typing import Final

EJECTIONS: Final = "outlier_detection.ejections_enforced_total"
RETRIES: Final = "upstream_rq_retry"

CLUSTER_STATS: Final = (
    "lb_healthy_panic",
    EJECTIONS,
    "upstream_cx_connect_fail",
    "upstream_cx_connect_timeout",
    "upstream_cx_destroy_remote_with_active_rq",
    "upstream_cx_none_healthy",
    "upstream_cx_overflow",
    "upstream_cx_pool_overflow",
    "upstream_cx_protocol_error",
    "upstream_rq_cancelled",
    "upstream_rq_maintenance_mode",
    "upstream_rq_pending_failure_eject",
    "upstream_rq_pending_overflow",
    "upstream_rq_per_try_timeout",
    RETRIES,
    "upstream_rq_retry_limit_exceeded",
    "upstream_rq_retry_overflow",
    "upstream_rq_rx_reset",
    "upstream_rq_timeout",
    "upstream_rq_tx_reset",
)
REPORTS_KEY: Final = "turnout.reports"  # in the metadata of a node
REPORTS: Final = 2  # of a bootstrap: what it makes a proxy report; 2 has CLUSTER_STATS
