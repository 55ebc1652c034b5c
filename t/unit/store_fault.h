/*
 * Copyright (C) nginx-nango authors
 *
 * A disk that fails when it is told to.  LMDB writes its pages with pwrite()
 * and writev(), syncs them with fdatasync(), and commits by writing one of
 * the first two pages; these functions come before libc's in a program that
 * includes this file.
 */

#ifndef _STORE_FAULT_H_INCLUDED_
#define _STORE_FAULT_H_INCLUDED_


#include <errno.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>


/* errno of the next sync, and of the next write of a meta page; 0: none. */

static atomic_int  fault_sync;
static atomic_int  fault_meta;


int
fdatasync(int fd)
{
    int  e;

    e = atomic_exchange(&fault_sync, 0);

    if (e) {
        errno = e;
        return -1;
    }

    return (int) syscall(SYS_fdatasync, fd);
}


ssize_t
pwrite(int fd, const void *buf, size_t len, off_t offset)
{
    int  e;

    if (offset < 8192 && len < 4096) {
        e = atomic_exchange(&fault_meta, 0);

        if (e) {
            errno = e;
            return -1;
        }
    }

    return syscall(SYS_pwrite64, fd, buf, len, offset);
}


#endif /* _STORE_FAULT_H_INCLUDED_ */
