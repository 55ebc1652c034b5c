/*
 * Copyright (C) nginx-nango authors
 *
 * For LD_PRELOAD: to whoever looks, a file was last changed when it was last
 * written.  A test can set the latter back, but not the former, and what is
 * younger than an hour is never swept.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <stddef.h>
#include <sys/stat.h>


int
fstatat(int fd, const char *path, struct stat *sb, int flags)
{
    int         rc;
    static int  (*next)(int, const char *, struct stat *, int);

    if (next == NULL) {
        *(void **) &next = dlsym(RTLD_NEXT, "fstatat");
    }

    rc = next(fd, path, sb, flags);

    if (rc == 0) {
        sb->st_ctim = sb->st_mtim;
    }

    return rc;
}
