/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service that refuses everybody and looks at nothing. In the resident service's place it shows what a refusal costs
 * without it: the module, two wake-ups, the exchange.
 *
 * usage: answer SOCKET
 */
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { NICE = -20 }; /* the service's own */

static const char REPLY[] =
    "V=1\0RESULT=perm_denied\0REASON=no-job\0LEVEL=info\0"
    "LOG=verdict=deny reason=no-job user=bob uid=1502 from=127.0.0.1 service=bench phase=account\0"
    "ERROR=Access denied by pam_slurm_adopt: you have no active jobs on this node";

int main(int argc, char **argv)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct pollfd listener = {.events = POLLIN};
    char packet[4096];

    if (argc != 2 || strlen(argv[1]) >= sizeof(address.sun_path))
        return 2;
    strcpy(address.sun_path, argv[1]);
    listener.fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (listener.fd < 0 || bind(listener.fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        listen(listener.fd, 128) < 0 || setpriority(PRIO_PROCESS, 0, NICE) < 0) {
        perror(argv[1]);
        return 1;
    }
    for (;;) {
        int fd;

        if (poll(&listener, 1, -1) < 0 || (fd = accept(listener.fd, NULL, NULL)) < 0)
            continue;
        if (recv(fd, packet, sizeof(packet), 0) > 0)
            (void)send(fd, REPLY, sizeof(REPLY), MSG_NOSIGNAL);
        close(fd);
    }
}
