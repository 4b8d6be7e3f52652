# SPDX-License-Identifier: Apache-2.0
"""Questions to Slurm's daemons over TCP, and proof of who answers: munge, auth/slurm, TLS.

callerid, peers, memory     which job a connection comes from; whose address it is; what is remembered of it
controller                  when a job ends
credentials, munge, tls     who we are to them, and who they are
"""
