/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SA_CLIENT_H
#define SA_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "reply.h"

enum sa_outcome {
    SA_OUTCOME_ANSWERED,
    SA_OUTCOME_UNREACHABLE, /* nobody there, or gone (or cannot serve) without an answer */
    SA_OUTCOME_UNTRUSTED,   /* not root's */
    SA_OUTCOME_BAD_REPLY,
    SA_OUTCOME_TIMEOUT,
};

struct sa_answer {
    char packet[SA_PACKET_MAX];
    struct sa_reply reply; /* points into packet: an answer is never copied */
    int fds[SA_JOIN_MAX];
    size_t fd_count;
};

/* The descriptor itself or, if it is one of 0 to 2, its duplicate above them; -1 on failure. Owns fd. */
int sa_client_keep_high(int fd);

/* True once fd is ready; false at the deadline, unless there is something to read already. */
bool sa_client_wait(int fd, short events, uint64_t deadline_ns);

/*
 * Sends the packet and receives one answer on a connected SOCK_SEQPACKET socket. With check_sender the socket has
 * SO_PASSCRED, and the kernel must name uid 0 as the sender of the answer. After SA_OUTCOME_ANSWERED, and only then,
 * ret_answer holds descriptors.
 */
enum sa_outcome sa_client_exchange(int fd, bool check_sender, const void *packet, size_t packet_len,
                                   uint64_t deadline_ns, struct sa_answer *ret_answer);

enum sa_outcome sa_client_ask_service(const char *path, const void *packet, size_t packet_len, uint64_t deadline_ns,
                                      struct sa_answer *ret_answer);

void sa_client_close_fds(struct sa_answer *answer);

#endif
