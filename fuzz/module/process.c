/* SPDX-License-Identifier: Apache-2.0 */
/* The processes and signals of the world (world.h). A fork() goes on in the parent or in the child, as the input says. */
#include "world.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#define SELF 4000
#define CALLER_OF_CHILD SELF

uid_t __wrap_geteuid(void);
int __wrap_lstat(const char *path, struct stat *ret_file);
pid_t __wrap_fork(void);
pid_t __wrap_getpid(void);
pid_t __wrap_getppid(void);
pid_t __wrap_getpgrp(void);
pid_t __wrap_getsid(pid_t pid);
pid_t __wrap_setsid(void);
int __wrap_setpgid(pid_t pid, pid_t group);
int __wrap_kill(pid_t pid, int number);
int __wrap_waitid(idtype_t kind, id_t pid, siginfo_t *ret_info, int options);
pid_t __wrap_waitpid(pid_t pid, int *ret_status, int options);
long __wrap_syscall(long number, ...);
int __wrap_sigprocmask(int how, const sigset_t *set, sigset_t *ret_old);
int __wrap_sigpending(sigset_t *ret_set);
int __wrap_sigtimedwait(const sigset_t *set, siginfo_t *ret_info, const struct timespec *timeout);
void *__wrap_signal(int number, void *handler);
int __wrap_setresuid(uid_t real, uid_t effective, uid_t saved);
int __wrap_setresgid(gid_t real, gid_t effective, gid_t saved);
int __wrap_dup2(int from, int to);
int __wrap_prctl(int option, ...);
int __wrap_setpriority(int which, id_t who, int priority);
int __wrap_chdir(const char *path);
mode_t __wrap_umask(mode_t mask);
int __wrap_execve(const char *path, char *const *argv, char *const *envp);
int __wrap_nanosleep(const struct timespec *time, struct timespec *ret_left);
_Noreturn void __wrap__exit(int status);

uid_t __wrap_geteuid(void)
{
    call_kernel();
    return world.euid;
}

int __wrap_lstat(const char *path, struct stat *ret_file)
{
    call_kernel();
    require(path[0] == '/', "a helper whose path is not absolute");
    if (world.helper_file == FILE_MISSING) {
        errno = ENOENT;
        return -1;
    }
    *ret_file = (struct stat){.st_mode = S_IFREG | 0755};
    if (world.helper_file == FILE_FOLDER)
        ret_file->st_mode = S_IFLNK | 0777;
    else if (world.helper_file == FILE_OTHERS)
        ret_file->st_uid = 1501;
    else if (world.helper_file == FILE_WRITABLE)
        ret_file->st_mode = S_IFREG | 0775;
    return 0;
}

static bool all_blocked(void)
{
    for (int number = 1; number < 32; number++) /* glibc keeps 32 and 33 for itself */
        if (sigismember(&world.mask, number) == 0)
            return false;
    return true;
}

static void end_child(struct child *child)
{
    child->alive = false;
    world.pending = world.pending || !world.sigchld_ignored;
    if (world.sigchld_ignored)
        child->reaped = true;
}

pid_t __wrap_fork(void)
{
    bool is_helper = false; /* else it holds a number */
    struct child *child;

    call_kernel();
    for (int fd = 0; fd < FD_CAP; fd++)
        is_helper = is_helper || world.fds[fd] == FD_HELPERS_END;
    require(world.in_child || all_blocked(), "fork() while a handler of the host program's may run in the child");
    require(world.euid == 0 || !is_helper, "a helper of a program that is not root");
    switch (mishap(3)) {
    case 1: errno = EAGAIN; return -1;
    case 2: world.in_child = true; return 0;
    default: break;
    }
    if (world.in_child)
        return 4999; /* of the child's child nothing is asked */
    require(world.child_count < sizeof(world.children) / sizeof(*world.children), "more children than calls");
    child = &world.children[world.child_count++];
    *child = (struct child){.pid = SELF + (pid_t)world.child_count, .alive = true, .is_helper = is_helper};
    if (!is_helper) {
        world.holds++;
        end_child(child); /* the one in between ends by itself */
    } else {
        require(world.helper_file == FILE_GOOD, "a helper that is not root's alone is started");
        child->doomed = mishap(2) != 0;
    }
    if (world.other_will_end) {
        world.other_ended = world.pending = !world.sigchld_ignored;
        world.other_will_end = false;
    }
    return child->pid;
}

pid_t __wrap_getpid(void)
{
    return SELF;
}

pid_t __wrap_getppid(void)
{
    world.child_is_orphan = mishap(2) != 0;
    return world.child_is_orphan ? 1 : CALLER_OF_CHILD;
}

pid_t __wrap_getpgrp(void)
{
    return world.group;
}

pid_t __wrap_getsid(pid_t pid)
{
    require(pid == 0, "the session of another process");
    return world.leads_session ? SELF : 900;
}

pid_t __wrap_setsid(void)
{
    require(world.in_child, "the host program's session is changed");
    world.child_in_session = true;
    return SELF;
}

int __wrap_setpgid(pid_t pid, pid_t group)
{
    call_kernel();
    require(pid == 0 && !world.leads_session, "setpgid() of a session's leader, or of another process");
    if (mishap(2)) {
        errno = EPERM;
        if (group == 0)
            return -1; /* the way back, to a group that is there, does not fail */
    }
    world.group = group == 0 ? SELF : group;
    return 0;
}

static struct child *child_of(pid_t pid)
{
    for (size_t i = 0; i < world.child_count; i++)
        if (world.children[i].pid == pid)
            return &world.children[i];
    breach("a process that is not the module's child");
}

int __wrap_kill(pid_t pid, int number)
{
    struct child *child;

    call_kernel();
    if (pid == SELF) {
        require(number == SIGCHLD, "the host program is killed");
        world.pending = true;
        return 0;
    }
    require(pid != 0 && pid != -1, "kill() of many");
    require(number == SIGKILL, "a signal that can be ignored");
    child = child_of(pid < 0 ? -pid : pid);
    require(!child->reaped || (child->killed && world.sigchld_ignored),
            "a number that may be somebody else's is killed");
    child->killed = true;
    if (child->alive && !world.stuck)
        end_child(child);
    return 0;
}

int __wrap_waitid(idtype_t kind, id_t pid, siginfo_t *ret_info, int options)
{
    struct child *child;

    call_kernel();
    require((options & WNOHANG) && (options & WNOWAIT), "waitid() that waits or reaps");
    if (kind == P_ALL) {
        ret_info->si_pid = world.other_ended ? 5000 : 0;
        return 0;
    }
    child = child_of((pid_t)pid);
    if (child->reaped) {
        errno = ECHILD;
        return -1;
    }
    return 0;
}

pid_t __wrap_waitpid(pid_t pid, int *ret_status, int options)
{
    struct child *child = child_of(pid);

    (void)ret_status;
    call_kernel();
    if (mishap(2) && ++world.interruptions <= 20) {
        errno = EINTR;
        return -1;
    }
    if (child->reaped) {
        errno = ECHILD;
        return -1;
    }
    if (child->alive && (options & WNOHANG))
        return 0;
    if (child->alive) /* before Linux 5.3 there is no other way; some time the kernel lets it go */
        end_child(child);
    child->reaped = true;
    return pid;
}

long __wrap_syscall(long number, ...)
{
    call_kernel();
    if (number == SYS_pidfd_open) {
        require(!world.in_child, "a pidfd in the child");
        if (mishap(2)) {
            errno = ENOSYS;
            return -1;
        }
        return open_fd(FD_PIDFD);
    }
    require(number == SYS_close_range && world.in_child, "a call that this world does not know");
    if (mishap(2)) {
        errno = ENOSYS;
        return -1;
    }
    world.child_closed = true;
    return 0;
}

int __wrap_sigprocmask(int how, const sigset_t *set, sigset_t *ret_old)
{
    call_kernel();
    require(how == SIG_SETMASK || (how == SIG_BLOCK && ret_old), "a mask that cannot be put back");
    if (ret_old)
        *ret_old = world.mask;
    if (set && how == SIG_SETMASK)
        world.mask = *set;
    else if (set)
        sigorset(&world.mask, &world.mask, set);
    return 0;
}

int __wrap_sigpending(sigset_t *ret_set)
{
    sigemptyset(ret_set);
    if (world.pending)
        sigaddset(ret_set, SIGCHLD);
    return 0;
}

int __wrap_sigtimedwait(const sigset_t *set, siginfo_t *ret_info, const struct timespec *timeout)
{
    (void)ret_info;
    call_kernel();
    require(timeout && timeout->tv_sec == 0 && timeout->tv_nsec == 0, "a wait for a signal");
    require(sigismember(set, SIGCHLD) == 1 && sigismember(&world.mask, SIGCHLD) == 1, "SIGCHLD is taken unblocked");
    if (!world.pending) {
        errno = EAGAIN;
        return -1;
    }
    world.pending = false;
    return SIGCHLD;
}

void *__wrap_signal(int number, void *handler)
{
    (void)number;
    require(world.in_child, "a handler of the host program's is changed");
    require(handler == (void *)SIG_DFL, "a handler that is not the default");
    return handler;
}

int __wrap_setresuid(uid_t real, uid_t effective, uid_t saved)
{
    require(world.in_child, "the host program's uid is changed");
    require(real == 0 && effective == 0 && saved == 0, "a helper that is not root");
    if (mishap(2)) {
        errno = EAGAIN;
        return -1;
    }
    world.child_has_uid = true;
    return 0;
}

int __wrap_setresgid(gid_t real, gid_t effective, gid_t saved)
{
    require(world.in_child && real == 0 && effective == 0 && saved == 0, "a helper whose group is not root's");
    return mishap(2) ? -1 : 0;
}

int __wrap_dup2(int from, int to)
{
    require(world.in_child, "a descriptor of the host program's is replaced");
    require(from >= 0 && from < FD_CAP && world.fds[from] != FD_NONE, "dup2() of what is not open");
    if (mishap(2)) {
        errno = EBUSY;
        return -1;
    }
    if (to == 0)
        world.child_has_stdin = world.fds[from] == FD_HELPERS_END;
    return to;
}

int __wrap_prctl(int option, ...)
{
    (void)option;
    require(world.in_child, "prctl() in the host program");
    require(world.child_has_uid, "the death signal is set before setresuid(), which clears it");
    world.child_dies_with_caller = true;
    return 0;
}

int __wrap_setpriority(int which, id_t who, int priority)
{
    (void)which, (void)who, (void)priority;
    require(world.in_child, "the host program's priority is changed");
    return mishap(2) ? -1 : 0;
}

int __wrap_chdir(const char *path)
{
    require(world.in_child && strcmp(path, "/") == 0, "the host program's directory is changed");
    return mishap(2) ? -1 : 0;
}

mode_t __wrap_umask(mode_t mask)
{
    require(world.in_child && mask == 022, "the host program's umask is changed");
    return 0;
}

int __wrap_execve(const char *path, char *const *argv, char *const *envp)
{
    require(world.in_child && path[0] == '/', "the host program is replaced");
    require(argv[0] && !argv[1] && !envp[0], "a helper with arguments or an environment");
    require(world.child_has_uid && world.child_has_stdin && world.child_dies_with_caller && world.child_in_session &&
                !world.child_is_orphan,
            "a helper without uid, socket, session or death signal");
    require(sigismember(&world.mask, SIGCHLD) == 0 && sigismember(&world.mask, SIGTERM) == 0,
            "a helper with blocked signals");
    errno = EACCES;
    return -1;
}

int __wrap_nanosleep(const struct timespec *time, struct timespec *ret_left)
{
    (void)ret_left;
    require(world.in_child && time->tv_sec <= 15, "the host program sleeps");
    return 0;
}

void __wrap__exit(int status)
{
    (void)status;
    require(world.in_child, "the host program is ended");
    longjmp(world.end_of_child, 1);
}
