/* SPDX-License-Identifier: Apache-2.0 */
/* The libpam of the world (world.h): items, environment, marks, and what reaches the log and the person. */
#include "world.h"

#include <pwd.h>
#include <security/pam_ext.h>
#include <security/pam_modules.h>
#include <security/pam_modutil.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct libpam libpam;

int pam_get_item(const pam_handle_t *pamh, int kind, const void **ret_item)
{
    (void)pamh;
    if (mishap(2))
        return PAM_SYSTEM_ERR;
    switch (kind) {
    case PAM_SERVICE: *ret_item = libpam.service; break;
    case PAM_USER: *ret_item = libpam.user; break;
    case PAM_RHOST: *ret_item = libpam.rhost; break;
    case PAM_TTY: *ret_item = libpam.tty; break;
    default: breach("an item that the module has no business with");
    }
    return PAM_SUCCESS;
}

char *__wrap_strdup(const char *text);

char *__wrap_strdup(const char *text)
{
    char *copy = mishap(2) ? NULL : malloc(strlen(text) + 1);

    return copy ? strcpy(copy, text) : NULL;
}

struct passwd *pam_modutil_getpwnam(pam_handle_t *pamh, const char *user)
{
    static const struct {
        const char *name;
        uid_t uid;
    } known[] = {{"root", 0}, {"toor", 0}, {"alice", 1501}, {"bob", 1502}};
    static struct passwd found;

    (void)pamh;
    libpam.looked_up = true;
    libpam.found_uid = (uid_t)-1;
    if (mishap(2))
        return NULL;
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
        if (strcmp(user, known[i].name) == 0) {
            libpam.found_uid = found.pw_uid = known[i].uid;
            return &found;
        }
    return NULL;
}

const char *pam_getenv(pam_handle_t *pamh, const char *name)
{
    size_t len = strlen(name);

    (void)pamh;
    for (size_t i = 0; i < libpam.env_count; i++)
        if (strncmp(libpam.env[i], name, len) == 0 && libpam.env[i][len] == '=')
            return libpam.env[i] + len + 1;
    return NULL;
}

int pam_putenv(pam_handle_t *pamh, const char *entry)
{
    const char *equals = strchr(entry, '=');
    size_t len = equals ? (size_t)(equals - entry) : strlen(entry), i = 0;

    (void)pamh;
    require(len > 0, "a variable without a name");
    libpam.puts++;
    if (mishap(2)) {
        libpam.lost_puts++;
        return PAM_BUF_ERR;
    }
    while (i < libpam.env_count && !(strncmp(libpam.env[i], entry, len) == 0 && libpam.env[i][len] == '='))
        i++;
    if (i < libpam.env_count) {
        free(libpam.env[i]);
        libpam.env[i] = libpam.env[--libpam.env_count];
    }
    if (equals) {
        require(libpam.env_count < sizeof(libpam.env) / sizeof(*libpam.env), "an environment without an end");
        libpam.env[libpam.env_count++] = strdup(entry);
    }
    return PAM_SUCCESS;
}

static const void **mark_of(const char *name)
{
    if (strcmp(name, "pam_slurm_adopt_job") == 0)
        return &libpam.job_mark;
    if (strcmp(name, "pam_slurm_adopt_auth") == 0)
        return &libpam.auth_mark;
    require(strcmp(name, "pam_slurm_adopt_strict") == 0, "data under a name that is not the module's");
    return &libpam.strict_mark;
}

int pam_set_data(pam_handle_t *pamh, const char *name, void *data,
                 void (*cleanup)(pam_handle_t *pamh, void *data, int error_status))
{
    (void)pamh;
    /* what is freed at the end of the handle is what was allocated; the others are numbers */
    require((cleanup != NULL) == (mark_of(name) == &libpam.auth_mark), "a number is freed, or a copy is not");
    if (mishap(2)) {
        libpam.lost_puts++;
        return PAM_BUF_ERR;
    }
    if (cleanup && *mark_of(name))
        breach("a copy is lost");
    *mark_of(name) = data;
    return PAM_SUCCESS;
}

int pam_get_data(const pam_handle_t *pamh, const char *name, const void **ret_data)
{
    const void *mark = *mark_of(name);

    (void)pamh;
    if (!mark)
        return PAM_NO_MODULE_DATA;
    *ret_data = mark;
    return PAM_SUCCESS;
}

/* One line, whatever users, hosts and peers are called. */
__attribute__((format(printf, 1, 0))) static void check_line(const char *format, va_list args)
{
    static char line[16384];
    int len = vsnprintf(line, sizeof(line), format, args);

    require(len >= 0 && (size_t)len < sizeof(line), "a line without an end");
    for (int i = 0; i < len; i++)
        require((unsigned char)line[i] >= 0x20 && line[i] != 0x7f, "a control character in a line");
}

void pam_syslog(const pam_handle_t *pamh, int priority, const char *format, ...)
{
    va_list args;

    (void)pamh;
    require(priority >= 0 && priority <= 7, "a priority that is none");
    va_start(args, format);
    check_line(format, args);
    va_end(args);
    libpam.lines++;
}

int pam_prompt(pam_handle_t *pamh, int style, char **ret_response, const char *format, ...)
{
    va_list args;

    (void)pamh;
    require(!ret_response && (style == PAM_ERROR_MSG || style == PAM_TEXT_INFO), "the person is asked");
    require(style == PAM_ERROR_MSG || !libpam.silent, "a text that was not to be shown");
    va_start(args, format);
    check_line(format, args);
    va_end(args);
    if (style == PAM_ERROR_MSG)
        libpam.errors++;
    else
        libpam.infos++;
    return mishap(2) ? PAM_CONV_ERR : PAM_SUCCESS;
}
