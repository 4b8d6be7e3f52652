/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reply packet: bytes in, struct sa_reply or "malformed" out.
 *
 * Rules of this file:
 * 1. Pure: no PAM, no sockets, no allocation, no clock, no logging; fuzzed by fuzz/reply_fuzz.c.
 * 2. The whole packet is checked before anything of it is believed; one fault makes all of it malformed.
 * 3. Unknown keys are passed over (a newer peer), unknown values of known keys are not (they might be a refusal).
 */
#include "reply.h"

#include <string.h>

static const char *const result_names[] = {"success", "ignore", "perm_denied", "session_err", "retry", NULL};
static const char *const level_names[] = {"err", "warning", "notice", "info", "debug", NULL};
static const char *const join_names[] = {"user", "pid", "mount", "ipc", "uts", "net", "cgroup", NULL};

struct field {
    const char *key; /* not terminated */
    size_t key_len;
    const char *value; /* terminated by the packet's own NUL */
};

const char *sa_reply_join_name(enum sa_join kind)
{
    return join_names[kind];
}

/* The index of text in names, which fits the enum of that table; -1 (.._INVALID) if it is not there. */
static int index_of(const char *const *names, const char *text)
{
    for (int i = 0; names[i]; i++)
        if (strcmp(names[i], text) == 0)
            return i;
    return -1;
}

static bool key_is_valid(const char *key, size_t key_len)
{
    if (key_len < 1 || key_len > SA_KEY_MAX || key[0] < 'A' || key[0] > 'Z')
        return false;
    for (size_t i = 1; i < key_len; i++)
        if (!((key[i] >= 'A' && key[i] <= 'Z') || (key[i] >= '0' && key[i] <= '9') || key[i] == '_'))
            return false;
    return true;
}

static bool key_is(const struct field *field, const char *name)
{
    return field->key_len == strlen(name) && memcmp(field->key, name, field->key_len) == 0;
}

/*
 * Is the key the family's name and digits? Then *ret_index is the number, or SA_FIELDS_MAX if it is not canonical
 * (leading zero) or so big that there must be a gap before it.
 */
static bool key_in_family(const struct field *field, const char *family, size_t *ret_index)
{
    size_t at = strlen(family), index = 0;

    if (field->key_len <= at || memcmp(field->key, family, at) != 0)
        return false;
    for (size_t i = at; i < field->key_len; i++)
        if (field->key[i] < '0' || field->key[i] > '9')
            return false;
    if (field->key_len - at > 2 || (field->key[at] == '0' && field->key_len - at > 1))
        index = SA_FIELDS_MAX;
    else
        for (; at < field->key_len; at++)
            index = index * 10 + (size_t)(field->key[at] - '0');
    *ret_index = index;
    return true;
}

/* Splits the packet into fields; the number of them, or 0 if it is malformed. */
static size_t split(const char *packet, size_t packet_len, struct field *fields)
{
    size_t count = 0;

    if (packet_len < 1 || packet_len > SA_PACKET_MAX || packet[packet_len - 1] != '\0')
        return 0;
    for (size_t at = 0; at < packet_len; at += strlen(packet + at) + 1) {
        const char *equals = strchr(packet + at, '=');
        struct field field;

        if (count == SA_FIELDS_MAX || !equals)
            return 0;
        field = (struct field){packet + at, (size_t)(equals - (packet + at)), equals + 1};
        if (!key_is_valid(field.key, field.key_len))
            return 0;
        for (size_t i = 0; i < count; i++)
            if (fields[i].key_len == field.key_len && memcmp(fields[i].key, field.key, field.key_len) == 0)
                return 0;
        fields[count++] = field;
    }
    return key_is(&fields[0], "V") && strcmp(fields[0].value, "1") == 0 ? count : 0;
}

/* [a-z0-9-], because it goes into the log as it is */
static bool reason_is_valid(const char *text)
{
    size_t len = strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-");

    return len > 0 && len <= SA_REASON_MAX && text[len] == '\0';
}

/* One field into the reply; false if its value is not what the exchange allows. */
static bool take(const struct field *field, struct sa_reply *reply)
{
    size_t index;

    if (key_is(field, "RESULT"))
        return (reply->result = (enum sa_result)index_of(result_names, field->value)) != SA_RESULT_INVALID;
    if (key_is(field, "LEVEL"))
        return (reply->level = (enum sa_level)index_of(level_names, field->value)) != SA_LEVEL_INVALID;
    if (key_is(field, "JOIN_FAILED")) {
        reply->join_failed = (enum sa_result)index_of(result_names, field->value);
        return reply->join_failed != SA_RESULT_INVALID && reply->join_failed != SA_RESULT_RETRY;
    }
    if (key_is(field, "REASON")) {
        reply->reason = field->value;
        return reason_is_valid(field->value);
    }
    if (key_is(field, "HOLD"))
        return (reply->hold = strcmp(field->value, "1") == 0);
    if (key_is(field, "LEAVE"))
        return (reply->leave = strcmp(field->value, "1") == 0);
    if (key_is(field, "LOG"))
        reply->log = field->value;
    else if (key_is(field, "ERROR"))
        reply->error = field->value;
    else if (key_is(field, "INFO"))
        reply->info = field->value;
    else if (key_is(field, "JOIN_ERROR"))
        reply->join_error = field->value;
    else if (key_in_family(field, "ENV", &index)) {
        if (index >= SA_FIELDS_MAX || field->value[0] == '=' || !strchr(field->value, '='))
            return false;
        reply->env[index] = field->value;
        reply->env_count++;
    } else if (key_in_family(field, "UNSET", &index)) {
        if (index >= SA_FIELDS_MAX || field->value[0] == '\0' || strchr(field->value, '='))
            return false;
        reply->unset[index] = field->value;
        reply->unset_count++;
    } else if (key_in_family(field, "JOIN", &index)) {
        if (index >= SA_JOIN_MAX)
            return false;
        reply->join_count++;
        return (reply->join[index] = (enum sa_join)index_of(join_names, field->value)) != SA_JOIN_INVALID;
    }
    return true;
}

bool sa_reply_parse(const char *packet, size_t packet_len, size_t fd_count, struct sa_reply *ret_reply)
{
    struct field fields[SA_FIELDS_MAX];
    size_t field_count = split(packet, packet_len, fields);
    struct sa_reply reply = {
        .result = SA_RESULT_INVALID,
        .level = SA_LEVEL_INFO,
        .join_failed = SA_RESULT_INVALID,
    };

    for (size_t i = 0; i < SA_JOIN_MAX; i++)
        reply.join[i] = SA_JOIN_INVALID;
    if (field_count == 0)
        return false;
    for (size_t i = 0; i < field_count; i++)
        if (!take(&fields[i], &reply))
            return false;
    if (reply.result == SA_RESULT_INVALID || !reply.reason || reply.join_count != fd_count)
        return false;
    /* As keys come once, as many as the count with none missing below it means that there is no gap. */
    for (size_t i = 0; i < reply.env_count; i++)
        if (!reply.env[i])
            return false;
    for (size_t i = 0; i < reply.unset_count; i++)
        if (!reply.unset[i])
            return false;
    for (size_t i = 0; i < reply.join_count; i++)
        if (reply.join[i] == SA_JOIN_INVALID)
            return false;
    if (reply.join_count > 0 && reply.join_failed == SA_RESULT_INVALID)
        return false;
    *ret_reply = reply;
    return true;
}
