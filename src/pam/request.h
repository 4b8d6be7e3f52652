/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SA_REQUEST_H
#define SA_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "login.h"
#include "reply.h"

struct sa_request {
    char packet[SA_PACKET_MAX];
    size_t packet_len;
    size_t field_count;
    size_t undated_len; /* up to where the packet stands without its DEADLINE, which is its last field */
    bool too_large;
};

const char *sa_request_phase_name(enum sa_phase phase);

/* False: what is to be said does not fit the exchange. */
bool sa_request_build(const struct sa_login *login, int argc, const char **argv, struct sa_request *ret_request);

/* Sets or replaces the deadline. Must come before the packet is sent. */
void sa_request_set_deadline(struct sa_request *request, uint64_t deadline_ns);

#endif
