# SPDX-License-Identifier: Apache-2.0
"""Serves what users ask for: their jobs, a preference, a move of their login.

server      the parent: accepts, counts, starts a child for each request
requests    the child: one request, one answer
move        moving a login into another job

The parent reads nothing of what users send. Each child runs as root, for one user, with a deadline.
May import: login, observe, system, wire, options, policy, model.
"""
