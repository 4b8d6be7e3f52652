/* SPDX-License-Identifier: Apache-2.0 */
/* Runs stacks through libpam, in a root of its own: each line of its input is `DIRECTORY SERVICE account|session`, where
 * DIRECTORY takes the place of /etc; each line of its output the tags of the modules that ran, in their order, and the
 * code that the application gets. */
#include <security/pam_appl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

/* What libpam has to say about broken stacks is nothing for the log of whoever runs the tests. */
void vsyslog(int priority, const char *format, va_list args)
{
    (void)priority, (void)format, (void)args;
}

void __vsyslog_chk(int priority, int flag, const char *format, va_list args)
{
    (void)priority, (void)flag, (void)format, (void)args;
}

void syslog(int priority, const char *format, ...)
{
    (void)priority, (void)format;
}

void __syslog_chk(int priority, int flag, const char *format, ...)
{
    (void)priority, (void)flag, (void)format;
}

static int converse(int count, const struct pam_message **messages, struct pam_response **answers, void *data)
{
    (void)count, (void)messages, (void)answers, (void)data;
    return PAM_CONV_ERR;
}

int main(void)
{
    struct pam_conv conversation = {converse, NULL};
    char directory[512], service[128], kind[16];

    while (scanf("%511s %127s %15s", directory, service, kind) == 3) {
        pam_handle_t *pamh = NULL;
        int code;

        (void)unlink("/etc");
        if (symlink(directory, "/etc") < 0)
            return 1;
        code = pam_start(service, "nobody", &conversation, &pamh);
        if (code != PAM_SUCCESS) {
            printf("start %d\n", code);
            continue;
        }
        code = strcmp(kind, "account") == 0 ? pam_acct_mgmt(pamh, 0) : pam_open_session(pamh, 0);
        printf("= %d\n", code);
        (void)pam_end(pamh, PAM_SUCCESS);
    }
    return 0;
}
