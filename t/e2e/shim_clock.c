/*
 * Copyright (C) nginx-nango authors
 *
 * For LD_PRELOAD: clocks that somebody else may put forward.  NANGO_CLOCK
 * names a file of 8 bytes, which hold milliseconds as a number of this
 * machine; all clocks are so much ahead.  Whoever sleeps does so by the real
 * one.  With NANGO_CLOCK_WALL it is the wall's clock alone, which in reality
 * too is put right at times.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>


static const volatile int64_t  *ahead;

static int  wall;

static int (*real_clock)(clockid_t id, struct timespec *ts);


static void __attribute__((constructor))
begin(void)
{
    int          fd;
    void        *p;
    const char  *path;

    *(void **) &real_clock = dlsym(RTLD_NEXT, "clock_gettime");

    path = getenv("NANGO_CLOCK");
    wall = (getenv("NANGO_CLOCK_WALL") != NULL);

    if (path == NULL) {
        return;
    }

    fd = open(path, O_RDONLY|O_CLOEXEC);

    if (fd == -1) {
        return;
    }

    p = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, fd, 0);

    if (p != MAP_FAILED) {
        ahead = p;
    }

    (void) close(fd);
}


int
clock_gettime(clockid_t id, struct timespec *ts)
{
    int      rc;
    int64_t  ms;

    if (real_clock == NULL) {
        *(void **) &real_clock = dlsym(RTLD_NEXT, "clock_gettime");
    }

    rc = real_clock(id, ts);

    if (rc != 0 || ahead == NULL || id == CLOCK_PROCESS_CPUTIME_ID
        || id == CLOCK_THREAD_CPUTIME_ID
        || (wall && id != CLOCK_REALTIME && id != CLOCK_REALTIME_COARSE))
    {
        return rc;
    }

    ms = *ahead;

    ts->tv_sec += ms / 1000;
    ts->tv_nsec += (ms % 1000) * 1000000;

    if (ts->tv_nsec >= 1000000000) {
        ts->tv_nsec -= 1000000000;
        ts->tv_sec++;
    }

    return 0;
}


int
gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    struct timespec  ts;

    (void) tz;
    (void) clock_gettime(CLOCK_REALTIME, &ts);

    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;

    return 0;
}


time_t
time(time_t *t)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_REALTIME, &ts);

    if (t != NULL) {
        *t = ts.tv_sec;
    }

    return ts.tv_sec;
}
