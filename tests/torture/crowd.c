/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many logins as sshd makes them, without sshd: account, open_session and close_session with one handle, each in a
 * process of its own.
 *
 * usage: crowd SERVICE LOGINS AT-ONCE SEED USER:UID...
 * With seed 0 the users come in turn, else at random.
 * Prints one line for each login, seven numbers:
 *   UID  ACCOUNT  SESSION  JOB  VARIABLE  MILLISECONDS  SIGNAL
 * ACCOUNT and SESSION are PAM's codes, -1 if it was not called; JOB is where the kernel shows the process between
 * open_session and close_session: 0 in no job, -1 in several, -2 in a job of another user (as far as the path names
 * one). VARIABLE is SLURM_JOB_ID, 0 without. MILLISECONDS are those of the account phase. SIGNAL ended the process
 * before it could say anything else: all other numbers but UID are -1 then.
 */
#include <security/pam_appl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define AT_ONCE_CAP 64

struct user {
    const char *name;
    long uid;
};

static int converse(int count, const struct pam_message **messages, struct pam_response **responses, void *data)
{
    (void)messages;
    (void)data;
    *responses = calloc((size_t)count, sizeof(**responses));
    return *responses ? PAM_SUCCESS : PAM_BUF_ERR;
}

static int64_t now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The job whose extern step all lines of /proc/self/cgroup name that name one. */
static long job_of_this_process(long uid)
{
    char line[4096];
    long found = 0;
    FILE *file = fopen("/proc/self/cgroup", "re");

    if (!file)
        return -1;
    while (fgets(line, sizeof(line), file)) {
        const char *job = strstr(line, "/job_"), *owner = strstr(line, "/uid_");
        long number;

        if (!job)
            continue;
        number = strtol(job + strlen("/job_"), NULL, 10);
        if (owner && strtol(owner + strlen("/uid_"), NULL, 10) != uid)
            found = -2;
        else if (!strstr(job, "/step_extern") || (found && found != number))
            found = found == -2 ? -2 : -1;
        else
            found = number;
    }
    fclose(file);
    return found;
}

static void log_in(const char *service, const struct user *user)
{
    const struct pam_conv conversation = {.conv = converse};
    pam_handle_t *pamh;
    const char *variable;
    int account, session = -1, length;
    long job = 0, number = 0;
    int64_t began;
    char line[200];

    (void)setsid(); /* sshd gives each connection a session of its own */
    if (pam_start(service, user->name, &conversation, &pamh) != PAM_SUCCESS)
        _exit(1);
    pam_set_item(pamh, PAM_RHOST, "127.0.0.1");
    began = now_ms();
    account = pam_acct_mgmt(pamh, 0);
    began = now_ms() - began;
    if (account == PAM_SUCCESS && (session = pam_open_session(pamh, 0)) == PAM_SUCCESS) {
        job = job_of_this_process(user->uid);
        if ((variable = pam_getenv(pamh, "SLURM_JOB_ID")))
            number = strtol(variable, NULL, 10);
        pam_close_session(pamh, 0);
    }
    pam_end(pamh, session == -1 ? account : session);
    length = snprintf(line, sizeof(line), "%ld %d %d %ld %ld %lld 0\n", user->uid, account, session, job, number,
                      (long long)began);
    /* one write: the lines of several processes do not mix */
    if (write(STDOUT_FILENO, line, (size_t)length) != length)
        _exit(1);
    _exit(0);
}

static void wait_for_one(pid_t *pids, const struct user **whose, int count)
{
    int status;
    pid_t pid = wait(&status);

    for (int i = 0; i < count; i++) {
        char line[100];
        int length;

        if (pids[i] != pid)
            continue;
        pids[i] = 0;
        if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
            return;
        length = snprintf(line, sizeof(line), "%ld -1 -1 -1 -1 -1 %d\n", whose[i]->uid,
                          WIFSIGNALED(status) ? WTERMSIG(status) : -1);
        if (write(STDOUT_FILENO, line, (size_t)length) != length)
            exit(1);
    }
}

int main(int argc, char **argv)
{
    pid_t pids[AT_ONCE_CAP] = {0};
    const struct user *whose[AT_ONCE_CAP];
    int count = argc - 5, at_once = argc > 3 ? atoi(argv[3]) : 0, running = 0;
    unsigned seed = argc > 4 ? (unsigned)strtoul(argv[4], NULL, 10) : 0;
    struct user *users;

    if (count < 1 || at_once < 1 || at_once > AT_ONCE_CAP || !(users = calloc((size_t)count, sizeof(*users))))
        return 2;
    for (int i = 0; i < count; i++) {
        char *colon = strchr(argv[5 + i], ':');

        if (!colon)
            return 2;
        *colon = '\0';
        users[i] = (struct user){argv[5 + i], strtol(colon + 1, NULL, 10)};
    }
    srand(seed);
    for (long done = 0, logins = atol(argv[2]); done < logins; done++) {
        const struct user *user = &users[seed ? rand() % count : done % count];
        int slot = 0;

        if (running == at_once) {
            wait_for_one(pids, whose, at_once);
            running--;
        }
        while (pids[slot])
            slot++;
        whose[slot] = user;
        pids[slot] = fork();
        if (pids[slot] < 0)
            return 1;
        if (pids[slot] == 0)
            log_in(argv[1], user);
        running++;
    }
    for (; running > 0; running--)
        wait_for_one(pids, whose, at_once);
    return 0;
}
