/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SA_CARRY_OUT_H
#define SA_CARRY_OUT_H

#include "client.h"
#include "login.h"

/* Does what the answer says and returns the PAM code. Closes the answer's descriptors. */
int sa_carry_out(const struct sa_login *login, struct sa_answer *answer);

#endif
