/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Log-and-return: one line with all that is known, and the PAM code that goes with it.
 *
 * Rules of this file:
 * 1. The module returns each code that it chooses itself through sa_log_verdict(), which logs that code.
 * 2. Root is never refused, nor anybody where enforce= says so: sa_log_code_for() is the last word on every code.
 * 3. Text from outside reaches syslog through "%s" only, and escaped. No openlog(): syslog's identity is sshd's.
 */
#include "log.h"

#include <security/pam_ext.h>
#include <stdio.h>
#include <syslog.h>

#include "clock.h"
#include "request.h"

void sa_log_one_line(const char *text, char *ret_line, size_t cap)
{
    size_t i;

    for (i = 0; text[i] && i + 1 < cap; i++)
        ret_line[i] = (unsigned char)text[i] < 0x20 || text[i] == 0x7f ? '?' : text[i];
    ret_line[i] = '\0';
}

/* For key=value: all but printable ASCII, and blanks, quotes and backslashes, as \xNN. What is too long is cut. */
static void escape(const char *text, char *ret_word, size_t cap)
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

unsigned long long sa_log_elapsed_ms(const struct sa_login *login)
{
    return (sa_clock_now_ns() - login->started_ns) / (SA_NS_PER_S / 1000);
}

/* The code that would be returned with enforce=yes. close_session has nothing to refuse any more. */
static int verdict_for(const struct sa_login *login, int code)
{
    if (login->phase == SA_PHASE_CLOSE_SESSION)
        return PAM_SUCCESS;
    return login->uid == 0 && code != PAM_SUCCESS ? PAM_IGNORE : code;
}

int sa_log_code_for(const struct sa_login *login, int code)
{
    code = verdict_for(login, code);
    if (login->phase == SA_PHASE_CLOSE_SESSION || login->options.enforce == SA_ENFORCE_YES)
        return code;
    return login->options.enforce == SA_ENFORCE_ADOPT && code == PAM_SUCCESS ? PAM_SUCCESS : PAM_IGNORE;
}

int sa_log_denial_of(const struct sa_login *login)
{
    return login->phase == SA_PHASE_ACCOUNT ? PAM_PERM_DENIED : PAM_SESSION_ERR;
}

void sa_log_line(const struct sa_login *login, int priority, const char *head, const char *reason)
{
    static const char *const enforce[] = {
        [SA_ENFORCE_YES] = "", [SA_ENFORCE_ADOPT] = " enforce=adopt", [SA_ENFORCE_NO] = " enforce=no"};
    char user[128], service[64], from[128], uid[24] = "-";

    escape(login->user ? login->user : "", user, sizeof(user));
    escape(login->service ? login->service : "-", service, sizeof(service));
    escape(login->rhost && *login->rhost ? login->rhost : "-", from, sizeof(from));
    if (login->uid != (uid_t)-1)
        (void)snprintf(uid, sizeof(uid), "%lu", (unsigned long)login->uid);
    pam_syslog(login->pamh, priority, "%s reason=%s%s user=\"%s\" uid=%s service=%s from=%s phase=%s ms=%llu", head,
               reason, enforce[login->options.enforce], user, uid, service, from, sa_request_phase_name(login->phase),
               sa_log_elapsed_ms(login));
}

int sa_log_verdict(const struct sa_login *login, int code, const char *reason)
{
    int verdict = verdict_for(login, code);
    const char *head = "verdict=deny";

    if (verdict == PAM_SUCCESS)
        head = "verdict=allow";
    else if (verdict == PAM_IGNORE)
        head = "verdict=ignore";
    sa_log_line(login, LOG_ERR, head, reason);
    return sa_log_code_for(login, code);
}

int sa_log_failure(const struct sa_login *login, const char *reason, const char *why)
{
    int code = PAM_IGNORE;

    if (login->options.on_failure == SA_FAILURE_DENY)
        code = sa_log_denial_of(login);
    else if (login->options.on_failure == SA_FAILURE_ALLOW)
        code = PAM_SUCCESS;
    code = sa_log_verdict(login, code, reason);
    if (code != PAM_SUCCESS && code != PAM_IGNORE)
        (void)pam_error(login->pamh, SA_TEXT_DENIED "%s%s", why, *login->options.hint ? " " : "", login->options.hint);
    return code;
}
