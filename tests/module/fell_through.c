/* SPDX-License-Identifier: Apache-2.0 */
/* The next module of the stack: reached only if the one under test said PAM_IGNORE, which libpam itself never
 * returns to an application. Its code, PAM_CRED_ERR, is one that the module under test never returns. */
#include <security/pam_modules.h>

#define SAYS_SO(function) \
    int function(pam_handle_t *pamh, int flags, int argc, const char **argv) \
    { \
        (void)pamh, (void)flags, (void)argc, (void)argv; \
        return PAM_CRED_ERR; \
    }

SAYS_SO(pam_sm_acct_mgmt)
SAYS_SO(pam_sm_open_session)
SAYS_SO(pam_sm_close_session)
