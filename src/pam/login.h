/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SA_LOGIN_H
#define SA_LOGIN_H

#include <security/pam_modules.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "options.h"

enum sa_phase { SA_PHASE_ACCOUNT, SA_PHASE_OPEN_SESSION, SA_PHASE_CLOSE_SESSION };

/* One call of the module: what is known before anybody is asked. The strings are PAM's. */
struct sa_login {
    pam_handle_t *pamh;
    enum sa_phase phase;
    int flags;
    const char *service;
    const char *user;
    const char *rhost; /* NULL if unset */
    uid_t uid;         /* (uid_t)-1 until known */
    struct sa_options options;
    bool strict;         /* the account line refuses what fails: so must this one */
    uint64_t started_ns; /* CLOCK_MONOTONIC, as all times here */
    uint64_t deadline_ns;
};

/* The job that an earlier call with this handle has put the login into: the number stands in the pointer's place. Only
 * modules can reach what pam_set_data() keeps. */
#define SA_JOB_MARK "pam_slurm_adopt_job"

/* How the user authenticated, as the first session line has seen it. */
#define SA_AUTH_MARK "pam_slurm_adopt_auth"

/* What the account line of this handle has answered; without it, there was none in this process. */
#define SA_ACCOUNT_MARK "pam_slurm_adopt_account"
#define SA_ACCOUNT_ASKED ((uintptr_t)1) /* it let the login in, or left it to the other modules */
#define SA_ACCOUNT_LEFT ((uintptr_t)2)  /* it refused, or wants no part in this login: a session is others' doing */

/* That the account line of this handle has action_generic_failure=deny. */
#define SA_STRICT_MARK "pam_slurm_adopt_strict"

#endif
