/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The PAM entry points: account, open_session, close_session.
 *
 * Rules of this file:
 * 1. Order: another service, the user, root, then gather -> ask -> carry out. Nothing that can fail comes before
 *    root is let past.
 * 2. No policy: who may in is the helper's answer. Without an answer action_generic_failure= holds.
 * 3. One monotonic deadline from the first line on; the service may use up 80 % of it if the helper can follow.
 * 4. Four things are kept between two calls, in the PAM handle: the job that the login was put into, that the account
 *    line refuses what fails, what it has answered, and how the user authenticated. The PAM environment, which pam_env
 *    may fill from the user's own files, could not prove them. No static variables.
 */
#include <pwd.h>
#include <security/pam_modutil.h>
#include <signal.h>
#include <string.h>
#include <syslog.h>

#include "carry_out.h"
#include "clock.h"
#include "log.h"
#include "request.h"
#include "spawn.h"

#define EXPORT __attribute__((visibility("default")))

#define SERVICE_SHARE_PERCENT 80
#define CLOSE_MAX_NS (SA_NS_PER_S / 2) /* a logout waits for nothing that matters to it */

static const char *item_of(pam_handle_t *pamh, int kind)
{
    const void *item = NULL;

    return pam_get_item(pamh, kind, &item) == PAM_SUCCESS ? item : NULL;
}

static enum sa_outcome ask_service(const struct sa_login *login, struct sa_request *request, uint64_t deadline_ns,
                                   struct sa_answer *ret_answer)
{
    enum sa_outcome outcome;

    sa_request_set_deadline(request, deadline_ns);
    outcome = sa_client_ask_service(login->options.socket_path, request->packet, request->packet_len, deadline_ns,
                                    ret_answer);
    if (outcome == SA_OUTCOME_ANSWERED && ret_answer->reply.result == SA_RESULT_RETRY) {
        sa_client_close_fds(ret_answer);
        outcome = SA_OUTCOME_UNREACHABLE;
    }
    return outcome;
}

static enum sa_outcome ask_helper(const struct sa_login *login, struct sa_request *request,
                                  struct sa_answer *ret_answer)
{
    enum sa_outcome outcome;

    sa_request_set_deadline(request, login->deadline_ns);
    outcome = sa_spawn_ask(request->packet, request->packet_len, login->deadline_ns, ret_answer);
    if (outcome == SA_OUTCOME_ANSWERED && ret_answer->reply.result == SA_RESULT_RETRY) {
        sa_client_close_fds(ret_answer);
        outcome = SA_OUTCOME_BAD_REPLY;
    }
    return outcome;
}

/* The service, the helper, or first one and then the other, as mode= says. */
static enum sa_outcome ask(const struct sa_login *login, struct sa_request *request, struct sa_answer *ret_answer)
{
    const bool closing = login->phase == SA_PHASE_CLOSE_SESSION;
    uint64_t share_ns = login->options.timeout_ns / 100 * SERVICE_SHARE_PERCENT;
    enum sa_outcome outcome;

    if (login->options.mode == SA_MODE_ONESHOT)
        return closing ? SA_OUTCOME_UNREACHABLE : ask_helper(login, request, ret_answer);
    if (login->options.mode == SA_MODE_SERVICE || closing)
        return ask_service(login, request, login->deadline_ns, ret_answer);

    outcome = ask_service(login, request, login->started_ns + share_ns, ret_answer);
    if (outcome == SA_OUTCOME_UNTRUSTED)
        sa_log_line(login, LOG_ERR, "event=service-failed", "helper-untrusted");
    else if (outcome == SA_OUTCOME_TIMEOUT)
        sa_log_line(login, LOG_WARNING, "event=service-failed", "helper-timeout");
    if (outcome == SA_OUTCOME_ANSWERED || outcome == SA_OUTCOME_BAD_REPLY)
        return outcome;
    return ask_helper(login, request, ret_answer);
}

/*
 * Asks, and holds our number if slurmstepd may still move it. A signal that would end the host program (sshd's
 * LoginGraceTime, a client that goes away) waits until then: the number of a process that is killed in between may be
 * another's when it is moved, and the user may choose when LoginGraceTime ends.
 */
static enum sa_outcome ask_and_hold(const struct sa_login *login, struct sa_request *request,
                                    struct sa_answer *ret_answer)
{
    static const int ends[] = {SIGHUP, SIGINT, SIGQUIT, SIGALRM, SIGTERM};
    enum sa_outcome outcome;
    sigset_t waiting, mask;

    if (login->phase == SA_PHASE_CLOSE_SESSION)
        return ask(login, request, ret_answer);
    (void)sigemptyset(&waiting);
    for (size_t i = 0; i < sizeof(ends) / sizeof(*ends); i++)
        (void)sigaddset(&waiting, ends[i]);
    (void)sigprocmask(SIG_BLOCK, &waiting, &mask);
    outcome = ask(login, request, ret_answer);
    if (outcome == SA_OUTCOME_TIMEOUT || (outcome == SA_OUTCOME_ANSWERED && ret_answer->reply.hold))
        sa_spawn_hold_number();
    (void)sigprocmask(SIG_SETMASK, &mask, NULL);
    return outcome;
}

static int ask_and_carry_out(const struct sa_login *login, int argc, const char **argv, bool *ret_leave)
{
    struct sa_request request;
    struct sa_answer answer;

    if (!sa_request_build(login, argc, argv, &request))
        return sa_log_failure(login, "request-too-large", "the request does not fit");
    switch (ask_and_hold(login, &request, &answer)) {
    case SA_OUTCOME_ANSWERED: *ret_leave = answer.reply.leave; return sa_carry_out(login, &answer);
    case SA_OUTCOME_TIMEOUT: return sa_log_failure(login, "helper-timeout", "the login helper did not answer in time");
    case SA_OUTCOME_BAD_REPLY:
        return sa_log_failure(login, "helper-bad-reply", "the login helper's answer was malformed");
    case SA_OUTCOME_UNTRUSTED: return sa_log_failure(login, "helper-untrusted", "the login helper is not root's");
    case SA_OUTCOME_UNREACHABLE: break;
    }
    if (login->phase == SA_PHASE_CLOSE_SESSION)
        return PAM_SUCCESS; /* without a service there is nobody to notify: the usual case, so not a line in the log */
    return sa_log_failure(login, "helper-unreachable", "the login helper could not be reached");
}

/* A session line that is weaker than the account line (other options, or none) would let in what that one refuses. */
static void keep_strictness(struct sa_login *login)
{
    const void *mark = NULL;

    /* a line that refuses nobody marks nothing, and one that only looks on stays so beside one that enforces */
    if (login->options.enforce != SA_ENFORCE_YES)
        return;
    if (login->phase == SA_PHASE_ACCOUNT && login->options.on_failure == SA_FAILURE_DENY)
        (void)pam_set_data(login->pamh, SA_STRICT_MARK, (void *)(uintptr_t)1, NULL);
    if (login->phase == SA_PHASE_OPEN_SESSION && pam_get_data(login->pamh, SA_STRICT_MARK, &mark) == PAM_SUCCESS &&
        mark) {
        login->options.on_failure = SA_FAILURE_DENY;
        login->strict = true;
    }
}

/* Where a session follows an account phase that refused, another module has let the login in. */
static int keep_answer(const struct sa_login *login, int code, bool leave)
{
    uintptr_t mark = (code == PAM_SUCCESS || code == PAM_IGNORE) && !leave ? SA_ACCOUNT_ASKED : SA_ACCOUNT_LEFT;

    if (login->phase != SA_PHASE_ACCOUNT ||
        pam_set_data(login->pamh, SA_ACCOUNT_MARK, (void *)mark, NULL) == PAM_SUCCESS)
        return code;
    return sa_log_failure(login, "internal-error detail=mark", "its answer could not be stored");
}

static int run_phase(pam_handle_t *pamh, int flags, int argc, const char **argv, enum sa_phase phase)
{
    struct sa_login login = {
        .pamh = pamh,
        .phase = phase,
        .flags = flags,
        .service = item_of(pamh, PAM_SERVICE),
        .user = item_of(pamh, PAM_USER), /* not pam_get_user(): it would ask the person for a name */
        .rhost = item_of(pamh, PAM_RHOST),
        .uid = (uid_t)-1,
        .started_ns = sa_clock_now_ns(),
    };
    const struct passwd *user;
    bool leave = false;
    int code;

    sa_options_parse(argc, argv, &login.options);
    if (!sa_options_work_in(&login.options, login.service)) {
        if (login.options.verbose && phase == SA_PHASE_ACCOUNT)
            sa_log_line(&login, LOG_INFO, "verdict=ignore", "other-service");
        return PAM_IGNORE;
    }
    if (!login.service)
        login.service = "";
    if (phase == SA_PHASE_CLOSE_SESSION && login.options.timeout_ns > CLOSE_MAX_NS)
        login.options.timeout_ns = CLOSE_MAX_NS;
    login.deadline_ns = login.started_ns + login.options.timeout_ns;

    user = login.user && *login.user ? pam_modutil_getpwnam(pamh, login.user) : NULL;
    if (!user)
        return phase == SA_PHASE_CLOSE_SESSION ? PAM_SUCCESS : sa_log_verdict(&login, PAM_SESSION_ERR, "user-unknown");
    login.uid = user->pw_uid;
    if (login.uid == 0 && login.options.ignore_root)
        return PAM_IGNORE;
    keep_strictness(&login);
    code = ask_and_carry_out(&login, argc, argv, &leave);
    return keep_answer(&login, code, leave);
}

EXPORT int pam_sm_acct_mgmt(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    return run_phase(pamh, flags, argc, argv, SA_PHASE_ACCOUNT);
}

EXPORT int pam_sm_open_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    return run_phase(pamh, flags, argc, argv, SA_PHASE_OPEN_SESSION);
}

EXPORT int pam_sm_close_session(pam_handle_t *pamh, int flags, int argc, const char **argv)
{
    return run_phase(pamh, flags, argc, argv, SA_PHASE_CLOSE_SESSION);
}
