# SPDX-License-Identifier: Apache-2.0
"""What documents, manuals and completions take from the tables of the code. `tools/generate-docs` writes it down.

Sources: `options/schema.py` (the PAM line), `model.py` (reason codes), the argparse parsers of `cli/`.
Standard library only: whoever packages this needs nothing else.
"""
