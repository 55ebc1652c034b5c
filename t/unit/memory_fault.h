/*
 * Copyright (C) nginx-nango authors
 *
 * Memory that fails when it is told to, and counts what is left behind: these
 * functions come before libc's for the program that includes this file and for
 * all libraries that it uses.  They hand on to whatever comes next, which is
 * AddressSanitizer under BUILD=sanitize.
 */

#ifndef _MEMORY_FAULT_H_INCLUDED_
#define _MEMORY_FAULT_H_INCLUDED_


#ifndef _GNU_SOURCE
#define _GNU_SOURCE     /* RTLD_NEXT */
#endif

#include "core_test.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>


/* How many more allocations are granted before one is not; -1: all are. */
static atomic_long  memory_countdown = -1;

/* Blocks, maps and directories that are there. */
static atomic_long  memory_live;


static void *(*memory_malloc)(size_t size);
static void *(*memory_calloc)(size_t n, size_t size);
static void *(*memory_realloc)(void *p, size_t size);
static int (*memory_posix_memalign)(void **p, size_t align, size_t size);
static void (*memory_free)(void *p);

/* What dlsym() itself asks for is given from here, and never freed. */
static char    memory_early[65536] __attribute__((aligned(16)));
static size_t  memory_early_used;
static int     memory_resolving;


static void
memory_resolve(void)
{
    memory_resolving = 1;

    *(void **) &memory_malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **) &memory_calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **) &memory_realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **) &memory_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    *(void **) &memory_free = dlsym(RTLD_NEXT, "free");

    memory_resolving = 0;
}


static void *
memory_from_early(size_t size)
{
    void  *p;

    size = (size + 15) & ~(size_t) 15;

    if (size > sizeof(memory_early) - memory_early_used) {
        return NULL;
    }

    p = memory_early + memory_early_used;
    memory_early_used += size;

    return p;
}


static int
memory_is_early(const void *p)
{
    return (const char *) p >= memory_early
           && (const char *) p < memory_early + sizeof(memory_early);
}


/* One allocation fails, and those after it do not. */

static int
memory_refused(void)
{
    long  n;

    n = atomic_load(&memory_countdown);

    while (n >= 0) {
        if (atomic_compare_exchange_weak(&memory_countdown, &n, n - 1)) {
            return n == 0;
        }
    }

    return 0;
}


static void *
memory_counted(void *p)
{
    if (p != NULL) {
        atomic_fetch_add(&memory_live, 1);
    }

    return p;
}


void *
malloc(size_t size)
{
    if (memory_malloc == NULL) {

        if (memory_resolving) {
            return memory_from_early(size);
        }

        memory_resolve();
    }

    if (memory_refused()) {
        errno = ENOMEM;
        return NULL;
    }

    return memory_counted(memory_malloc(size));
}


void *
calloc(size_t n, size_t size)
{
    if (memory_calloc == NULL) {

        if (memory_resolving) {
            return memory_from_early(n * size);
        }

        memory_resolve();
    }

    if (memory_refused()) {
        errno = ENOMEM;
        return NULL;
    }

    return memory_counted(memory_calloc(n, size));
}


void *
realloc(void *p, size_t size)
{
    void  *longer;

    if (memory_realloc == NULL) {
        memory_resolve();
    }

    if (memory_refused()) {
        errno = ENOMEM;
        return NULL;
    }

    longer = memory_realloc(p, size);

    return (p == NULL) ? memory_counted(longer) : longer;
}


int
posix_memalign(void **p, size_t align, size_t size)
{
    int  rc;

    if (memory_posix_memalign == NULL) {
        memory_resolve();
    }

    if (memory_refused()) {
        return ENOMEM;
    }

    rc = memory_posix_memalign(p, align, size);

    if (rc == 0) {
        atomic_fetch_add(&memory_live, 1);
    }

    return rc;
}


void
free(void *p)
{
    if (p == NULL || memory_is_early(p)) {
        return;
    }

    atomic_fetch_sub(&memory_live, 1);

    if (memory_free == NULL) {
        memory_resolve();
    }

    memory_free(p);
}


/* Of a database; libc's own maps are not made by this. */

void *
mmap(void *address, size_t len, int prot, int flags, int fd, off_t offset)
{
    void  *p;

    static void *(*next)(void *, size_t, int, int, int, off_t);

    if (next == NULL) {
        *(void **) &next = dlsym(RTLD_NEXT, "mmap");
    }

    if (fd != -1 && memory_refused()) {
        errno = ENOMEM;
        return MAP_FAILED;
    }

    p = next(address, len, prot, flags, fd, offset);

    if (p != MAP_FAILED && fd != -1) {
        atomic_fetch_add(&memory_live, 1);
    }

    return p;
}


int
munmap(void *address, size_t len)
{
    static int (*next)(void *, size_t);

    if (next == NULL) {
        *(void **) &next = dlsym(RTLD_NEXT, "munmap");
    }

    atomic_fetch_sub(&memory_live, 1);

    return next(address, len);
}


static inline int
memory_descriptors(void)
{
    int   n;
    DIR  *dir;

    dir = opendir("/proc/self/fd");
    assert_non_null(dir);

    for (n = 0; readdir(dir) != NULL; n++) { /* void */ }

    closedir(dir);

    return n;
}


/*
 * What f needs is there before the first allocation fails, and what it has
 * made is looked at afterwards, when none does.
 */

typedef struct {
    void                (*before)(void *data);
    int                 (*run)(void *data);      /* 1: good; 0: an error */
    void                (*after)(void *data, int good);
    void                 *data;
    int                   may_do_without;
    int                   may_keep;
} memory_test_t;


/*
 * Runs it with the first allocation failing, then the second, and so on, until
 * none did.  Returns how many failed.  may_keep: what is left behind is looked
 * at by whoever knows what is kept.
 */

static inline long
memory_fail_each(const memory_test_t *test)
{
    int   good, failed, fds;
    long  i, live, left;

    for (i = 0; i < 10000; i++) {

        if (test->before) {
            test->before(test->data);
        }

        fds = memory_descriptors();
        live = atomic_load(&memory_live);

        atomic_store(&memory_countdown, i);
        good = test->run(test->data);
        failed = (atomic_exchange(&memory_countdown, -1) < 0);

        left = atomic_load(&memory_live) - live;

        if (test->after) {
            test->after(test->data, good);
        }

        if (memory_descriptors() != fds && !(good && test->may_keep)) {
            print_error("allocation %ld: a descriptor is left open\n", i);
            fail();
        }

        if (good && failed && !test->may_do_without) {
            print_error("allocation %ld failed, and nobody said so\n", i);
            fail();
        }

        if (left != 0 && !test->may_keep) {
            print_error("allocation %ld: %ld blocks are left\n", i, left);
            fail();
        }

        if (!failed) {
            assert_true(good);
            return i;
        }
    }

    fail();

    return -1;
}


#endif /* _MEMORY_FAULT_H_INCLUDED_ */
