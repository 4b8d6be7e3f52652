/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A target without libFuzzer: `TARGET RUNS SEED FILE...` runs each file, and then RUNS changed ones. The same numbers
 * give the same runs.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SIZE_CAP 16384
#define FILES_CAP 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct sample {
    uint8_t data[SIZE_CAP];
    size_t size;
};

static struct sample samples[FILES_CAP], work;
static size_t sample_count;
static uint64_t state;

static size_t below(size_t limit)
{
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (size_t)(state % limit);
}

static void mutate(struct sample *sample)
{
    const struct sample *other = &samples[below(sample_count)];
    size_t at = below(sample->size), len;

    switch (below(6)) {
    case 0: sample->data[at] ^= (uint8_t)(1U << below(8)); break;
    case 1: sample->data[at] = (uint8_t)below(256); break;
    case 2: sample->data[at] = (uint8_t)below(4); break;
    case 3: sample->size = at + 1; break;
    case 4: /* a byte more */
        if (sample->size < SIZE_CAP) {
            memmove(sample->data + at + 1, sample->data + at, sample->size - at);
            sample->size++;
        }
        break;
    default: /* the rest of another one */
        len = below(other->size);
        if (at + len <= SIZE_CAP && at + len > 0) {
            memcpy(sample->data + at, other->data + other->size - len, len);
            sample->size = at + len;
        }
    }
}

int main(int argc, char **argv)
{
    long runs = argc > 2 ? atol(argv[1]) : 0;

    state = argc > 2 ? strtoull(argv[2], NULL, 10) | 1 : 1;
    for (int i = 3; i < argc && sample_count < FILES_CAP; i++) {
        struct sample *sample = &samples[sample_count];
        FILE *file = fopen(argv[i], "rb");

        if (!file)
            return 2;
        sample->size = fread(sample->data, 1, SIZE_CAP, file);
        fclose(file);
        LLVMFuzzerTestOneInput(sample->data, sample->size);
        sample_count += sample->size > 0;
    }
    for (long n = 0; n < runs && sample_count > 0; n++) {
        work = samples[below(sample_count)];
        for (size_t rounds = 1 + below(6); rounds > 0; rounds--)
            mutate(&work);
        LLVMFuzzerTestOneInput(work.data, work.size);
    }
    fprintf(stderr, "Done %ld runs\n", runs + (long)sample_count);
    return 0;
}
