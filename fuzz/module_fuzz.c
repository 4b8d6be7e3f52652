/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole module through its entry points, in a world of the input's making (fuzz/module/world.h).
 *
 * The invariants, for each call, whatever the peer sends and whatever calls fail:
 * 1. uid 0 gets PAM_IGNORE, and with ignore_root nothing is asked for; with ignore_root=0 it may get PAM_SUCCESS.
 * 2. Nobody gets PAM_SUCCESS or PAM_IGNORE but by a whole, well-formed answer of root's that says so, or because the
 *    PAM line says so for failures and no account line of the same handle has forbidden it. Where the line has
 *    enforce=no everybody gets PAM_IGNORE, and with enforce=adopt whoever would be refused.
 * 3. No descriptor and no child is left, and none is closed, killed or reaped that is not the module's own.
 * 4. Signal mask, process group and pending SIGCHLD are as before.
 * 5. No wait ends after the deadline, but for half a second in which a killed helper is reaped.
 * 6. What reaches the log or the person is one line without control characters.
 * 7. The child that becomes the helper does so as root, with its socket, its death signal and nothing blocked, or ends.
 *
 * The input: what is taken in read_scene(), then one byte with the script's length, the script, and the answers.
 */
#include <security/pam_appl.h>
#include <security/pam_modules.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "module/world.h"
#include "reply.h"

#define ARGS_CAP 40
#define TEXT_CAP 400

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char *const words[] = {
    "profile=strict",
    "profile=compatible",
    "profile=",
    "action_generic_failure=allow",
    "action_generic_failure=deny",
    "action_generic_failure=ignore",
    "action_generic_failure=Allow",
    "enforce=no",
    "enforce=adopt",
    "enforce=Adopt",
    "mode=service",
    "mode=oneshot",
    "mode=auto",
    "ignore_root=0",
    "ignore_root=1",
    "service=*",
    "service=login",
    "service=",
    "timeout=0.1",
    "timeout=300",
    "timeout=0.0999",
    "timeout=9999999999999999999999",
    "timeout=1.5",
    "socket=/run/other",
    "socket=relative",
    "socket=",
    "=",
    "",
};

/* Everything about one run that is not the world's. */
struct scene {
    const char *args[ARGS_CAP];
    int count;
    int flags;
    unsigned calls; /* a bit for each of account, open_session, close_session */
    char texts[8][TEXT_CAP];
    unsigned text_count;
    bool weak_session;
};

static struct scene scene;

/* A text of the input's: its length, and so many bytes that are not NUL. */
static const char *next_text(void)
{
    char *text = scene.texts[scene.text_count++ % 8];
    size_t len = next_byte(&world.input) * (size_t)(TEXT_CAP - 1) / 255, at = 0;

    while (at < len && world.input.at < world.input.size) {
        uint8_t byte = next_byte(&world.input);

        text[at++] = (char)(byte ? byte : '=');
    }
    text[at] = '\0';
    return text;
}

static const char *one_of(const char *const *names, unsigned count)
{
    unsigned which = next_byte(&world.input) % (count + 1);

    return which == count ? next_text() : names[which];
}

static void read_scene(const uint8_t *data, size_t size)
{
    static const char *const users[] = {"alice", "root", "toor", "bob", "nobody-knows", "", NULL};
    static const char *const services[] = {"sshd", "sshd", "login", "", NULL};
    static const char *const hosts[] = {NULL, "node2", "", "evil\n verdict=allow \x1b[2J\""};
    static const char *const jobs[] = {NULL, "4711", "99999999999999999999999"};
    unsigned traits, count;
    const char *job;
    size_t script_len;

    memset(&scene, 0, sizeof(scene));
    memset(&world, 0, sizeof(world));
    world.input = (struct input){data, size, 0};
    traits = next_byte(&world.input);
    scene.calls = 1 + traits % 7;
    libpam.user = one_of(users, 7);
    libpam.service = one_of(services, 5);
    libpam.rhost = one_of(hosts, 4);
    libpam.tty = libpam.rhost ? "ssh" : NULL;
    count = next_byte(&world.input) % ARGS_CAP;
    for (unsigned i = 0; i < count && world.input.at < world.input.size; i++)
        scene.args[scene.count++] = one_of(words, sizeof(words) / sizeof(*words));
    if ((job = one_of(jobs, 3)) && asprintf(&libpam.env[0], "SLURM_JOB_ID=%s", job) > 0)
        libpam.env_count = 1;
    if (traits >= 128 && (libpam.env[libpam.env_count] = strdup("SSH_AUTH_INFO_0=publickey ssh-ed25519 AAAA\n")))
        libpam.env_count++;
    traits = next_byte(&world.input);
    scene.flags = traits & 1 ? PAM_SILENT : 0;
    libpam.silent = traits & 1;
    world.low_fds = traits & 2;
    world.sigchld_ignored = traits & 4;
    world.stuck = traits & 8;
    world.other_will_end = traits & 16;
    world.pending = traits & 32 && !world.sigchld_ignored;
    world.leads_session = !(traits & 64);
    world.mask_blocks_child = traits & 128;
    traits = next_byte(&world.input);
    scene.weak_session = traits & 4;
    world.helper_file = (enum helper_file)(traits & 8 ? 1 + traits % 4 : 0);
    world.euid = traits & 16 ? 1501 : 0;
    world.service_uid = traits & 32 ? 1501 : 0;
    world.connection_count = traits >> 6 ? (traits >> 6) * 4U - 3 : 0;
    world.rate = next_byte(&world.input);
    script_len = next_byte(&world.input);
    if (script_len > size - world.input.at)
        script_len = size - world.input.at;
    world.script = (struct input){data + world.input.at, script_len, 0};
    world.packets = (struct input){data + world.input.at + script_len, size - world.input.at - script_len, 0};
    world.group = world.leads_session ? 4000 : 900;
    sigemptyset(&world.mask);
    sigaddset(&world.mask, SIGUSR2);
    if (world.mask_blocks_child)
        sigaddset(&world.mask, SIGCHLD);
    world.now_ns = 1000 * NS_PER_S;
}

static const char *last_value(const char *name)
{
    const char *value = NULL;

    for (int i = 0; i < scene.count; i++)
        if (strncmp(scene.args[i], name, strlen(name)) == 0 && scene.args[i][strlen(name)] == '=')
            value = scene.args[i] + strlen(name) + 1;
    return value;
}

static bool is(const char *text, const char *other)
{
    return text && strcmp(text, other) == 0;
}

/* docs/security/module.md: 0.1 to 300, at most three digits before and after the point; all else is 5 seconds. */
static uint64_t timeout_ns(void)
{
    const char *text = last_value("timeout");
    size_t whole = text ? strspn(text, "0123456789") : 0;
    size_t part = text && text[whole] == '.' ? strspn(text + whole + 1, "0123456789") : 0;
    double seconds;

    if (whole < 1 || whole > 3 || (text[whole] == '.' && (part < 1 || part > 3)) ||
        text[whole + (text[whole] == '.' ? 1 + part : 0)] != '\0')
        return 5 * NS_PER_S;
    seconds = strtod(text, NULL);
    return seconds < 0.1 || seconds > 300 ? 5 * NS_PER_S : (uint64_t)(seconds * 1000 + 0.5) * (NS_PER_S / 1000);
}

/* What the PAM line makes of a failure: PAM_IGNORE, PAM_SUCCESS or a refusal. */
static int code_of_failure(int refusal, bool account_is_strict)
{
    const char *action = last_value("action_generic_failure"), *profile = last_value("profile");

    if ((profile && !is(profile, "compatible")) || account_is_strict)
        return refusal;
    if (!action || is(action, "ignore"))
        return PAM_IGNORE;
    return is(action, "allow") ? PAM_SUCCESS : refusal;
}

/* Whether the packet, a whole one, has this field; not by the parser that is tested. */
static bool says(const char *field)
{
    size_t len = strlen(field) + 1;

    for (size_t at = 0; at + len <= world.packet_len; at++)
        if (memcmp(world.packet + at, field, len) == 0 && (at == 0 || world.packet[at - 1] == '\0'))
            return true;
    return false;
}

static bool answer_admits(int code)
{
    if (!world.received || !world.trusted || !world.whole || world.packet_len > SA_PACKET_MAX)
        return false;
    if (memcmp(world.packet, "V=1", 4) != 0 || world.packet[world.packet_len - 1] != '\0')
        return false;
    if (world.join_failures == 0)
        return says(code == PAM_SUCCESS ? "RESULT=success" : "RESULT=ignore");
    /* not one of the namespaces could be joined, and the answer says what that means */
    return world.joins == 0 && says(code == PAM_SUCCESS ? "JOIN_FAILED=success" : "JOIN_FAILED=ignore");
}

static void check_left(void)
{
    bool excused = world.stuck;

    for (int fd = 0; fd < FD_CAP; fd++)
        require(world.fds[fd] == FD_NONE, "a descriptor is left");
    for (size_t i = 0; i < world.child_count; i++) {
        struct child *child = &world.children[i];

        require(child->reaped || (excused && child->killed && child->is_helper), "a child is left");
    }
    require(memcmp(&world.mask, &world.mask_before, sizeof(world.mask)) == 0, "the signal mask is another one");
    require(world.group == (world.leads_session ? 4000 : 900), "the process group is another one");
    if (!world.sigchld_ignored && !world.stuck)
        require(world.pending == (world.pending_before || world.other_ended), "a SIGCHLD was taken away or left");
}

static void check_code(int code, unsigned phase)
{
    const char *enforce = last_value("enforce");
    const int refusal = phase == 0 ? PAM_PERM_DENIED : PAM_SESSION_ERR;
    bool mine = code == PAM_IGNORE && !libpam.looked_up;

    if (mine)
        require(world.kernel_calls == 0, "something was asked for another service's login");
    if (libpam.found_uid == 0 && libpam.looked_up) {
        bool asked = is(last_value("ignore_root"), "0");

        require(code == PAM_IGNORE || (asked && code == PAM_SUCCESS), "root was refused");
        require(asked || world.kernel_calls == 0, "something was asked for root's login");
        return;
    }
    require((world.joins == 0 && libpam.puts == 0) ||
                (world.received && world.trusted && (says("RESULT=success") || says("RESULT=ignore"))),
            "namespaces or variables of an answer that admits nobody");
    if (phase == 2) {
        require(world.joins == 0 && libpam.puts == 0, "a logout joins or exports");
        require(code == PAM_SUCCESS || mine, "a logout was refused");
        require(world.child_count == 0, "a logout starts a helper");
        return;
    }
    if (is(enforce, "no"))
        require(code == PAM_IGNORE, "enforce=no decided something");
    if (is(enforce, "adopt"))
        require(code == PAM_IGNORE || code == PAM_SUCCESS, "enforce=adopt refused somebody");
    if ((is(enforce, "no") || is(enforce, "adopt")) && code == PAM_IGNORE)
        return;
    require(code == PAM_SUCCESS || code == PAM_IGNORE || code == PAM_PERM_DENIED || code == PAM_SESSION_ERR,
            "a code that sshd does not expect");
    if (libpam.looked_up && libpam.found_uid == (uid_t)-1)
        require(code == PAM_SESSION_ERR, "an unknown user was let in");
    else if ((code == PAM_SUCCESS || code == PAM_IGNORE) && !mine)
        require(answer_admits(code) || code == code_of_failure(refusal, phase == 1 && libpam.strict_mark != NULL),
                "a login was admitted that nobody has admitted");
}

static void call(unsigned phase)
{
    static int (*const functions[])(pam_handle_t *, int, int, const char **) = {
        pam_sm_acct_mgmt,
        pam_sm_open_session,
        pam_sm_close_session,
    };
    static char handle; /* the libpam of this world has one */
    uint64_t limit_ns;
    int code;

    world.child_count = 0;
    world.received = world.started = false;
    world.joins = world.join_failures = world.sends = world.kernel_calls = 0;
    world.mask_before = world.mask;
    world.pending_before = world.pending;
    world.other_ended = false;
    libpam.looked_up = false;
    libpam.puts = 0;
    libpam.found_uid = (uid_t)-1;
    if (phase > 0 && scene.weak_session)
        scene.count = 0; /* the session line has no options of its own */
    limit_ns = phase == 2 && timeout_ns() > NS_PER_S / 2 ? NS_PER_S / 2 : timeout_ns();
    world.limit_ns = limit_ns; /* from the module's first look at the clock */
    code = functions[phase]((pam_handle_t *)&handle, scene.flags, scene.count, scene.args);
    check_left();
    check_code(code, phase);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(&libpam, 0, sizeof(libpam));
    read_scene(data, size);
    if (setjmp(world.end_of_child) == 0)
        for (unsigned phase = 0; phase < 3; phase++)
            if (scene.calls & 1U << phase)
                call(phase);
    free((void *)(uintptr_t)libpam.auth_mark);
    while (libpam.env_count > 0)
        free(libpam.env[--libpam.env_count]);
    return 0;
}
