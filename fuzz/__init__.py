# SPDX-License-Identifier: Apache-2.0
"""Fuzzing: each target is one file with one invariant, and `python -m fuzz` runs them (docs/security/fuzzing.md).

`targets/` has the Python targets, `module_fuzz.c` and `reply_fuzz.c` the two of the PAM module, `corpus/TARGET/` what
each of them is replayed with. Whatever breaks an invariant is kept in the corpus.
"""
