/*
 * Copyright (C) nginx-nango authors
 *
 * Preloaded: memory, descriptors or threads that run out when they are told
 * to.  The words of the file named by NANGO_STARVE, eight bytes each, are
 * written and read while nginx runs:
 *
 *     0  how many are granted before one is refused; -1: all are
 *     1  of whose: a process's id, 0: everybody's, -1: those of children
 *     2  how many were refused
 *     3  of what: 0 memory, 1 descriptors, 2 threads
 *     4  1: those after the one that was refused are refused as well
 *     5  from when on: 0 at once, 1 once a file "starve.conf" is opened, 2 once
 *        libcurl is initialised; set to 0 when that has happened
 *     6  blocks of memory that the process of word 1 has, more or less by a
 *        constant
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <unistd.h>


#define MEMORY       0
#define DESCRIPTORS  1
#define THREADS      2

#define NOW          0
#define AT_CONF      1
#define AT_CURL      2


typedef struct {
    atomic_long  countdown;
    atomic_long  whose;
    atomic_long  refused;
    atomic_long  what;
    atomic_long  on;
    atomic_long  from;
    atomic_long  live;
} starve_t;


static starve_t  *starve;
static pid_t      parent;

static void *(*next_malloc)(size_t);
static void *(*next_calloc)(size_t, size_t);
static void *(*next_realloc)(void *, size_t);
static int (*next_posix_memalign)(void **, size_t, size_t);
static void (*next_free)(void *);
static void *(*next_mmap)(void *, size_t, int, int, int, off_t);

/* What dlsym() itself asks for. */
static char    early[65536] __attribute__((aligned(16)));
static size_t  early_used;
static int     resolving;


static void
resolve(void)
{
    resolving = 1;

    *(void **) &next_malloc = dlsym(RTLD_NEXT, "malloc");
    *(void **) &next_calloc = dlsym(RTLD_NEXT, "calloc");
    *(void **) &next_realloc = dlsym(RTLD_NEXT, "realloc");
    *(void **) &next_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    *(void **) &next_free = dlsym(RTLD_NEXT, "free");
    *(void **) &next_mmap = dlsym(RTLD_NEXT, "mmap");

    resolving = 0;
}


static void *
from_early(size_t size)
{
    void  *p;

    size = (size + 15) & ~(size_t) 15;

    if (size > sizeof(early) - early_used) {
        return NULL;
    }

    p = early + early_used;
    early_used += size;

    return p;
}


__attribute__((constructor)) static void
begin(void)
{
    int          fd;
    void        *p;
    const char  *name;

    if (next_malloc == NULL) {
        resolve();
    }

    parent = getpid();
    name = getenv("NANGO_STARVE");

    if (name == NULL) {
        return;
    }

    fd = open(name, O_RDWR|O_CLOEXEC);

    if (fd == -1) {
        abort();
    }

    p = next_mmap(NULL, sizeof(starve_t), PROT_READ|PROT_WRITE, MAP_SHARED,
                  fd, 0);
    (void) close(fd);

    if (p == MAP_FAILED) {
        abort();
    }

    starve = p;
}


static int
ours(void)
{
    long  whose;

    if (starve == NULL) {
        return 0;
    }

    whose = atomic_load(&starve->whose);

    return whose == 0 || (whose == -1 ? getpid() != parent
                                      : getpid() == whose);
}


static int
refused(long what)
{
    long  n;

    if (starve == NULL || atomic_load(&starve->countdown) < 0
        || atomic_load(&starve->what) != what
        || atomic_load(&starve->from) != NOW
        || !ours())
    {
        return 0;
    }

    n = atomic_load(&starve->countdown);

    while (n >= 0) {

        if (n == 0 && atomic_load(&starve->on)) {
            atomic_fetch_add(&starve->refused, 1);
            return 1;
        }

        if (atomic_compare_exchange_weak(&starve->countdown, &n, n - 1)) {

            if (n == 0) {
                atomic_fetch_add(&starve->refused, 1);
            }

            return n == 0;
        }
    }

    return 0;
}


static void
reached(long when)
{
    if (starve != NULL && ours()) {
        (void) atomic_compare_exchange_strong(&starve->from, &when, NOW);
    }
}


static void
count(long n)
{
    if (starve != NULL && ours()) {
        atomic_fetch_add(&starve->live, n);
    }
}


void *
malloc(size_t size)
{
    void  *p;

    if (next_malloc == NULL) {

        if (resolving) {
            return from_early(size);
        }

        resolve();
    }

    if (refused(MEMORY)) {
        errno = ENOMEM;
        return NULL;
    }

    p = next_malloc(size);
    count(p != NULL);

    return p;
}


void *
calloc(size_t n, size_t size)
{
    void  *p;

    if (next_calloc == NULL) {

        if (resolving) {
            return from_early(n * size);
        }

        resolve();
    }

    if (refused(MEMORY)) {
        errno = ENOMEM;
        return NULL;
    }

    p = next_calloc(n, size);
    count(p != NULL);

    return p;
}


void *
realloc(void *p, size_t size)
{
    void  *longer;

    if (next_realloc == NULL) {
        resolve();
    }

    if (refused(MEMORY)) {
        errno = ENOMEM;
        return NULL;
    }

    longer = next_realloc(p, size);
    count(p == NULL && longer != NULL);

    return longer;
}


int
posix_memalign(void **p, size_t align, size_t size)
{
    int  rc;

    if (next_posix_memalign == NULL) {
        resolve();
    }

    if (refused(MEMORY)) {
        return ENOMEM;
    }

    rc = next_posix_memalign(p, align, size);
    count(rc == 0);

    return rc;
}


void
free(void *p)
{
    if (p == NULL
        || ((char *) p >= early && (char *) p < early + sizeof(early)))
    {
        return;
    }

    if (next_free == NULL) {
        resolve();
    }

    count(-1);
    next_free(p);
}


/* Of files. */

void *
mmap(void *address, size_t len, int prot, int flags, int fd, off_t offset)
{
    if (next_mmap == NULL) {
        resolve();
    }

    if (fd != -1 && refused(MEMORY)) {
        errno = ENOMEM;
        return MAP_FAILED;
    }

    return next_mmap(address, len, prot, flags, fd, offset);
}


static int
no_descriptor(void)
{
    if (refused(DESCRIPTORS)) {
        errno = EMFILE;
        return 1;
    }

    return 0;
}


#define OPENS(name, params, call)                                             \
    int                                                                       \
    name params                                                               \
    {                                                                         \
        int      mode;                                                        \
        va_list  args;                                                        \
                                                                              \
        static int (*next) params;                                            \
                                                                              \
        if (next == NULL) {                                                   \
            *(void **) &next = dlsym(RTLD_NEXT, #name);                       \
        }                                                                     \
                                                                              \
        va_start(args, flags);                                                \
        mode = (flags & (O_CREAT|O_TMPFILE)) ? va_arg(args, int) : 0;         \
        va_end(args);                                                         \
                                                                              \
        if (strstr(path, "starve.conf") != NULL) {                             \
            reached(AT_CONF);                                                 \
        }                                                                     \
                                                                              \
        return no_descriptor() ? -1 : next call;                              \
    }

OPENS(open, (const char *path, int flags, ...), (path, flags, mode))
OPENS(open64, (const char *path, int flags, ...), (path, flags, mode))
OPENS(openat, (int at, const char *path, int flags, ...),
      (at, path, flags, mode))
OPENS(openat64, (int at, const char *path, int flags, ...),
      (at, path, flags, mode))


#define MAKES(name, params, call)                                             \
    int                                                                       \
    name params                                                               \
    {                                                                         \
        static int (*next) params;                                            \
                                                                              \
        if (next == NULL) {                                                   \
            *(void **) &next = dlsym(RTLD_NEXT, #name);                       \
        }                                                                     \
                                                                              \
        return no_descriptor() ? -1 : next call;                              \
    }

MAKES(socket, (int domain, int type, int protocol), (domain, type, protocol))
MAKES(eventfd, (unsigned n, int flags), (n, flags))
MAKES(pipe, (int fds[2]), (fds))
MAKES(socketpair, (int domain, int type, int protocol, int fds[2]),
      (domain, type, protocol, fds))


int
pthread_create(pthread_t *thread, const pthread_attr_t *attr,
    void *(*start)(void *), void *data)
{
    static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *),
                       void *);

    if (next == NULL) {
        *(void **) &next = dlsym(RTLD_NEXT, "pthread_create");
    }

    return refused(THREADS) ? EAGAIN : next(thread, attr, start, data);
}


int
curl_global_init(long flags)
{
    static int (*next)(long);

    if (next == NULL) {
        *(void **) &next = dlsym(RTLD_NEXT, "curl_global_init");
    }

    reached(AT_CURL);

    return next(flags);
}
