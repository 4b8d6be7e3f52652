/* SPDX-License-Identifier: Apache-2.0 */
/* A module that says that it ran, `tag=` of its line, and returns the number of its `code=`. */
#include <security/pam_modules.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int record(int argc, const char **argv)
{
    const char *tag = "?", *code = "0";

    for (int i = 0; i < argc; i++) {
        if (strncmp(argv[i], "tag=", 4) == 0)
            tag = argv[i] + 4;
        else if (strncmp(argv[i], "code=", 5) == 0)
            code = argv[i] + 5;
    }
    printf("%s ", tag);
    return atoi(code);
}

#define RECORDS(function) \
    int function(pam_handle_t *pamh, int flags, int argc, const char **argv) \
    { \
        (void)pamh, (void)flags; \
        return record(argc, argv); \
    }

RECORDS(pam_sm_acct_mgmt)
RECORDS(pam_sm_open_session)
RECORDS(pam_sm_close_session)
