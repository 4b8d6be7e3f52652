# SPDX-License-Identifier: Apache-2.0
"""`slurm-adopt enable`, `disable` and `confirm`: our lines in a PAM service, tried first, and taken back by themselves.

enable, disable, confirm    arguments, output, exit status
command     what enable and disable have in common as commands
plan        which lines go where, and what the file is then
candidate   the PAM files of the node with one of them replaced, for the doctor and for libpam
trial       what libpam says of a stack, for root, for a user with a job and for one without
change      the change itself: what is kept, what waits for a confirmation, and how it is taken back
watch       who takes it back: a process that waits, systemd, and every other command of root's
login       the ssh login that a command is given in

Nothing but these three commands writes to PAM's files, and no package and no installation calls them.

May import: everything that `cli` may.
"""
