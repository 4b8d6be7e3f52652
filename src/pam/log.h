/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log-and-return: one line with all that is known, and the PAM code that goes with it.
 *
 * Rules of this file:
 * 1. Every way out that the module chooses itself goes through sa_log_verdict(), which logs the code that is
 *    returned.
 * 2. Root is never refused, nor anybody where enforce= says so: sa_log_code_for() is the last word on every code.
 * 3. Text from outside reaches syslog through "%s" only, and escaped. No openlog(): syslog's identity is sshd's.
 */
#ifndef SA_LOG_H
#define SA_LOG_H

#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#include "client.h"
#include "request.h"

#define SA_TEXT_DENIED "Access denied: this node could not check your Slurm jobs (%s). Please tell your administrator."

/* Control characters become '?': a line for the log or for a terminal stays one line. */
static inline void sa_log_one_line(const char *text, char *ret_line, size_t cap)
{
    size_t i;

    for (i = 0; text[i] && i + 1 < cap; i++)
        ret_line[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    ret_line[i] = '\0';
}

/* For key=value: all but printable ASCII, and blanks, quotes and backslashes, as \xNN. What is too long is cut. */
static inline void sa_log_escape(const char *text, char *ret_word, size_t cap)
{
    size_t at = 0;

    for (; *text && at + 5 <= cap; text++) {
        if (*text > 0x20 && *text < 0x7f && *text != '"' && *text != '\\')
            ret_word[at++] = *text;
        else
            at += (size_t)snprintf(ret_word + at, cap - at, "\\x%02x", (unsigned)(unsigned char)*text);
    }
    ret_word[at] = '\0';
}

static inline unsigned long long sa_log_elapsed_ms(const struct sa_login *login)
{
    return (sa_client_now_ns() - login->started_ns) / (SA_NS_PER_S / 1000);
}

/* The code that would be returned with enforce=yes. close_session has nothing to refuse any more. */
static inline int sa_log_verdict_for(const struct sa_login *login, int code)
{
    if (login->phase == SA_PHASE_CLOSE_SESSION)
        return PAM_SUCCESS;
    return login->uid == 0 && code != PAM_SUCCESS ? PAM_IGNORE : code;
}

/* The code that may really be returned: enforce=adopt refuses nobody, enforce=no is as if the line were not there. */
static inline int sa_log_code_for(const struct sa_login *login, int code)
{
    code = sa_log_verdict_for(login, code);
    if (login->phase == SA_PHASE_CLOSE_SESSION || login->options.enforce == SA_ENFORCE_YES)
        return code;
    return login->options.enforce == SA_ENFORCE_ADOPT && code == PAM_SUCCESS ? PAM_SUCCESS : PAM_IGNORE;
}

static inline int sa_log_denial_of(const struct sa_login *login)
{
    return login->phase == SA_PHASE_ACCOUNT ? PAM_PERM_DENIED : PAM_SESSION_ERR;
}

/* head is the line's beginning: verdict=.. or event=.. */
static inline void sa_log_line(const struct sa_login *login, int priority, const char *head, const char *reason)
{
    static const char *const enforce[] = {
        [SA_ENFORCE_YES] = "", [SA_ENFORCE_ADOPT] = " enforce=adopt", [SA_ENFORCE_NO] = " enforce=no"};
    char user[128], service[64], from[128], uid[24] = "-";

    sa_log_escape(login->user ? login->user : "", user, sizeof(user));
    sa_log_escape(login->service ? login->service : "-", service, sizeof(service));
    sa_log_escape(login->rhost && *login->rhost ? login->rhost : "-", from, sizeof(from));
    if (login->uid != (uid_t)-1)
        (void)snprintf(uid, sizeof(uid), "%lu", (unsigned long)login->uid);
    pam_syslog(login->pamh, priority, "%s reason=%s%s user=\"%s\" uid=%s service=%s from=%s phase=%s ms=%llu", head,
               reason, enforce[login->options.enforce], user, uid, service, from, sa_request_phase_name(login->phase),
               sa_log_elapsed_ms(login));
}

/* Logs the verdict that code is (for this login; enforce= is named beside it), and returns what enforce= leaves of it. */
static inline int sa_log_verdict(const struct sa_login *login, int code, const char *reason)
{
    int verdict = sa_log_verdict_for(login, code);
    const char *head = "verdict=deny";

    if (verdict == PAM_SUCCESS)
        head = "verdict=allow";
    else if (verdict == PAM_IGNORE)
        head = "verdict=ignore";
    sa_log_line(login, LOG_ERR, head, reason);
    return sa_log_code_for(login, code);
}

/* A failure of ours: what action_generic_failure= says. The user is told why if that is a refusal. */
static inline int sa_log_failure(const struct sa_login *login, const char *reason, const char *why)
{
    int code = PAM_IGNORE;

    if (login->options.on_failure == SA_FAILURE_DENY)
        code = sa_log_denial_of(login);
    else if (login->options.on_failure == SA_FAILURE_ALLOW)
        code = PAM_SUCCESS;
    code = sa_log_verdict(login, code, reason);
    if (code != PAM_SUCCESS && code != PAM_IGNORE)
        (void)pam_error(login->pamh, SA_TEXT_DENIED, why);
    return code;
}

#endif
