/* SPDX-License-Identifier: Apache-2.0 */
/*
 * slurmstepd's own share of an admission: connect, handshake, "whose job is this", "add this process", and nothing
 * else, in a fresh process each time, as pamtime.c does it.
 *
 * usage: floor ROUNDS PAUSE SOCKET-OF-THE-EXTERN-STEP
 * PAUSE is the time between two rounds in microseconds. After more than about 20 ms in which no process was moved
 * between cgroups, the kernel waits for a grace period of RCU before it moves one.
 * prints one line per round: floor MICROSECONDS 0
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { HANDSHAKE = 45 << 8, UID = 20, ADD_PID = 22 };

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int ask(int fd, const int32_t *request, size_t size, int32_t *answers, size_t answers_size)
{
    return write(fd, request, size) == (ssize_t)size &&
           recv(fd, answers, answers_size, MSG_WAITALL) == (ssize_t)answers_size;
}

static int measure(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int32_t who[] = {HANDSHAKE, UID};
    const int32_t add[] = {ADD_PID, getpid()};
    int32_t version_and_uid[2], code;
    uint64_t start_ns, end_ns;
    int fd;

    if (strlen(path) >= sizeof(address.sun_path))
        return 1;
    strcpy(address.sun_path, path);
    start_ns = now_ns();
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        !ask(fd, who, sizeof(who), version_and_uid, sizeof(version_and_uid)) ||
        !ask(fd, add, sizeof(add), &code, sizeof(code)) || version_and_uid[0] < 0)
        return 1;
    close(fd);
    end_ns = now_ns();
    printf("floor %llu %d\n", (unsigned long long)(end_ns - start_ns) / 1000, code);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    for (long round = 0; round < atol(argv[1]); round++) {
        int status;
        pid_t pid;

        usleep((useconds_t)atoi(argv[2]));
        pid = fork();

        if (pid == 0) {
            int failed = measure(argv[3]);

            fflush(stdout);
            _exit(failed);
        }
        if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
            return 1;
    }
    return 0;
}
