# SPDX-License-Identifier: Apache-2.0
"""Records what happened: metrics, the audit stream, notes between processes. Knows nothing of how a login is decided.

metrics     numbers in Prometheus' format
audit       one line of JSON for each login, move and end of a session
notes       what helpers and the service for users leave for the resident service's books

Runs in the resident service; helper and service for users write notes only. May import: system, wire, record.
"""
