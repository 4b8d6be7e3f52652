# SPDX-License-Identifier: Apache-2.0
"""Benchmarks: our module and Debian's C module on the same node, in the same run, in turn."""
