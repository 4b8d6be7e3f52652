/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The invariant: any bytes are either refused, the reply untouched, or give a reply whose every count is in bounds and
 * whose every string lies in the packet, ends in it, and is as the exchange allows.
 *
 * The first byte says how many descriptors came with the packet. With clang:
 *   clang -g -O1 -fsanitize=fuzzer,address,undefined -Isrc/pam fuzz/reply_fuzz.c src/pam/reply.c -o reply_fuzz
 *   ./reply_fuzz tests/corpus/reply
 * tests/module/test_reply_corpus.py runs the same function without clang.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool truth)
{
    if (!truth)
        abort();
}

static void require_inside(const char *text, const char *packet, size_t packet_len)
{
    if (text)
        require(text > packet && text < packet + packet_len && memchr(text, 0, (size_t)(packet + packet_len - text)));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sa_reply reply, untouched;
    size_t packet_len = size > 0 ? size - 1 : 0;
    char *packet;

    if (size == 0 || !(packet = malloc(packet_len ? packet_len : 1)))
        return 0;
    memcpy(packet, data + 1, packet_len); /* a block of just this size: a step beyond it is seen */
    memset(&untouched, 0x5a, sizeof(untouched));
    reply = untouched;
    if (!sa_reply_parse(packet, packet_len, data[0] & 0xf, &reply)) {
        require(memcmp(&reply, &untouched, sizeof(reply)) == 0);
        free(packet);
        return 0;
    }
    require(packet_len <= SA_PACKET_MAX && memcmp(packet, "V=1", 4) == 0);
    require(reply.result >= SA_RESULT_SUCCESS && reply.result <= SA_RESULT_RETRY);
    require(reply.level >= SA_LEVEL_ERR && reply.level <= SA_LEVEL_DEBUG);
    require(reply.reason && *reply.reason && strlen(reply.reason) <= SA_REASON_MAX);
    require_inside(reply.reason, packet, packet_len);
    require_inside(reply.log, packet, packet_len);
    require_inside(reply.error, packet, packet_len);
    require_inside(reply.info, packet, packet_len);
    require_inside(reply.join_error, packet, packet_len);
    require(reply.env_count < SA_FIELDS_MAX);
    for (size_t i = 0; i < reply.env_count; i++) {
        require_inside(reply.env[i], packet, packet_len);
        require(reply.env[i] && reply.env[i][0] != '=' && strchr(reply.env[i], '='));
    }
    require(reply.join_count <= SA_JOIN_MAX && reply.join_count == (data[0] & 0xf));
    for (size_t i = 0; i < reply.join_count; i++)
        require(reply.join[i] >= SA_JOIN_USER && reply.join[i] <= SA_JOIN_CGROUP && sa_reply_join_name(reply.join[i]));
    if (reply.join_count > 0)
        require(reply.join_failed >= SA_RESULT_SUCCESS && reply.join_failed < SA_RESULT_RETRY);
    free(packet);
    return 0;
}
