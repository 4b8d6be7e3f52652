/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Times pam_acct_mgmt() as sshd would call it: in a fresh process each time, interleaving several PAM services so that
 * a drift of the machine's speed meets all of them alike.
 *
 * usage: pamtime ROUNDS USER SERVICE...
 * prints one line per call: SERVICE MICROSECONDS PAM-CODE
 */
#include <security/pam_appl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
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

static void measure(const char *service, const char *user)
{
    const struct pam_conv conversation = {.conv = converse};
    pam_handle_t *pamh;
    uint64_t start_ns, end_ns;
    int code;

    if (pam_start(service, user, &conversation, &pamh) != PAM_SUCCESS)
        exit(1);
    pam_set_item(pamh, PAM_RHOST, "127.0.0.1");
    /* the first call of a handle loads the modules: sshd pays for that, so it counts */
    start_ns = now_ns();
    code = pam_acct_mgmt(pamh, 0);
    end_ns = now_ns();
    printf("%s %llu %d\n", service, (unsigned long long)(end_ns - start_ns) / 1000, code);
    fflush(stdout);
    _exit(0);
}

int main(int argc, char **argv)
{
    if (argc < 4)
        return 2;
    for (long round = 0; round < atol(argv[1]); round++)
        for (int i = 3; i < argc; i++) {
            int status;
            pid_t pid = fork();

            if (pid == 0)
                measure(argv[i], argv[2]);
            if (pid < 0 || waitpid(pid, &status, 0) < 0 || status != 0)
                return 1;
        }
    return 0;
}
