# SPDX-License-Identifier: Apache-2.0
"""Waiting without blocking anybody else: tasks and their loop, sockets, and children for what cannot be waited for.

`files` is the one place that judges who may write a file, and that makes files.
"""
