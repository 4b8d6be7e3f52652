# SPDX-License-Identifier: Apache-2.0
"""Gives a session what its job has besides membership: limits, variables, the greeting; finds what was left behind.

Runs where its login runs. Loaded only where the site asks for it. Nothing here refuses a login, but `left_behind`.
"""
