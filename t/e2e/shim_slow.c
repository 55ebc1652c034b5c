/*
 * Copyright (C) nginx-nango authors
 *
 * For LD_PRELOAD: the wall's clock takes a millisecond to be read, so that
 * what is done between two looks at it takes long enough for others.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <time.h>


int
clock_gettime(clockid_t id, struct timespec *ts)
{
    static int (*real)(clockid_t id, struct timespec *ts);

    struct timespec  pause = { 0, 1000000 };

    if (real == NULL) {
        *(void **) &real = dlsym(RTLD_NEXT, "clock_gettime");
    }

    if (id == CLOCK_REALTIME) {
        (void) nanosleep(&pause, NULL);
    }

    return real(id, ts);
}
