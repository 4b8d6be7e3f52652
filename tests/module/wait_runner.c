/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that comes to its turn only when its deadline is over: what is there to be read counts, nothing is waited
 * for. Prints one line for each question to sa_client_wait().
 */
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "clock.h"

int main(void)
{
    const uint64_t over_ns = sa_clock_now_ns() - 1;
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair) < 0)
        return 1;
    printf("nothing %d\n", sa_client_wait(pair[0], POLLIN, over_ns));
    printf("room %d\n", sa_client_wait(pair[0], POLLOUT, over_ns));
    if (send(pair[1], "x", 1, 0) != 1)
        return 1;
    printf("answer %d\n", sa_client_wait(pair[0], POLLIN, over_ns));
    return 0;
}
