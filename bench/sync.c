/*
 * Copyright (C) nginx-nango authors
 *
 * What the disk alone takes for a commit as LMDB does it: three pages written
 * over others, fdatasync(), and a meta page through O_DSYNC.  Prints the median
 * of 400 in microseconds: the floor below which one webhook after the other
 * cannot be answered.
 *
 *     sync FILE
 */

#define _GNU_SOURCE

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>


#define PAGE   4096
#define PAGES  1600
#define N      400


static int
sync_compare(const void *a, const void *b)
{
    double  x = *(const double *) a, y = *(const double *) b;

    return (x > y) - (x < y);
}


int
main(int argc, char **argv)
{
    int              i, k, fd, meta;
    double           t[N];
    struct timespec  a, b;

    static char  page[PAGE];

    if (argc != 2) {
        (void) fprintf(stderr, "usage: sync FILE\n");
        return 2;
    }

    fd = open(argv[1], O_RDWR|O_CREAT|O_TRUNC, 0600);
    meta = open(argv[1], O_WRONLY|O_DSYNC);

    if (fd == -1 || meta == -1) {
        perror(argv[1]);
        return 1;
    }

    for (i = 0; i < PAGES; i++) {
        if (pwrite(fd, page, PAGE, (off_t) i * PAGE) != PAGE) {
            perror("pwrite");
            return 1;
        }
    }

    (void) fsync(fd);

    for (i = 0; i < N; i++) {
        memset(page, i, PAGE);

        (void) clock_gettime(CLOCK_MONOTONIC, &a);

        for (k = 0; k < 3; k++) {
            if (pwrite(fd, page, PAGE, (off_t) (2 + i * 3 + k) * PAGE) != PAGE)
            {
                return 1;
            }
        }

        if (fdatasync(fd) == -1 || pwrite(meta, page, 176, (i & 1) * PAGE) < 0)
        {
            return 1;
        }

        (void) clock_gettime(CLOCK_MONOTONIC, &b);

        t[i] = (b.tv_sec - a.tv_sec) * 1e6 + (b.tv_nsec - a.tv_nsec) / 1e3;
    }

    qsort(t, N, sizeof(double), sync_compare);

    (void) printf("%.0f\n", t[N / 2]);

    return 0;
}
