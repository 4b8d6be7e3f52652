/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SA_LOG_H
#define SA_LOG_H

#include <stddef.h>

#include "login.h"

#define SA_TEXT_DENIED "Access denied: this node could not check your Slurm jobs (%s). Please tell your administrator."

/* Replaces control characters by '?', so that a line for the log or for a terminal stays one line. Cuts at cap. */
void sa_log_one_line(const char *text, char *ret_line, size_t cap);

/* Milliseconds since this call of the module began. */
unsigned long long sa_log_elapsed_ms(const struct sa_login *login);

/* The code that may really be returned: never a refusal for root, in close_session, or where enforce= forbids it. */
int sa_log_code_for(const struct sa_login *login, int code);

/* The code of a refusal in this phase. */
int sa_log_denial_of(const struct sa_login *login);

/* Logs one line. head is its beginning: verdict=.. or event=.. */
void sa_log_line(const struct sa_login *login, int priority, const char *head, const char *reason);

/* Logs the verdict that code means for this login, and returns what enforce= leaves of it. */
int sa_log_verdict(const struct sa_login *login, int code, const char *reason);

/* Handles a failure of the module as action_generic_failure= says. If that is a refusal, tells the user why. */
int sa_log_failure(const struct sa_login *login, const char *reason, const char *why);

#endif
