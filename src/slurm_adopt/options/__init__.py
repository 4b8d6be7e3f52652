# SPDX-License-Identifier: Apache-2.0
"""The options of a PAM line: the one table (`schema`), its parser, and which variables may be exported."""
