/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A host program for the module, as sshd is one: runs one PAM function and tells what came of it. "login" is account and
 * open_session with one handle; -E is put into the PAM environment between the two.
 *
 * Rules of this file:
 * 1. Everything about this process that the module must leave alone is noted before and after; each difference is a
 *    "changed" line.
 * 2. Output is lines of tab-separated words, on a descriptor out of the module's way.
 */
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <netinet/in.h>
#include <sched.h>
#include <security/pam_appl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#define ASPECTS 7
static const char *const aspect_names[ASPECTS] = {"fds", "dispositions", "mask", "locale", "cwd", "umask", "pending"};
static const char *const namespaces[] = {"user", "pid", "mnt", "ipc", "uts", "net", "cgroup"};
static FILE *out;
static volatile sig_atomic_t handler_calls;
static volatile pid_t handler_reaped[16];
static volatile sig_atomic_t handler_reaped_count;

struct state {
    char aspect[ASPECTS][8192];
};

static void note(char *text, const char *format, ...)
{
    size_t len = strlen(text);
    va_list args;

    va_start(args, format);
    vsnprintf(text + len, 8192 - len, format, args);
    va_end(args);
}

static void look(struct state *state)
{
    sigset_t mask, pending;
    mode_t mode = umask(0);

    umask(mode);
    memset(state, 0, sizeof(*state));
    for (int fd = 0; fd < 256; fd++) {
        char link[64], target[256];
        ssize_t len;

        snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
        len = readlink(link, target, sizeof(target) - 1);
        if (len > 0)
            note(state->aspect[0], "%d=%.*s(%d) ", fd, (int)len, target, fcntl(fd, F_GETFD));
    }
    sigprocmask(SIG_BLOCK, NULL, &mask);
    sigpending(&pending);
    for (int n = 1; n < NSIG; n++) {
        struct sigaction action;

        if (sigaction(n, NULL, &action) == 0)
            note(state->aspect[1], "%d=%p/%x ", n, (void *)action.sa_sigaction, (unsigned)action.sa_flags);
        if (sigismember(&mask, n) == 1)
            note(state->aspect[2], "%d ", n);
        if (sigismember(&pending, n) == 1)
            note(state->aspect[6], "%d ", n);
    }
    note(state->aspect[3], "%s", setlocale(LC_ALL, NULL));
    if (!getcwd(state->aspect[4], sizeof(state->aspect[4])))
        note(state->aspect[4], "?");
    note(state->aspect[5], "%o", (unsigned)mode);
}

static void tell_namespaces(const char *when)
{
    for (size_t i = 0; i < sizeof(namespaces) / sizeof(*namespaces); i++) {
        char path[64], target[64] = "";
        ssize_t len;

        snprintf(path, sizeof(path), "/proc/self/ns/%s", namespaces[i]);
        len = readlink(path, target, sizeof(target) - 1);
        if (len > 0)
            fprintf(out, "ns\t%s\t%s\t%.*s\n", when, namespaces[i], (int)len, target);
    }
}

static int converse(int count, const struct pam_message **messages, struct pam_response **responses, void *data)
{
    (void)data;
    for (int i = 0; i < count; i++)
        fprintf(out, "message\t%d\t%s\n", messages[i]->msg_style, messages[i]->msg);
    *responses = calloc((size_t)count, sizeof(**responses));
    return PAM_SUCCESS;
}

static void on_child(int n)
{
    int saved = errno;
    pid_t pid;

    (void)n;
    handler_calls++;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0 && handler_reaped_count < 16)
        handler_reaped[handler_reaped_count++] = pid;
    errno = saved;
}

static void set_child_signal(const char *how)
{
    struct sigaction action = {.sa_handler = SIG_DFL};
    sigset_t mask;

    if (strcmp(how, "handler") == 0)
        action.sa_handler = on_child;
    else if (strcmp(how, "ignore") == 0)
        action.sa_handler = SIG_IGN;
    sigaction(SIGCHLD, &action, NULL);
    if (strcmp(how, "blocked") == 0) {
        sigemptyset(&mask);
        sigaddset(&mask, SIGCHLD);
        sigprocmask(SIG_BLOCK, &mask, NULL);
    }
}

static bool slow_connect;

/* Stands before libc's for the module as well: with -w a peer that closes has done so before anything is sent. */
int connect(int fd, const struct sockaddr *address, socklen_t len)
{
    int result = (int)syscall(SYS_connect, fd, address, len);

    if (slow_connect)
        usleep(200000);
    return result;
}

/* Tells whether a descriptor that the module received would survive an execve() of another thread. */
int setns(int fd, int kind)
{
    fprintf(out, "joining\t%s\n", fcntl(fd, F_GETFD) & FD_CLOEXEC ? "close-on-exec" : "inherited");
    return (int)syscall(SYS_setns, fd, kind);
}

static int connect_to(unsigned short port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        return -1;
    return fd;
}

static long long now_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Everything about one run. */
struct run {
    const char *function, *child_signal;
    int flags, other_child_ms;
    bool close_std;
    char *between[16];
    size_t between_count;
};

static void call(pam_handle_t *pamh, const struct run *run)
{
    static struct state before, after;
    long long started;
    pid_t other = 0;
    int code, status = 0;
    siginfo_t ended;

    set_child_signal(run->child_signal);
    for (int fd = 0; run->close_std && fd < 3; fd++)
        close(fd);
    look(&before);
    if (run->other_child_ms > 0 && (other = fork()) == 0) {
        usleep((useconds_t)run->other_child_ms * 1000);
        _exit(7);
    }
    started = now_ms();
    if (strcmp(run->function, "login") == 0) {
        code = pam_acct_mgmt(pamh, run->flags);
        for (size_t i = 0; code == PAM_SUCCESS && i < run->between_count; i++)
            pam_putenv(pamh, run->between[i]);
        if (code == PAM_SUCCESS)
            code = pam_open_session(pamh, run->flags);
    } else if (strcmp(run->function, "account") == 0)
        code = pam_acct_mgmt(pamh, run->flags);
    else if (strcmp(run->function, "open_session") == 0)
        code = pam_open_session(pamh, run->flags);
    else
        code = pam_close_session(pamh, run->flags);
    fprintf(out, "elapsed_ms\t%lld\ncode\t%d\n", now_ms() - started, code);
    /* on a busy machine the other child may end after the call; without a child to wait for this fails at once */
    while (other > 0 && waitid(P_PID, (id_t)other, &ended, WEXITED | WNOWAIT) < 0 && errno == EINTR)
        ;
    look(&after);
    for (int i = 0; i < ASPECTS; i++)
        if (strcmp(before.aspect[i], after.aspect[i]) != 0)
            fprintf(out, "changed\t%s\t%s\t%s\n", aspect_names[i], before.aspect[i], after.aspect[i]);
    if (other > 0) {
        pid_t got = waitpid(other, &status, 0);

        fprintf(out, "other\t%s\t%d\n", got == other ? "collected" : "gone", WEXITSTATUS(status));
        fprintf(out, "handler\t%d\t%d\t%d\n", (int)handler_calls, (int)handler_reaped_count,
                handler_reaped_count > 0 && handler_reaped[0] == other);
    } else {
        fprintf(out, "handler\t%d\t%d\t0\n", (int)handler_calls, (int)handler_reaped_count);
    }
    if (waitpid(-1, NULL, WNOHANG) != -1 || errno != ECHILD)
        fprintf(out, "changed\tchildren\tnone\tsome\n");
}

int main(int argc, char **argv)
{
    struct pam_conv conversation = {converse, NULL};
    struct run run = {.child_signal = "default"};
    const char *rhost = NULL, *tty = NULL, *user;
    pam_handle_t *pamh = NULL;
    int option, repeat = 1, port = 0, uid = 0, real_uid = 0, code;
    char *env[16], **list;
    size_t env_count = 0;

    out = fdopen(fcntl(1, F_DUPFD_CLOEXEC, 200), "w");
    while ((option = getopt(argc, argv, "r:t:f:e:E:s:o:p:n:u:cwR:")) != -1) {
        switch (option) {
        case 'r': rhost = optarg; break;
        case 't': tty = optarg; break;
        case 'f': run.flags = (int)strtol(optarg, NULL, 0); break;
        case 'e': env[env_count++] = optarg; break;
        case 'E': run.between[run.between_count++] = optarg; break;
        case 's': run.child_signal = optarg; break;
        case 'o': run.other_child_ms = atoi(optarg); break;
        case 'p': port = atoi(optarg); break;
        case 'n': repeat = atoi(optarg); break;
        case 'u': uid = atoi(optarg); break;
        case 'R': real_uid = atoi(optarg); break;
        case 'w': slow_connect = true; break;
        case 'c': run.close_std = true; break;
        default: return 2;
        }
    }
    if (!out || argc - optind != 4)
        return 2;
    user = strcmp(argv[optind + 2], "-") == 0 ? NULL : argv[optind + 2];
    run.function = argv[optind + 3];
    setlocale(LC_ALL, "C.UTF-8");
    openlog("sshd-driver", LOG_NDELAY, LOG_DAEMON);
    umask(027);
    if (port > 0 && connect_to((unsigned short)port) < 0)
        return 3;
    code = pam_start_confdir(argv[optind + 1], user, &conversation, argv[optind], &pamh);
    if (code != PAM_SUCCESS)
        return 4;
    if (rhost)
        pam_set_item(pamh, PAM_RHOST, rhost);
    if (tty)
        pam_set_item(pamh, PAM_TTY, tty);
    for (size_t i = 0; i < env_count; i++)
        pam_putenv(pamh, env[i]);
    if (uid > 0 && seteuid((uid_t)uid) < 0)
        return 5;
    if (real_uid > 0 && setresuid((uid_t)real_uid, 0, 0) < 0) /* as a set-uid program */
        return 5;
    tell_namespaces("before");
    while (repeat-- > 0)
        call(pamh, &run);
    tell_namespaces("after");
    list = pam_getenvlist(pamh);
    for (char **entry = list; entry && *entry; entry++) {
        fprintf(out, "env\t%s\n", *entry);
        free(*entry);
    }
    free(list);
    syslog(LOG_NOTICE, "driver done");
    pam_end(pamh, PAM_SUCCESS);
    fprintf(out, "done\n");
    fclose(out);
    return 0;
}
