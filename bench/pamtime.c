/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times pam_acct_mgmt() as sshd would call it: in a fresh process each time, several PAM services in turn and in random
 * order, so that a drift of the machine's speed meets all of them alike.
 *
 * usage: pamtime ROUNDS PAUSE USER ADDRESS PORT SERVICE...
 * PAUSE is the time between two calls in microseconds: after a call of the original every slurmstepd of the node has a
 * thread to end; that is not for the next call to wait for.
 * ADDRESS is the source of the login; unless PORT is 0, the process holds a TCP connection to it as sshd would: with
 * more than one job both modules look for it.
 * prints one line per call: SERVICE MICROSECONDS PAM-CODE
 */
#include <arpa/inet.h>
#include <pwd.h>
#include <security/pam_appl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

static int converse(int count, const struct pam_message **messages, struct pam_response **responses, void *data)
{
    (void)messages;
    (void)data;
    *responses = calloc((size_t)count, sizeof(**responses));
    return *responses ? PAM_SUCCESS : PAM_BUF_ERR;
}

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* By the account phase sshd has looked the user up and has logged: what a process pays once for its first name and its
 * first line of log (nsswitch.conf, nscd, the time zone) is paid already, whichever module follows. */
static void be_as_far_as_sshd(const char *user)
{
    (void)getpwnam(user);
    openlog("pamtime", LOG_PID, LOG_AUTHPRIV);
    syslog(LOG_DEBUG, "login of %s", user);
    closelog();
}

/* sshd has its connection since long before the account phase, so this is not timed. */
static void hold_connection(const char *source, int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || inet_pton(AF_INET, source, &address.sin_addr) != 1 ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        perror(source);
        exit(1);
    }
}

static void measure(const char *service, const char *user, const char *source, int port)
{
    const struct pam_conv conversation = {.conv = converse};
    pam_handle_t *pamh;
    uint64_t start_ns, end_ns;
    int code;

    (void)setsid(); /* sshd gives each connection a session of its own */
    if (port)
        hold_connection(source, port);
    if (pam_start(service, user, &conversation, &pamh) != PAM_SUCCESS)
        exit(1);
    pam_set_item(pamh, PAM_RHOST, source);
    be_as_far_as_sshd(user);
    /* the first call of a handle loads the modules: sshd pays for that, so it counts */
    start_ns = now_ns();
    code = pam_acct_mgmt(pamh, 0);
    end_ns = now_ns();
    printf("%s %llu %d\n", service, (unsigned long long)(end_ns - start_ns) / 1000, code);
    fflush(stdout);
    _exit(0);
}

/* A new order each round: what one service leaves in the processor's caches must not always meet the same other one. */
static void shuffle(char **services, int count)
{
    for (int last = count - 1; last > 0; last--) {
        int other = rand() % (last + 1);
        char *moved = services[last];

        services[last] = services[other];
        services[other] = moved;
    }
}

int main(int argc, char **argv)
{
    if (argc < 7)
        return 2;
    for (long round = 0; round < atol(argv[1]); round++) {
        shuffle(argv + 6, argc - 6);
        for (int i = 6; i < argc; i++) {
            int status;
            pid_t pid;

            usleep((useconds_t)atoi(argv[2]));
            pid = fork();
            if (pid == 0)
                measure(argv[i], argv[3], argv[4], atoi(argv[5]));
            if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
                return 1;
        }
    }
    return 0;
}
