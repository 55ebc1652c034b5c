/*
 * Copyright (C) nginx-nango authors
 *
 * For LD_PRELOAD: a process that is about to sync a store's log, in the middle
 * of a transaction whose lock it holds, stops as by SIGSTOP, if it is the one
 * that could remove the file which NANGO_STOP names.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>


static char  file[4096];


/* nginx takes its environment away from its workers. */

__attribute__((constructor))
static void
remember(void)
{
    const char  *name;

    name = getenv("NANGO_STOP");

    if (name) {
        (void) snprintf(file, sizeof(file), "%s", name);
    }
}


int
fdatasync(int fd)
{
    char        link[64], path[4096];
    ssize_t     n;
    static int  (*next)(int);

    if (next == NULL) {
        *(void **) &next = dlsym(RTLD_NEXT, "fdatasync");
    }

    (void) snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);

    n = readlink(link, path, sizeof(path) - 1);

    if (n > 0) {
        path[n] = '\0';

        /* To this thread: another one would take its time to see it. */

        if (strstr(path, "/log/data.mdb") && unlink(file) == 0) {
            (void) syscall(SYS_tgkill, getpid(), gettid(), SIGSTOP);
        }
    }

    return next(fd);
}
