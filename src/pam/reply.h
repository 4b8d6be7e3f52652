/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SA_REPLY_H
#define SA_REPLY_H

#include <stdbool.h>
#include <stddef.h>

/* docs/protocol/login-exchange.md */
#define SA_PACKET_MAX 4096
#define SA_FIELDS_MAX 64
#define SA_KEY_MAX 24
#define SA_REASON_MAX 64
#define SA_JOIN_MAX 7 /* as many as Linux has kinds that can be joined */

enum sa_result {
    SA_RESULT_SUCCESS,
    SA_RESULT_IGNORE,
    SA_RESULT_PERM_DENIED,
    SA_RESULT_SESSION_ERR,
    SA_RESULT_RETRY,
    SA_RESULT_INVALID = -1,
};

enum sa_level { SA_LEVEL_ERR, SA_LEVEL_WARNING, SA_LEVEL_NOTICE, SA_LEVEL_INFO, SA_LEVEL_DEBUG, SA_LEVEL_INVALID = -1 };

enum sa_join {
    SA_JOIN_USER,
    SA_JOIN_PID,
    SA_JOIN_MOUNT,
    SA_JOIN_IPC,
    SA_JOIN_UTS,
    SA_JOIN_NET,
    SA_JOIN_CGROUP,
    SA_JOIN_INVALID = -1,
};

/* All strings point into the packet; those that are absent are NULL. */
struct sa_reply {
    enum sa_result result;
    enum sa_level level;
    const char *reason;
    const char *log;
    const char *error;
    const char *info;
    const char *env[SA_FIELDS_MAX]; /* NAME=VALUE */
    size_t env_count;
    const char *unset[SA_FIELDS_MAX]; /* NAME */
    size_t unset_count;
    enum sa_join join[SA_JOIN_MAX];
    size_t join_count;
    enum sa_result join_failed; /* SA_RESULT_INVALID if absent */
    const char *join_error;
    bool hold;  /* slurmstepd may still move this process's number */
    bool leave; /* the session phase is to leave this login alone */
};

const char *sa_reply_join_name(enum sa_join kind);

/* fd_count: how many descriptors came with the packet. False: malformed, *ret_reply is not touched. */
bool sa_reply_parse(const char *packet, size_t packet_len, size_t fd_count, struct sa_reply *ret_reply);

#endif
