/*
 * Copyright (C) nginx-nango authors
 *
 * A handler of SIGBUS that leaves by siglongjmp() where a guard is set, and
 * hands on to whoever had the signal before where there is none.  It is a
 * synchronous signal: the thread that gets it is the one that has read, and
 * what it interrupts is LMDB's reading, never malloc() or a lock of libc.
 */


#include "nango_guard.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>


static void nango_guard_signal(int signo, siginfo_t *info, void *context);
static void nango_guard_assert(MDB_env *env, const char *msg);


/*
 * A module's variables of a thread are allocated when the thread first uses
 * them, and glibc ends the process where there is no memory for that.  It has
 * room for a few that were there from the thread's beginning.
 */

#ifdef __GLIBC__
__attribute__((tls_model("initial-exec")))
#endif
static _Thread_local nango_guard_t  *nango_guard;

static pthread_mutex_t   nango_guard_mutex = PTHREAD_MUTEX_INITIALIZER;
static struct sigaction  nango_guard_before;


int
nango_guard_init(void)
{
    int               rc;
    struct sigaction  sa, before;

    (void) pthread_mutex_lock(&nango_guard_mutex);

    rc = (sigaction(SIGBUS, NULL, &before) == -1) ? errno : 0;

    /* Somebody else may have taken it since. */

    if (rc != 0
        || ((before.sa_flags & SA_SIGINFO)
            && before.sa_sigaction == nango_guard_signal))
    {
        (void) pthread_mutex_unlock(&nango_guard_mutex);
        return rc;
    }

    nango_guard_before = before;

    sa.sa_sigaction = nango_guard_signal;

    /* It is left by a jump, which does not unblock the signal. */

    sa.sa_flags = SA_SIGINFO|SA_NODEFER|SA_ONSTACK;

    (void) sigemptyset(&sa.sa_mask);

    if (sigaction(SIGBUS, &sa, NULL) == -1) {
        rc = errno;
    }

    (void) pthread_mutex_unlock(&nango_guard_mutex);

    return rc;
}


void
nango_guard_begin(nango_guard_t *guard)
{
    guard->outer = nango_guard;
    guard->what = NULL;

    nango_guard = guard;
}


void
nango_guard_end(nango_guard_t *guard)
{
    nango_guard = guard->outer;
}


void
nango_guard_environment(MDB_env *env)
{
    (void) mdb_env_set_assert(env, nango_guard_assert);
}


static void
nango_guard_signal(int signo, siginfo_t *info, void *context)
{
    nango_guard_t  *guard;

    guard = nango_guard;

    /* One that somebody has sent is not about what we read. */

    if (guard != NULL && info->si_code > 0) {
        guard->what = "its file cannot be read (SIGBUS)";
        siglongjmp(guard->jump, 1);
    }

    if (nango_guard_before.sa_flags & SA_SIGINFO) {
        nango_guard_before.sa_sigaction(signo, info, context);
        return;
    }

    if (nango_guard_before.sa_handler != SIG_DFL
        && nango_guard_before.sa_handler != SIG_IGN)
    {
        nango_guard_before.sa_handler(signo);
        return;
    }

    /* What has faulted does so again; what was sent is sent again. */

    (void) sigaction(signo, &nango_guard_before, NULL);

    if (info->si_code <= 0) {
        (void) raise(signo);
    }
}


/* Without a guard LMDB prints its message and aborts. */

static void
nango_guard_assert(MDB_env *env, const char *msg)
{
    (void) env;
    (void) msg;

    if (nango_guard != NULL) {
        nango_guard->what = "LMDB found its pages damaged";
        siglongjmp(nango_guard->jump, 1);
    }
}
