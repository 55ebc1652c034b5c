/*
 * Copyright (C) nginx-nango authors
 *
 * For LD_PRELOAD: a disk that fails when it is told to.  NANGO_DISK names a
 * file of 4096 bytes, which holds one rule a line:
 *
 *     WHAT PATH ERRNO
 *
 * As long as it is there, WHAT fails with that number for files whose path
 * holds PATH:
 *
 *     write     write(), writev(), ftruncate(), and pwrite() beyond the first
 *               two pages: a full disk still overwrites
 *     meta      pwrite() to what is open with O_DSYNC; it reaches the cache
 *     sync      fsync(), fdatasync()
 *     read      pread()
 *     open      open() that makes a file
 *     rename    renameat()
 *     bus       reading a memory map, all but its first two pages: SIGBUS
 *     size      with bytes instead of an errno: LMDB's maps are not larger
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>


#define MAPS  8


typedef struct {
    char   *addr;
    size_t  len;
    char    path[PATH_MAX];
} map_t;


static const volatile char  *rules;

static pthread_mutex_t  mutex = PTHREAD_MUTEX_INITIALIZER;
static map_t            maps[MAPS];
static pid_t            watched;


static void *
next_of(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}


__attribute__((constructor)) static void
begin(void)
{
    int          fd;
    void        *p;
    const char  *name;

    name = getenv("NANGO_DISK");

    if (name == NULL) {
        return;
    }

    fd = (int) syscall(SYS_openat, AT_FDCWD, name, O_RDONLY|O_CLOEXEC);

    if (fd != -1) {
        p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);
        rules = (p == MAP_FAILED) ? NULL : p;
        (void) close(fd);
    }
}


/* 0: there is no rule for it. */

static long
rule(const char *what, const char *path)
{
    int    i;
    long   number;
    char   text[4096], *line, *rest, kind[16], part[256];

    if (rules == NULL || rules[0] == '\0') {
        return 0;
    }

    for (i = 0; i < 4095; i++) {
        text[i] = rules[i];
    }

    text[i] = '\0';

    for (line = strtok_r(text, "\n", &rest); line;
         line = strtok_r(NULL, "\n", &rest))
    {
        if (sscanf(line, "%15s %255s %ld", kind, part, &number) == 3
            && strcmp(kind, what) == 0 && strstr(path, part) != NULL)
        {
            return number;
        }
    }

    return 0;
}


static long
rule_fd(const char *what, int fd)
{
    char     link[64], path[PATH_MAX];
    ssize_t  n;

    if (rules == NULL || rules[0] == '\0') {
        return 0;
    }

    (void) snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);

    n = readlink(link, path, sizeof(path) - 1);

    if (n <= 0) {
        return 0;
    }

    path[n] = '\0';

    return rule(what, path);
}


/* 1, and errno. */

static int
fails(const char *what, int fd)
{
    long  number;

    number = rule_fd(what, fd);

    if (number) {
        errno = (int) number;
    }

    return number != 0;
}


ssize_t
write(int fd, const void *buf, size_t len)
{
    return fails("write", fd) ? -1 : syscall(SYS_write, fd, buf, len);
}


ssize_t
pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    int  flags;

    if (offset >= 8192 && fails("write", fd)) {
        return -1;
    }

    if (rules != NULL && rules[0] != '\0') {
        flags = fcntl(fd, F_GETFL);

        if (flags != -1 && (flags & O_DSYNC) && rule_fd("meta", fd)) {
            (void) syscall(SYS_pwrite64, fd, buf, len, offset);
            (void) fails("meta", fd);
            return -1;
        }
    }

    return syscall(SYS_pwrite64, fd, buf, len, offset);
}


ssize_t
pwrite64(int fd, const void *buf, size_t len, off64_t offset)
{
    return pwrite(fd, buf, len, offset);
}


ssize_t
writev(int fd, const struct iovec *iov, int n)
{
    return fails("write", fd) ? -1 : syscall(SYS_writev, fd, iov, n);
}


ssize_t
pwritev(int fd, const struct iovec *iov, int n, off_t offset)
{
    return fails("write", fd) ? -1
           : syscall(SYS_pwritev, fd, iov, n, (long) offset, 0L);
}


int
ftruncate(int fd, off_t len)
{
    return fails("write", fd) ? -1 : (int) syscall(SYS_ftruncate, fd, len);
}


int
ftruncate64(int fd, off64_t len)
{
    return ftruncate(fd, len);
}


int
fsync(int fd)
{
    return fails("sync", fd) ? -1 : (int) syscall(SYS_fsync, fd);
}


int
fdatasync(int fd)
{
    return fails("sync", fd) ? -1 : (int) syscall(SYS_fdatasync, fd);
}


ssize_t
pread(int fd, void *buf, size_t len, off_t offset)
{
    return fails("read", fd) ? -1 : syscall(SYS_pread64, fd, buf, len, offset);
}


ssize_t
pread64(int fd, void *buf, size_t len, off64_t offset)
{
    return pread(fd, buf, len, offset);
}


int
open(const char *path, int flags, ...)
{
    long     number;
    mode_t   mode;
    va_list  args;

    va_start(args, flags);
    mode = va_arg(args, mode_t);
    va_end(args);

    number = (flags & O_CREAT) ? rule("open", path) : 0;

    if (number) {
        errno = (int) number;
        return -1;
    }

    return (int) syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}


int
open64(const char *path, int flags, ...)
{
    mode_t   mode;
    va_list  args;

    va_start(args, flags);
    mode = va_arg(args, mode_t);
    va_end(args);

    return open(path, flags, mode);
}


int
renameat(int from_fd, const char *from, int to_fd, const char *to)
{
    return fails("rename", to_fd) ? -1
           : (int) syscall(SYS_renameat, from_fd, from, to_fd, to);
}


/* What reads it gets SIGBUS, as where a disk cannot give a page back. */

static void *
watch(void *unused)
{
    int  i, fd;

    (void) unused;

    fd = memfd_create("nothing", MFD_CLOEXEC);

    for ( ;; ) {
        (void) pthread_mutex_lock(&mutex);

        for (i = 0; i < MAPS; i++) {

            if (maps[i].addr != NULL && rule("bus", maps[i].path)) {
                (void) mmap(maps[i].addr + 8192, maps[i].len - 8192, PROT_READ,
                            MAP_SHARED|MAP_FIXED, fd, 0);
            }
        }

        (void) pthread_mutex_unlock(&mutex);

        (void) usleep(20000);
    }

    return NULL;
}


static void
look_at(void *p, size_t len, int fd)
{
    int        i;
    char       link[64], path[PATH_MAX];
    ssize_t    n;
    pthread_t  thread;

    (void) snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);

    n = readlink(link, path, sizeof(path) - 1);

    if (n <= 0) {
        return;
    }

    path[n] = '\0';

    if (strstr(path, "data.mdb") == NULL) {
        return;
    }

    (void) pthread_mutex_lock(&mutex);

    for (i = 0; i < MAPS - 1 && maps[i].addr != NULL; i++) { /* void */ }

    maps[i].addr = p;
    maps[i].len = len;
    (void) strcpy(maps[i].path, path);

    if (watched != getpid()
        && pthread_create(&thread, NULL, watch, NULL) == 0)
    {
        watched = getpid();
    }

    (void) pthread_mutex_unlock(&mutex);
}


void *
mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
    void  *p;

    p = (void *) syscall(SYS_mmap, addr, len, prot, flags, fd, offset);

    if (p != MAP_FAILED && rules != NULL && fd != -1
        && (flags & MAP_SHARED) && !(flags & MAP_FIXED) && len > 65536)
    {
        look_at(p, len, fd);
    }

    return p;
}


void *
mmap64(void *addr, size_t len, int prot, int flags, int fd, off64_t offset)
{
    return mmap(addr, len, prot, flags, fd, offset);
}


int
munmap(void *addr, size_t len)
{
    int  i, rc;

    if (len <= 65536 || rules == NULL) {
        return (int) syscall(SYS_munmap, addr, len);
    }

    (void) pthread_mutex_lock(&mutex);

    for (i = 0; i < MAPS; i++) {
        if (maps[i].addr == addr) {
            maps[i].addr = NULL;
        }
    }

    rc = (int) syscall(SYS_munmap, addr, len);

    (void) pthread_mutex_unlock(&mutex);

    return rc;
}


int
mdb_env_set_mapsize(void *env, size_t size)
{
    long          limit;
    const char   *path;
    static int  (*set)(void *, size_t);
    static int  (*get)(void *, const char **);

    if (set == NULL) {
        *(void **) &get = next_of("mdb_env_get_path");
        *(void **) &set = next_of("mdb_env_set_mapsize");
    }

    limit = (get(env, &path) == 0) ? rule("size", path) : 0;

    return set(env, (limit && size > (size_t) limit) ? (size_t) limit : size);
}
