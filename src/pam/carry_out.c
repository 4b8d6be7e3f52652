/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Carrying out an answer: namespaces, PAM environment, texts, log, return code.
 *
 * Rules of this file:
 * 1. It decides nothing: every code is the answer's, but for what the kernel or libpam refuses.
 * 2. Order: namespaces, environment, texts, log. What can fail comes first, so that nothing is promised too early.
 * 3. An answer that refuses is not joined or exported anything for.
 * 4. The job's number is marked in the PAM handle as well as exported: what is in the environment, users may change.
 * 5. A session half in the job's namespaces and half outside is refused, whatever the options say (but for root, and
 *    enforce=adopt, which refuses nobody).
 */
#include "carry_out.h"

#include <errno.h>
#include <sched.h>
#include <security/pam_ext.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "log.h"

static const int code_of[] = {
    [SA_RESULT_SUCCESS] = PAM_SUCCESS,
    [SA_RESULT_IGNORE] = PAM_IGNORE,
    [SA_RESULT_PERM_DENIED] = PAM_PERM_DENIED,
    [SA_RESULT_SESSION_ERR] = PAM_SESSION_ERR,
};

static const int priority_of[] = {
    [SA_LEVEL_ERR] = LOG_ERR,   [SA_LEVEL_WARNING] = LOG_WARNING, [SA_LEVEL_NOTICE] = LOG_NOTICE,
    [SA_LEVEL_INFO] = LOG_INFO, [SA_LEVEL_DEBUG] = LOG_DEBUG,
};

static const int clone_flag_of[] = {
    [SA_JOIN_USER] = CLONE_NEWUSER,     [SA_JOIN_PID] = CLONE_NEWPID, [SA_JOIN_MOUNT] = CLONE_NEWNS,
    [SA_JOIN_IPC] = CLONE_NEWIPC,       [SA_JOIN_UTS] = CLONE_NEWUTS, [SA_JOIN_NET] = CLONE_NEWNET,
    [SA_JOIN_CGROUP] = CLONE_NEWCGROUP,
};

static bool admits(int code)
{
    return code == PAM_SUCCESS || code == PAM_IGNORE;
}

/* How many of the answer's namespaces were joined; the kernel checks that each descriptor is of its kind. */
static size_t join(const struct sa_answer *answer, int *ret_errno)
{
    size_t joined = 0;

    while (joined < answer->reply.join_count &&
           setns(answer->fds[joined], clone_flag_of[answer->reply.join[joined]]) == 0)
        joined++;
    *ret_errno = errno;
    return joined;
}

static void tell(const struct sa_login *login, const char *text, bool is_error)
{
    char line[SA_PACKET_MAX];

    if (!text || !*text || (!is_error && ((unsigned)login->flags & PAM_SILENT)))
        return;
    sa_log_one_line(text, line, sizeof(line));
    if (is_error)
        (void)pam_error(login->pamh, "%s", line);
    else
        (void)pam_info(login->pamh, "%s", line);
}

/* The join failed after `joined` kinds: the code and the text that this means, and its own line in the log. */
static int fail_join(const struct sa_login *login, const struct sa_reply *reply, size_t joined, int join_errno)
{
    int code = joined == 0 ? code_of[reply->join_failed] : sa_log_denial_of(login);
    char reason[SA_REASON_MAX + 128];

    (void)snprintf(reason, sizeof(reason), "join-failed after=%s kind=%s joined=%zu errno=%d", reply->reason,
                   sa_reply_join_name(reply->join[joined]), joined, join_errno);
    code = sa_log_verdict(login, code, reason);
    if (login->uid != 0 && joined == 0)
        tell(login, reply->join_error, true);
    else if (login->uid != 0 && !admits(code))
        tell(login,
             "Access denied: your session could not be put into your job's namespaces. "
             "Please tell your administrator.",
             true);
    return code;
}

/* For the calls to come; an earlier mark is replaced. The number itself is the datum: nothing is to be freed. */
static bool mark_job(const struct sa_login *login, const char *job)
{
    char *end;
    unsigned long number = strtoul(job, &end, 10);

    return *end == '\0' && number > 0 &&
           pam_set_data(login->pamh, SA_JOB_MARK, (void *)(uintptr_t)number, NULL) == PAM_SUCCESS;
}

static bool export_all(const struct sa_login *login, const struct sa_reply *reply)
{
    static const char job[] = "SLURM_JOB_ID=";

    for (size_t i = 0; i < reply->env_count; i++) {
        if (pam_putenv(login->pamh, reply->env[i]) != PAM_SUCCESS)
            return false;
        if (strncmp(reply->env[i], job, strlen(job)) == 0 && !mark_job(login, reply->env[i] + strlen(job)))
            return false;
    }
    for (size_t i = 0; i < reply->unset_count; i++)
        /* a name without `=` is taken away; one that is not there would be an error in the log */
        if (pam_getenv(login->pamh, reply->unset[i]))
            (void)pam_putenv(login->pamh, reply->unset[i]);
    return true;
}

int sa_carry_out(const struct sa_login *login, struct sa_answer *answer)
{
    const struct sa_reply *reply = &answer->reply;
    const bool closing = login->phase == SA_PHASE_CLOSE_SESSION;
    int code = sa_log_code_for(login, code_of[reply->result]), join_errno = 0;
    bool join_failed = false;
    char line[SA_PACKET_MAX];

    if (admits(code_of[reply->result]) && !closing) {
        size_t joined = join(answer, &join_errno);

        join_failed = joined < reply->join_count;
        sa_client_close_fds(answer);
        if (join_failed && !admits(code = fail_join(login, reply, joined, join_errno)))
            return code;
        if (!export_all(login, reply))
            return sa_log_failure(login, "internal-error detail=putenv", "its answer could not be stored");
    }
    sa_client_close_fds(answer);
    if (join_failed)
        return code;
    if (!closing && (login->uid != 0 || code == PAM_SUCCESS))
        tell(login, reply->error, true);
    if (!closing && admits(code))
        tell(login, reply->info, false);
    if (reply->log && *reply->log) {
        sa_log_one_line(reply->log, line, sizeof(line));
        pam_syslog(login->pamh, priority_of[reply->level], "%s ms=%llu", line, sa_log_elapsed_ms(login));
    }
    return code;
}
