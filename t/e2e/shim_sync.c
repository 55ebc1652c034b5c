/*
 * Copyright (C) nginx-nango authors
 *
 * For LD_PRELOAD: counts fsync() and fdatasync() of all processes, in the
 * 8 bytes of the file that NANGO_SYNCS names.
 */

#define _GNU_SOURCE

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>


static uint64_t  *count;


static void __attribute__((constructor))
begin(void)
{
    int          fd;
    void        *p;
    const char  *path;

    path = getenv("NANGO_SYNCS");

    if (path == NULL) {
        return;
    }

    fd = open(path, O_RDWR|O_CLOEXEC);

    if (fd == -1) {
        return;
    }

    p = mmap(NULL, sizeof(uint64_t), PROT_READ|PROT_WRITE, MAP_SHARED, fd, 0);

    if (p != MAP_FAILED) {
        count = p;
    }

    (void) close(fd);
}


static int
counted(long number, int fd)
{
    if (count != NULL) {
        (void) __atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
    }

    return (int) syscall(number, fd);
}


int
fsync(int fd)
{
    return counted(SYS_fsync, fd);
}


int
fdatasync(int fd)
{
    return counted(SYS_fdatasync, fd);
}
