/*
 * Copyright (C) nginx-nango authors
 *
 * Clocks that any thread may read.  nginx's cached time belongs to the event
 * loop and stands still while a thread works.
 */

#include "ngx_nango.h"

#include <time.h>


uint64_t
ngx_nango_now(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_REALTIME, &ts);

    return (uint64_t) ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}


uint64_t
ngx_nango_ticks(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}
