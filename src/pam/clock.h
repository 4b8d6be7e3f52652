/* SPDX-License-Identifier: Apache-2.0 */
#ifndef SA_CLOCK_H
#define SA_CLOCK_H

#include <stdint.h>

#define SA_NS_PER_S UINT64_C(1000000000)

/* CLOCK_MONOTONIC in nanoseconds, as all points in time of this module. */
uint64_t sa_clock_now_ns(void);

#endif
