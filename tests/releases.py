# SPDX-License-Identifier: Apache-2.0
"""For fixtures that run on every release: the host's own, and with `make test-releases` the other ones."""

from __future__ import annotations

import pytest

SUITES = [None, *(pytest.param(suite, marks=pytest.mark.releases) for suite in ("bullseye", "trixie", "forky"))]


def suite_name(suite: str | None) -> str:
    """How a test is called that runs on this suite."""
    return suite or "host"
