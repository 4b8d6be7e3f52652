/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The few options that the module itself needs; all others are the helper's.
 *
 * Rules of this file:
 * 1. Pure, and cannot fail: whatever the PAM line says, there are options (root must get past it).
 * 2. Names and values are matched exactly; an option that comes twice: the last one holds.
 * 3. An unknown value only makes things stricter. Telling so is the helper's job, which gets every option as it
 *    stands. Keep in step with src/slurm_adopt/options/schema.py.
 */
#include "options.h"

#include <string.h>
#include <sys/un.h>

#include "clock.h"

#define DEFAULT_SERVICE "sshd"
#define DEFAULT_SOCKET "/run/slurm-adopt/login.sock"
#define DEFAULT_TIMEOUT_NS (5 * SA_NS_PER_S)
#define TIMEOUT_MIN_NS (SA_NS_PER_S / 10)
#define TIMEOUT_MAX_NS (300 * SA_NS_PER_S)
#define SERVICE_MAX 64 /* the exchange carries no longer one */
#define SERVICES_MAX 255
#define HINT_MAX 160

static const char *value_of(const char *arg, const char *name)
{
    size_t name_len = strlen(name);

    return strncmp(arg, name, name_len) == 0 && arg[name_len] == '=' ? arg + name_len + 1 : NULL;
}

/* Seconds as one to three digits, then at most a point and one to three digits. By hand: strtod() obeys the locale. */
static uint64_t parse_timeout(const char *text)
{
    uint64_t ns = 0, unit = SA_NS_PER_S / 10;
    size_t digits = 0;

    for (; *text >= '0' && *text <= '9' && digits < 3; text++, digits++)
        ns = ns * 10 + (uint64_t)(*text - '0') * SA_NS_PER_S;
    if (digits == 0)
        return DEFAULT_TIMEOUT_NS;
    if (*text == '.') {
        digits = 0;
        for (text++; *text >= '0' && *text <= '9' && digits < 3; text++, digits++, unit /= 10)
            ns += (uint64_t)(*text - '0') * unit;
        if (digits == 0)
            return DEFAULT_TIMEOUT_NS;
    }
    return *text == '\0' && ns >= TIMEOUT_MIN_NS && ns <= TIMEOUT_MAX_NS ? ns : DEFAULT_TIMEOUT_NS;
}

/* Names of 1 to 64 bytes with commas between them. */
static bool is_service_list(const char *text)
{
    if (strlen(text) > SERVICES_MAX)
        return false;
    for (;;) {
        size_t len = strcspn(text, ",");

        if (len == 0 || len > SERVICE_MAX)
            return false;
        if (text[len] == '\0')
            return true;
        text += len + 1;
    }
}

/* One line without control characters. What else is not printable, the helper reports: root has written it. */
static bool is_hint(const char *text)
{
    if (strlen(text) > HINT_MAX)
        return false;
    for (; *text; text++)
        if ((unsigned char)*text < 0x20 || *text == 0x7f)
            return false;
    return true;
}

bool sa_options_work_in(const struct sa_options *options, const char *service)
{
    for (const char *name = options->service; service && *name;) {
        size_t len = strcspn(name, ",");

        if (len == strlen(service) && memcmp(name, service, len) == 0)
            return true;
        name += len + (name[len] == ',');
    }
    return strcmp(options->service, "*") == 0;
}

static bool parse_verbose(const char *text)
{
    static const char *const levels[] = {"verbose", "debug", "debug2", "debug3", "debug4", "debug5"};

    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++)
        if (strcmp(text, levels[i]) == 0)
            return true;
    return text[0] >= '4' && text[0] <= '9' && text[1] == '\0';
}

static enum sa_mode parse_mode(const char *text)
{
    if (strcmp(text, "service") == 0)
        return SA_MODE_SERVICE;
    return strcmp(text, "oneshot") == 0 ? SA_MODE_ONESHOT : SA_MODE_AUTO;
}

static enum sa_enforce parse_enforce(const char *text)
{
    if (strcmp(text, "no") == 0)
        return SA_ENFORCE_NO;
    return strcmp(text, "adopt") == 0 ? SA_ENFORCE_ADOPT : SA_ENFORCE_YES;
}

static enum sa_failure parse_failure(const char *text)
{
    if (strcmp(text, "ignore") == 0)
        return SA_FAILURE_IGNORE;
    return strcmp(text, "allow") == 0 ? SA_FAILURE_ALLOW : SA_FAILURE_DENY;
}

void sa_options_parse(int argc, const char **argv, struct sa_options *ret_options)
{
    struct sa_options options = {
        .service = DEFAULT_SERVICE,
        .socket_path = DEFAULT_SOCKET,
        .hint = "",
        .timeout_ns = DEFAULT_TIMEOUT_NS,
        .mode = SA_MODE_AUTO,
        .on_failure = SA_FAILURE_IGNORE,
        .enforce = SA_ENFORCE_YES,
        .ignore_root = true,
    };
    bool strict = false;

    for (int i = 0; i < argc; i++) {
        const char *value;

        if ((value = value_of(argv[i], "service")))
            options.service = is_service_list(value) ? value : DEFAULT_SERVICE;
        else if ((value = value_of(argv[i], "ignore_root")))
            options.ignore_root = strcmp(value, "0") != 0;
        else if ((value = value_of(argv[i], "timeout")))
            options.timeout_ns = parse_timeout(value);
        else if ((value = value_of(argv[i], "socket")))
            options.socket_path =
                *value == '/' && strlen(value) < sizeof(((struct sockaddr_un *)0)->sun_path) ? value : DEFAULT_SOCKET;
        else if ((value = value_of(argv[i], "mode")))
            options.mode = parse_mode(value);
        else if ((value = value_of(argv[i], "profile")))
            strict = strcmp(value, "compatible") != 0;
        else if ((value = value_of(argv[i], "log_level")))
            options.verbose = parse_verbose(value);
        else if ((value = value_of(argv[i], "hint")))
            options.hint = is_hint(value) ? value : "";
        else if ((value = value_of(argv[i], "enforce")))
            options.enforce = parse_enforce(value);
        else if ((value = value_of(argv[i], "action_generic_failure")))
            options.on_failure = parse_failure(value);
    }
    if (strict)
        options.on_failure = SA_FAILURE_DENY;
    *ret_options = options;
}
