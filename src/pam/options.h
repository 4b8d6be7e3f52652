/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SA_OPTIONS_H
#define SA_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

enum sa_mode { SA_MODE_AUTO, SA_MODE_SERVICE, SA_MODE_ONESHOT };
enum sa_enforce { SA_ENFORCE_YES, SA_ENFORCE_ADOPT, SA_ENFORCE_NO };
enum sa_failure { SA_FAILURE_IGNORE, SA_FAILURE_ALLOW, SA_FAILURE_DENY };

struct sa_options {
    const char *service; /* PAM services to work in, with commas, "*" for all */
    const char *socket_path;
    const char *hint;    /* the site's sentence for who is refused, empty for none */
    uint64_t timeout_ns; /* for the whole call */
    enum sa_mode mode;
    enum sa_failure on_failure;
    enum sa_enforce enforce; /* whether a refusal refuses; the helper's answers are so already */
    bool ignore_root;
    bool verbose; /* log_level= is verbose or more */
};

/* Whether the line is for this PAM service; NULL is none. */
bool sa_options_work_in(const struct sa_options *options, const char *service);

/* Cannot fail. The strings point into argv or are constants. */
void sa_options_parse(int argc, const char **argv, struct sa_options *ret_options);

#endif
