/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Runs the fuzz target without a fuzzer: `reply_runner MUTATIONS FILE...` tells of each file whether it is a good
 * reply, runs each cut after every byte, and then MUTATIONS changed ones. The same numbers in every run.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "reply.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sample {
    uint8_t data[8192];
    size_t size;
};

static struct sample samples[256];
static size_t sample_count;
static uint64_t state = 1;

static size_t below(size_t limit)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (size_t)(state % limit);
}

static void mutate(struct sample *sample)
{
    static const char *const words[] = {"=",        "V=1",   "RESULT=success", "JOIN0=mount",
                                        "ENV0=A=1", "ENV1=", "JOIN_FAILED="};
    size_t at = below(sample->size), len;
    const struct sample *other = &samples[below(sample_count)];
    const char *word = words[below(7)];

    switch (below(6)) {
    case 0: sample->data[at] ^= (uint8_t)(1U << below(8)); break;
    case 1: sample->data[at] = (uint8_t)below(256); break;
    case 2: sample->data[at] = 0; break;
    case 3: sample->size = at + 1; break;
    case 4: /* the rest of another one */
        len = below(other->size);
        if (at + len <= sizeof(sample->data)) {
            memcpy(sample->data + at, other->data + other->size - len, len);
            sample->size = at + len > 0 ? at + len : 1;
        }
        break;
    default: /* one more field */
        len = strlen(word) + 1;
        if (sample->size + len <= sizeof(sample->data)) {
            memcpy(sample->data + sample->size, word, len);
            sample->size += len;
        }
    }
}

int main(int argc, char **argv)
{
    static struct sample work;
    struct sa_reply reply;

    for (int i = 2; i < argc && sample_count < 256; i++) {
        struct sample *sample = &samples[sample_count++];
        FILE *file = fopen(argv[i], "rb");

        if (!file || (sample->size = fread(sample->data, 1, sizeof(sample->data), file)) == 0)
            return 2;
        fclose(file);
        printf("%s\t%s\n", argv[i],
               sa_reply_parse((const char *)sample->data + 1, sample->size - 1, sample->data[0], &reply) ? "good"
                                                                                                         : "bad");
        for (size_t cut = 0; cut <= sample->size; cut++)
            LLVMFuzzerTestOneInput(sample->data, cut);
    }
    for (long n = atol(argv[1]); n > 0; n--) {
        work = samples[below(sample_count)];
        for (size_t rounds = 1 + below(4); rounds > 0; rounds--)
            mutate(&work);
        LLVMFuzzerTestOneInput(work.data, work.size);
    }
    return 0;
}
