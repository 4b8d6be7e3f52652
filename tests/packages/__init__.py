# SPDX-License-Identifier: Apache-2.0
"""The packages: what is in them, on four releases of Debian and with rpm, and the module for another machine."""
