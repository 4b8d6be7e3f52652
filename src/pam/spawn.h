/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SA_SPAWN_H
#define SA_SPAWN_H

#include "client.h"

/* Starts the one-shot helper, asks it, ends it. No child and no descriptor but the answer's is left. */
enum sa_outcome sa_spawn_ask(const void *packet, size_t packet_len, uint64_t deadline_ns, struct sa_answer *ret_answer);

/* Keeps the number of this process from being given to another one for some seconds after its end. */
void sa_spawn_hold_number(void);

#endif
