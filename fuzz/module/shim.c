/* SPDX-License-Identifier: Apache-2.0 */
/* What the module's parsers make of bytes, as lines of text ended by NUL each, for comparison with Python's readers. */
#include <stdio.h>
#include <string.h>

#include "options.h"
#include "reply.h"

long shim_reply(const char *packet, size_t len, size_t fds, char *ret_lines, size_t cap);
long shim_options(int argc, const char **argv, char *ret_lines, size_t cap);

static const char *const results[] = {"success", "ignore", "perm_denied", "session_err", "retry"};
static const char *const levels[] = {"err", "warning", "notice", "info", "debug"};
static const char *const modes[] = {"auto", "service", "oneshot"};
static const char *const enforces[] = {"yes", "adopt", "no"};
static const char *const failures[] = {"ignore", "allow", "deny"};

static void put(char *lines, size_t cap, size_t *at, const char *key, const char *value)
{
    if (value && *at < cap)
        *at += (size_t)snprintf(lines + *at, cap - *at, "%s=%s", key, value) + 1;
}

/* How many bytes were written; -1: the reply is malformed. */
long shim_reply(const char *packet, size_t len, size_t fds, char *ret_lines, size_t cap)
{
    struct sa_reply reply;
    size_t at = 0;

    if (!sa_reply_parse(packet, len, fds, &reply))
        return -1;
    put(ret_lines, cap, &at, "result", results[reply.result]);
    put(ret_lines, cap, &at, "level", levels[reply.level]);
    put(ret_lines, cap, &at, "reason", reply.reason);
    put(ret_lines, cap, &at, "hold", reply.hold ? "1" : "0");
    for (size_t i = 0; i < reply.env_count; i++)
        put(ret_lines, cap, &at, "env", reply.env[i]);
    for (size_t i = 0; i < reply.unset_count; i++)
        put(ret_lines, cap, &at, "unset", reply.unset[i]);
    for (size_t i = 0; i < reply.join_count; i++)
        put(ret_lines, cap, &at, "join", sa_reply_join_name(reply.join[i]));
    if (reply.join_failed != SA_RESULT_INVALID)
        put(ret_lines, cap, &at, "join_failed", results[reply.join_failed]);
    put(ret_lines, cap, &at, "log", reply.log);
    put(ret_lines, cap, &at, "error", reply.error);
    put(ret_lines, cap, &at, "info", reply.info);
    put(ret_lines, cap, &at, "join_error", reply.join_error);
    return (long)at;
}

long shim_options(int argc, const char **argv, char *ret_lines, size_t cap)
{
    struct sa_options options;
    char number[24];
    size_t at = 0;

    sa_options_parse(argc, argv, &options);
    (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)options.timeout_ns);
    put(ret_lines, cap, &at, "service", options.service);
    put(ret_lines, cap, &at, "socket", options.socket_path);
    put(ret_lines, cap, &at, "timeout_ns", number);
    put(ret_lines, cap, &at, "mode", modes[options.mode]);
    put(ret_lines, cap, &at, "enforce", enforces[options.enforce]);
    put(ret_lines, cap, &at, "failure", failures[options.on_failure]);
    put(ret_lines, cap, &at, "ignore_root", options.ignore_root ? "1" : "0");
    return (long)at;
}
