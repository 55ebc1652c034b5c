/*
 * Copyright (C) nginx-nango authors
 *
 * What LMDB does instead of returning an error.  It reads its file through a
 * memory map, so a disk that cannot read, or somebody who cuts the file off,
 * is SIGBUS; and what it finds impossible it asserts and aborts.  Either would
 * end a worker that serves others too.
 *
 *     nango_guard_t  guard;
 *
 *     nango_guard_begin(&guard);
 *
 *     if (sigsetjmp(guard.jump, 0) == 0) {
 *         ... LMDB ...
 *     } else {
 *         ... what was called last did not return ...
 *     }
 *
 *     nango_guard_end(&guard);
 *
 * Variables of the function that change after sigsetjmp() are not known where
 * it returned again: put LMDB into a function of its own.  A transaction that
 * reads can be ended then.  One that writes cannot, since LMDB was in the
 * middle of something: it holds the writer's lock until its thread ends, and
 * the environment has to be opened again after that.
 *
 * A fault outside of a guard is what it was before.  Threads need SIGBUS to be
 * unblocked.
 */

#ifndef _NANGO_GUARD_H_INCLUDED_
#define _NANGO_GUARD_H_INCLUDED_


#include <lmdb.h>
#include <setjmp.h>


typedef struct nango_guard_s  nango_guard_t;

struct nango_guard_s {
    sigjmp_buf            jump;
    nango_guard_t        *outer;
    const char           *what;         /* in words; after a fault */
};


/* Before it is relied upon, as often as one likes.  0 or errno. */
int nango_guard_init(void);

void nango_guard_begin(nango_guard_t *guard);
void nango_guard_end(nango_guard_t *guard);

/* For each environment. */
void nango_guard_environment(MDB_env *env);


#endif /* _NANGO_GUARD_H_INCLUDED_ */
