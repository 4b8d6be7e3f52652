/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The one-shot helper: a process started for one question and ended with it.
 *
 * Rules of this file:
 * 1. No PAM, no logging. Between fork() and execve() only calls that are safe in the child of a threaded program.
 * 2. The helper gets nothing of the caller's: no environment, no descriptors, no handlers, no terminal.
 * 3. The caller's dispositions are never changed (threads share them), its mask only while we wait.
 * 4. Whatever happens, the helper is killed and reaped before this returns, and never a process that is not ours.
 */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"

/* A killed process ends in milliseconds, unless the kernel holds it in an uninterruptible wait (a dead NFS server).
 * Then a login that is late is worse than a zombie for the host program or init to reap. */
#define REAP_NS (SA_NS_PER_S / 2)
#define HELPER_NICE (-10)
/* Without close_range() (Linux < 5.9). A limit of 2^30 descriptors, as in containers, would take minutes. */
#define CLOSE_MAX 65536

/* slurmstepd tries a number that is not there four times, one second apart (cgroup v1), and may be slow itself. */
#define HOLD_S 15

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

/* The path is fixed at build time in a directory of root's, so checking before execve() leaves nobody but root a
 * race to win. execve() by descriptor would be tighter, but a script cannot be run from one that is close-on-exec. */
static bool find_helper(struct stat *ret_file)
{
    return geteuid() == 0 && lstat(SA_HELPER, ret_file) == 0;
}

static bool only_root_may_write(const struct stat *file)
{
    return S_ISREG(file->st_mode) && file->st_uid == 0 && !(file->st_mode & (S_IWGRP | S_IWOTH));
}

/* pam_selinux.so open, ahead of us in the session stack, has set the user's context for the next execve(): that is the
 * shell's, and must not be the helper's. (Seen on Debian 13 in enforcing mode: the helper could not be started.) An
 * empty write takes it back in this process alone. Without SELinux there is no such file, or it refuses. */
static void forget_exec_context(void)
{
    int fd = open("/proc/self/attr/exec", O_WRONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    if (write(fd, NULL, 0) < 0)
        errno = 0; /* AppArmor: it has no default to go back to */
    (void)close(fd);
}

_Noreturn static void become_helper(int fd, pid_t caller)
{
    char path[] = SA_HELPER;
    char *const argv[] = {path, NULL}, *const envp[] = {NULL};
    sigset_t none;
    int null_fd;

    for (int signal_number = 1; signal_number < NSIG; signal_number++)
        (void)signal(signal_number, SIG_DFL); /* those that are ignored would stay so over execve() */
    (void)setsid();
    forget_exec_context();
    /* In a set-uid caller (su) the real user is somebody else, who could stop or kill the helper. */
    if (setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 || dup2(fd, 0) < 0)
        _exit(127);
    /* sshd's LoginGraceTime ends sshd: then this goes as well. After setresuid(), which clears it. */
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != caller)
        _exit(127); /* it has ended before the kernel was told: its number may be somebody else's */
    /* In a storm of logins hundreds of sshds want the processor at once, for their cryptography; a question that takes
     * 15 ms of it is not to wait for all of them. Best effort. */
    (void)setpriority(PRIO_PROCESS, 0, HELPER_NICE);
    null_fd = open("/dev/null", O_RDWR);
    if (null_fd < 0 || dup2(null_fd, 1) < 0 || dup2(null_fd, 2) < 0 || chdir("/") < 0)
        _exit(127);
    if (syscall(SYS_close_range, 3U, ~0U, 0U) < 0)
        for (int other = 3; other < CLOSE_MAX; other++)
            (void)close(other);
    (void)umask(022);
    (void)sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)execve(path, argv, envp);
    _exit(127);
}

/* Ends the helper and what it started in its session. */
static void end_helper(pid_t pid, int pid_fd)
{
    siginfo_t info;

    /* If the caller ignores SIGCHLD, or a handler in another thread of it reaps everything, the pid may belong to
     * somebody else by now; as long as it can be waited for it is ours. */
    if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0) {
        (void)kill(-pid, SIGKILL);
        (void)kill(pid, SIGKILL); /* if it has not come to setsid() yet */
        if (pid_fd >= 0)
            (void)sa_client_wait(pid_fd, POLLIN, sa_clock_now_ns() + REAP_NS);
        while (waitpid(pid, NULL, pid_fd >= 0 ? WNOHANG : 0) < 0 && errno == EINTR)
            ;
    }
    if (pid_fd >= 0)
        (void)close(pid_fd);
}

/* Takes back the SIGCHLD of our child. One signal stands for any number of children, so if there is another one
 * that has ended, the caller gets its signal again. */
static void swallow_child_signal(void)
{
    const struct timespec at_once = {0};
    siginfo_t other = {.si_pid = 0};
    sigset_t child;

    (void)sigemptyset(&child);
    (void)sigaddset(&child, SIGCHLD);
    if (sigtimedwait(&child, NULL, &at_once) == SIGCHLD &&
        waitid(P_ALL, 0, &other, WEXITED | WSTOPPED | WNOHANG | WNOWAIT) == 0 && other.si_pid != 0)
        (void)kill(getpid(), SIGCHLD);
}

/* Forks with all signals blocked: a handler of the caller's must not run in the child. Then SIGCHLD stays blocked, so
 * that the caller's handler does not reap the helper or lose its temper over a child that it does not know. */
static pid_t start_helper(int fd, sigset_t *ret_mask, bool *ret_was_pending)
{
    const pid_t caller = getpid();
    sigset_t mask, pending;
    pid_t pid;

    (void)sigfillset(&mask);
    (void)sigprocmask(SIG_SETMASK, &mask, ret_mask);
    (void)sigpending(&pending);
    *ret_was_pending = sigismember(&pending, SIGCHLD) == 1;
    pid = fork();
    if (pid == 0)
        become_helper(fd, caller);
    mask = *ret_mask;
    (void)sigaddset(&mask, SIGCHLD);
    (void)sigprocmask(SIG_SETMASK, &mask, NULL);
    return pid;
}

enum sa_outcome sa_spawn_ask(const void *packet, size_t packet_len, uint64_t deadline_ns, struct sa_answer *ret_answer)
{
    enum sa_outcome outcome;
    struct stat helper;
    const int on = 1;
    int pair[2];
    bool was_pending;
    sigset_t mask;
    pid_t pid;

    if (!find_helper(&helper))
        return SA_OUTCOME_UNREACHABLE;
    if (!only_root_may_write(&helper))
        return SA_OUTCOME_UNTRUSTED;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return SA_OUTCOME_UNREACHABLE;
    pair[0] = sa_client_keep_high(pair[0]);
    pair[1] = sa_client_keep_high(pair[1]);
    outcome = SA_OUTCOME_UNREACHABLE;
    /* SO_PEERCRED of a socket pair names ourselves. With SO_PASSCRED the kernel adds to the answer who sent it, so a
     * process without root's rights that has got hold of the helper's end is not believed. */
    if (pair[0] >= 0 && pair[1] >= 0 && setsockopt(pair[0], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) == 0) {
        pid = start_helper(pair[1], &mask, &was_pending);
        if (pid > 0) {
            int pid_fd = sa_client_keep_high((int)syscall(SYS_pidfd_open, pid, 0));

            (void)close(pair[1]); /* or the end of the helper would not be seen */
            pair[1] = -1;
            outcome = sa_client_exchange(pair[0], true, packet, packet_len, deadline_ns, ret_answer);
            end_helper(pid, pid_fd);
            if (!was_pending)
                swallow_child_signal();
        }
        (void)sigprocmask(SIG_SETMASK, &mask, NULL);
    }
    if (pair[0] >= 0)
        (void)close(pair[0]);
    if (pair[1] >= 0)
        (void)close(pair[1]);
    return outcome;
}

/* slurmstepd moves numbers, and it may still have ours in its queue when this login is over. A number is not given to
 * another process as long as a process has it as its session or as its process group: this one does, until slurmstepd
 * has surely done what it was asked for. */
_Noreturn static void hold_number(void)
{
    const struct timespec left = {.tv_sec = HOLD_S};
    sigset_t all;

    if (syscall(SYS_close_range, 0U, ~0U, 0U) < 0)
        for (int fd = 0; fd < CLOSE_MAX; fd++)
            (void)close(fd);
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, NULL);
    if (chdir("/") < 0)
        _exit(1);
    (void)nanosleep(&left, NULL);
    _exit(0);
}

void sa_spawn_hold_number(void)
{
    const pid_t group = getpgrp();
    bool joined = false, was_pending;
    sigset_t mask, all, pending;
    pid_t pid;

    /* sshd's process for the connection leads its session. Its child that asks for passwords does not: for a moment it
     * leads a group, which the holder then keeps. */
    if (getsid(0) != getpid() && group != getpid())
        joined = setpgid(0, 0) == 0;
    (void)sigfillset(&all);
    (void)sigprocmask(SIG_SETMASK, &all, &mask);
    (void)sigpending(&pending);
    was_pending = sigismember(&pending, SIGCHLD) == 1;
    pid = fork();
    if (pid == 0) {
        /* in between, so that the host program never hears of the holder: init reaps it. With the real uid of
         * whoever calls a set-uid host program (su), that user could kill the holder. */
        if (setresgid(0, 0, 0) == 0 && setresuid(0, 0, 0) == 0 && fork() == 0)
            hold_number();
        _exit(0);
    }
    if (joined)
        (void)setpgid(0, group);
    if (pid > 0) {
        while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
            ;
        if (!was_pending)
            swallow_child_signal();
    }
    (void)sigprocmask(SIG_SETMASK, &mask, NULL);
}
