/*
 * Copyright (C) nginx-nango authors
 *
 * Memory that fails when it is told to, and counts what is left behind, and
 * system calls that do: these functions come before libc's for the program that
 * includes this file and for all libraries that it uses.  They hand on to
 * whatever comes next, which is AddressSanitizer under BUILD=sanitize.
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
#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>


/* They are called before a sanitizer knows what it needs to know of them. */

#define MEMORY_EARLY                                                          \
    __attribute__((no_sanitize("address"), no_sanitize("thread"),             \
                   no_sanitize("undefined")))


/*
 * A sanitizer has strings copied without malloc(), looks for what is left by
 * itself, and needs memory where a thread begins.
 */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define MEMORY_SANITIZED  1
#else
#define MEMORY_SANITIZED  0
#endif


/* How many more are granted before one is not; -1: all are. */
static atomic_long  memory_countdown = -1;

/* Of what: allocations, or system calls, which then say EIO. */
static int          memory_calls;

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


MEMORY_EARLY static void
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


MEMORY_EARLY static void *
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


MEMORY_EARLY static int
memory_is_early(const void *p)
{
    return (const char *) p >= memory_early
           && (const char *) p < memory_early + sizeof(memory_early);
}


/* One fails, and those after it do not. */

MEMORY_EARLY static int
memory_refused_of(int calls)
{
    long  n;

    if (calls != memory_calls
        || (MEMORY_SANITIZED && syscall(SYS_gettid) != getpid()))
    {
        return 0;
    }

    n = atomic_load(&memory_countdown);

    while (n >= 0) {
        if (atomic_compare_exchange_weak(&memory_countdown, &n, n - 1)) {
            return n == 0;
        }
    }

    return 0;
}


MEMORY_EARLY static int
memory_refused(void)
{
    return memory_refused_of(0);
}


MEMORY_EARLY static void *
memory_counted(void *p)
{
    if (p != NULL) {
        atomic_fetch_add(&memory_live, 1);
    }

    return p;
}


MEMORY_EARLY void *
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


MEMORY_EARLY void *
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


MEMORY_EARLY void *
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


MEMORY_EARLY int
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


MEMORY_EARLY void
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

MEMORY_EARLY void *
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


MEMORY_EARLY int
munmap(void *address, size_t len)
{
    static int (*next)(void *, size_t);

    if (next == NULL) {
        *(void **) &next = dlsym(RTLD_NEXT, "munmap");
    }

    atomic_fetch_sub(&memory_live, 1);

    return next(address, len);
}


#define MEMORY_CALL(type, name, params, args)                                 \
    MEMORY_EARLY type                                                         \
    name params                                                               \
    {                                                                         \
        static type (*next) params;                                           \
                                                                              \
        if (next == NULL) {                                                   \
            *(void **) &next = dlsym(RTLD_NEXT, #name);                       \
        }                                                                     \
                                                                              \
        if (memory_refused_of(1)) {                                           \
            errno = EIO;                                                      \
            return -1;                                                        \
        }                                                                     \
                                                                              \
        return next args;                                                     \
    }

/* What comes behind the flags is a word, whatever it is. */

#define MEMORY_CALL_MORE(name, params, args)                                  \
    MEMORY_EARLY int                                                          \
    name params                                                               \
    {                                                                         \
        void     *more;                                                       \
        va_list   list;                                                       \
                                                                              \
        static int (*next) params;                                            \
                                                                              \
        if (next == NULL) {                                                   \
            *(void **) &next = dlsym(RTLD_NEXT, #name);                       \
        }                                                                     \
                                                                              \
        if (memory_refused_of(1)) {                                           \
            errno = EIO;                                                      \
            return -1;                                                        \
        }                                                                     \
                                                                              \
        va_start(list, flags);                                                \
        more = va_arg(list, void *);                                          \
        va_end(list);                                                         \
                                                                              \
        return next args;                                                     \
    }

MEMORY_CALL_MORE(open, (const char *path, int flags, ...),
                 (path, flags, more))
MEMORY_CALL_MORE(openat, (int at, const char *path, int flags, ...),
                 (at, path, flags, more))
MEMORY_CALL_MORE(fcntl, (int fd, int flags, ...), (fd, flags, more))
MEMORY_CALL(int, mkdirat, (int at, const char *path, mode_t mode),
            (at, path, mode))
MEMORY_CALL(int, renameat, (int a, const char *from, int b, const char *to),
            (a, from, b, to))
MEMORY_CALL(int, fstat, (int fd, struct stat *sb), (fd, sb))
MEMORY_CALL(int, stat, (const char *path, struct stat *sb), (path, sb))
MEMORY_CALL(int, flock, (int fd, int operation), (fd, operation))
MEMORY_CALL(int, ftruncate, (int fd, off_t len), (fd, len))
MEMORY_CALL(ssize_t, getrandom, (void *p, size_t len, unsigned flags),
            (p, len, flags))
MEMORY_CALL(ssize_t, write, (int fd, const void *p, size_t len), (fd, p, len))
MEMORY_CALL(ssize_t, pread, (int fd, void *p, size_t len, off_t offset),
            (fd, p, len, offset))
MEMORY_CALL(ssize_t, pwrite, (int fd, const void *p, size_t len, off_t offset),
            (fd, p, len, offset))
MEMORY_CALL(ssize_t, writev, (int fd, const struct iovec *v, int n),
            (fd, v, n))


/* The disk is not waited for. */

MEMORY_EARLY int
fsync(int fd)
{
    if (memory_refused_of(1)) {
        errno = EIO;
        return -1;
    }

    return 0;
}


MEMORY_EARLY int
fdatasync(int fd)
{
    return fsync(fd);
}


/* valgrind puts its own in the place of a program's malloc(), too. */

static inline int
memory_skipped(void)
{
    void  *volatile p;

    atomic_store(&memory_countdown, 0);
    p = malloc(1);
    atomic_store(&memory_countdown, -1);

    if (p == NULL) {
        return 0;
    }

    free(p);
    print_message("skipped: this malloc() is somebody else's\n");

    return 1;
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

        if (memory_descriptors() != fds && !test->may_keep) {
            print_error("number %ld: a descriptor is left open\n", i);
            fail();
        }

        if (good && failed && !test->may_do_without) {
            print_error("number %ld failed, and nobody said so\n", i);
            fail();
        }

        if (left != 0 && !test->may_keep && !MEMORY_SANITIZED) {
            print_error("number %ld: %ld blocks are left\n", i, left);
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
