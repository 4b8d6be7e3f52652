/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world around the module while it is fuzzed: a kernel, a libpam and a peer that do what the input says.
 *
 * Rules of this room:
 * 1. No call of the module's reaches the real kernel: kernel.c and process.c stand for every one (`ld --wrap`).
 * 2. What the real kernel promises is promised here, and no more. A call fails with errors that its man page names.
 * 3. Each call checks what the module may ask for at that moment; a breach is abort(), with a line that says which.
 * 4. The same input does the same thing: time, process numbers and descriptors are the world's own.
 */
#ifndef SA_FUZZ_WORLD_H
#define SA_FUZZ_WORLD_H

#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define NS_PER_S UINT64_C(1000000000)
#define FD_CAP 512
#define PACKET_CAP 8192
/* A killed helper may keep the module for so long (src/pam/spawn.c). */
#define REAP_NS (NS_PER_S / 2)

enum fd_kind { FD_NONE, FD_SOCKET, FD_SERVICE, FD_OUR_END, FD_HELPERS_END, FD_PIDFD, FD_NAMESPACE, FD_FILE };

enum helper_file { FILE_GOOD, FILE_MISSING, FILE_FOLDER, FILE_OTHERS, FILE_WRITABLE };

struct child {
    pid_t pid;
    bool alive, reaped, killed, is_helper;
    bool doomed; /* a handler in another thread will reap it */
};

/* Bytes that decide; what is not there is 0, which always means the good outcome. */
struct input {
    const uint8_t *data;
    size_t size, at;
};

struct world {
    struct input input, script, packets;
    unsigned rate; /* one of so many calls fails; 0: none does */
    unsigned interruptions;
    /* time */
    uint64_t now_ns, last_told_ns, limit_ns, deadline_ns; /* limit_ns: how long the call may take */
    bool started;
    /* descriptors */
    enum fd_kind fds[FD_CAP];
    bool low_fds;
    unsigned kernel_calls;
    /* connections of the host program */
    unsigned connection_count;
    /* peers */
    uid_t service_uid;
    bool passes_credentials;
    /* the last packet that was received: who sent it, and whether all of it came */
    bool received, trusted, whole;
    char packet[PACKET_CAP];
    size_t packet_len, packet_fds;
    bool is_silent, is_closed;
    /* processes */
    bool in_child, sigchld_ignored, stuck, other_ended, other_will_end;
    bool mask_blocks_child, pending, pending_before;
    bool leads_session;
    pid_t group;
    uid_t euid;
    enum helper_file helper_file;
    sigset_t mask, mask_before;
    struct child children[8];
    size_t child_count;
    bool child_has_uid, child_has_stdin, child_dies_with_caller, child_closed, child_in_session, child_is_orphan;
    jmp_buf end_of_child;
    /* what the module did */
    unsigned joins, join_failures, holds, sends;
};

extern struct world world;

_Noreturn void breach(const char *what);

static inline void require(bool truth, const char *what)
{
    if (!truth)
        breach(what);
}

uint8_t next_byte(struct input *input);
/* One of n, the good one (0) most of the time: only every `rate`th byte of the script chooses another one. */
unsigned mishap(unsigned n);
int open_fd(enum fd_kind kind);
void call_kernel(void);

/* What the libpam of this world holds. */
struct libpam {
    const char *service, *user, *rhost, *tty;
    char *env[128];
    size_t env_count;
    const void *job_mark, *strict_mark, *auth_mark;
    uid_t found_uid; /* of the last user looked up; (uid_t)-1: there was none */
    bool looked_up, silent;
    unsigned errors, infos, lines, puts, lost_puts;
};

extern struct libpam libpam;

#endif
