/*
 * Copyright (C) nginx-nango authors
 *
 * The store's directory: two LMDB environments, a directory of large bodies,
 * and the lock that makes one worker the leader.
 *
 *     PATH/log/      what was acknowledged, in order; appended to, never
 *                    changed
 *     PATH/state/    what that means: connections and whose they are
 *     PATH/bodies/   bodies too large for a record
 *     PATH/leader    locked by the one process that folds the log into the
 *                    state
 *
 * docs/internals.md has the layouts.  One process opens a store once, after
 * the fork: LMDB's locks are lost when the same process opens the same
 * environment a second time.
 *
 * Threads.  LMDB may not be closed or resized under a transaction, and an
 * event loop may not wait for a lock.  So everything that touches LMDB happens
 * between nango_store_enter() and nango_store_leave(), which are the two ends
 * of a read lock; an event loop uses nango_store_try_enter(), which never
 * waits.  Only nango_store_recover() takes the lock for itself.  The functions
 * of nango_log.h, nango_state.h and nango_fold.h do this themselves where
 * their comments do not say otherwise.
 *
 * It does not nest: a thread that is inside, which includes one that holds a
 * reader's snapshot, would wait for a recovery that waits for it.  What may be
 * called there are the functions that are said to work in a snapshot, and
 * those that never wait.
 */

#ifndef _NANGO_STORE_H_INCLUDED_
#define _NANGO_STORE_H_INCLUDED_


#include "nango_str.h"


#define NANGO_STORE_SCHEMA      1
#define NANGO_STORE_ID_LEN      16

/* Fixed, since whoever opens first decides for all. */
#define NANGO_STORE_MAXREADERS  1024


typedef struct nango_store_s  nango_store_t;


typedef enum {
    NANGO_OK = 0,
    NANGO_ENOMEM,
    NANGO_EIO,              /* the disk, or the directory, says no */
    NANGO_EFULL,            /* the log has its size, or the disk is full */
    NANGO_EFOREIGN,         /* log and state belong to different stores */
    NANGO_EVERSION,         /* written by a newer schema */
    NANGO_EDAMAGED,         /* LMDB finds its pages damaged */
    NANGO_EBROKEN,          /* LMDB wants this environment reopened */
    NANGO_EWRECKED,         /* the same, once the calling thread has ended */
    NANGO_ERESIZED,         /* another process made the map larger */
    NANGO_EBUSY,            /* try_enter: being recovered; try again later */
    NANGO_EINVAL
} nango_rc_e;

/*
 * What went wrong, for a log: one sentence with the path and the system's or
 * LMDB's own words, without a full stop.
 */
typedef struct {
    nango_rc_e            code;
    char                  text[512];
} nango_error_t;


typedef struct {
    const char           *path;         /* copied */
    uint64_t              size;         /* bytes of events the log may hold */
} nango_store_options_t;


/*
 * Opens, and makes what is missing below path, which must exist; as the user
 * that the process runs as.  Files 0600, directories 0700.  Waits for the
 * disk: never on an event loop.  On anything but NANGO_OK *store is NULL, *err
 * says why, and nothing stays open.
 *
 * A new store gets a random id in the log and in the state.  One of them
 * missing while the other is there: a missing state is made with the log's id
 * and will be folded from what the log has; a missing log is made with the
 * state's id, and its sequences continue above the state's.  Whenever the
 * state has applied more than the log holds, the log's floor is raised before
 * anything can be appended, so that no sequence is ever used twice.
 */
nango_rc_e nango_store_open(nango_store_t **store,
    const nango_store_options_t *options, nango_error_t *err);

/* No thread may be inside or come in.  Accepts NULL. */
void nango_store_close(nango_store_t *store);

void nango_store_enter(nango_store_t *store);
int nango_store_try_enter(nango_store_t *store);     /* 1: inside; 0: busy */
void nango_store_leave(nango_store_t *store);

/*
 * After NANGO_EBROKEN or NANGO_ERESIZED from any function: waits until nobody
 * is inside, then reopens both environments, or takes over the map's new size.
 * Read transactions that readers keep (nango_state.h) are ended here and begun
 * again by them.  Does nothing if there is nothing to recover from.  If it
 * fails, the store stays closed inside (everything answers NANGO_EBROKEN) and
 * this may be called again: for a second, or for ten times as long as it took,
 * it then says the same without trying.  Waits: never on an event loop, and
 * not between enter and leave.
 *
 * After NANGO_EWRECKED, which only functions that write return, the calling
 * thread holds a lock that the kernel takes from it when it ends, and not
 * before: it must end, and another one recover.  Until then this fails, as
 * does whatever else the thread would write.
 */
nango_rc_e nango_store_recover(nango_store_t *store, nango_error_t *err);
int nango_store_needs_recovery(nango_store_t *store);

/*
 * Whether the files that are open are those below the path, and whole:
 * somebody may have removed, replaced or cut them.  NANGO_EBROKEN if not, and
 * then the store needs recovery.  Looks at some inodes: now and then.
 */
nango_rc_e nango_store_look_after(nango_store_t *store, nango_error_t *err);

/* Bytes that belong to the store, valid until it is closed. */
const unsigned char *nango_store_id(const nango_store_t *store);
const char *nango_store_path(const nango_store_t *store);
uint64_t nango_store_size(const nango_store_t *store);

/*
 * Goes up whenever the store is opened again: what was known of its files may
 * be of others.  0 while it is closed.  Waits for who recovers it.
 */
uint64_t nango_store_generation(nango_store_t *store);

/*
 * LMDB's number of the last transaction: changes with each commit of any
 * process.  Reads two words of shared memory: for event loops that look
 * whether something happened.  0 while the store is being recovered.
 */
uint64_t nango_store_log_txnid(nango_store_t *store);
uint64_t nango_store_state_txnid(nango_store_t *store);

/*
 * Asks for leadership without waiting: 1 if this process leads (now or
 * already), 0 if another does, -1 and *err if the lock file cannot be used.
 * A kernel lock (flock) on an open file description that only this process
 * holds: whoever dies, leads no longer.  One thread at a time.
 */
int nango_store_lead(nango_store_t *store, nango_error_t *err);
void nango_store_resign(nango_store_t *store);

/* Removes readers that died; returns how many, -1 on error.  May wait. */
int nango_store_check_readers(nango_store_t *store);


#endif /* _NANGO_STORE_H_INCLUDED_ */
