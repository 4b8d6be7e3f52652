# SPDX-License-Identifier: Apache-2.0
"""The resident service: one process, one thread, one loop, every login a task in it.

service                         the parts and their life
clients, admission, turnstile   connections of PAM modules; places for them; turns at one user's steps
node_cache, step_index, conf_cache   what is known of the node, and kept current
sessions, session_ends          sessions that are open in jobs, and why each ended
warn                            lines on terminals before a job ends
admin                           the administrator's socket
last_hour                       the last hour's numbers
run_files                       where sockets and files are

May import: login, observe, system, wire, model. Nothing here waits for a child, reads what a user can make hang, or
starts a program: that is done in children (`system.tasks.child`).
"""
