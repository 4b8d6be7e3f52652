# SPDX-License-Identifier: Apache-2.0
"""What is written down: numbers, the audit stream, notes between processes. It knows nothing of how a login is decided.

metrics     numbers in Prometheus' format
audit       one line of JSON for each login, move and end of a session
notes       what helpers and the service for users leave for the resident service's books

Runs in the resident service; helper and service for users write notes only. May import: system, wire, record.
"""
