# SPDX-License-Identifier: Apache-2.0
"""What a session gets from its job besides membership: limits, variables, the greeting, what it has left behind.

Runs where its login runs. Loaded only where the site asks for it. Nothing here refuses a login, but `left_behind`.
"""
