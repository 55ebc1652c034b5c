/*
 * Copyright (C) nginx-nango authors
 *
 * The log: every accepted event under a sequence number that only grows.  What
 * is answered 200 has been through nango_log_commit().
 *
 * A batch is one transaction and one wait for the disk.  LMDB's writer lock
 * orders all workers, generations of nginx and binaries, so the transaction is
 * also where a repeat is told from a first: before its batch a writer reads
 * what others have appended since its own last one into a private table.
 */

#ifndef _NANGO_LOG_H_INCLUDED_
#define _NANGO_LOG_H_INCLUDED_


#include "nango_hash.h"
#include "nango_record.h"
#include "nango_store.h"


/*
 * How many events a writer remembers at most to tell duplicates.  Beyond it
 * the oldest are forgotten before their time.
 */
#define NANGO_LOG_REMEMBERED  (1024 * 1024)

/*
 * How many events of the log are looked at for a job that is only to be
 * written if it was not overtaken, while LMDB's writer lock is held.
 */
#define NANGO_LOG_UNSEEN      4096


typedef enum {
    NANGO_WRITE_NONE = 0,
    NANGO_WRITE_STORED,         /* on disk; sequence is its own */
    NANGO_WRITE_DUPLICATE,      /* sequence is that of the first, on disk */
    NANGO_WRITE_OVERTAKEN,      /* see unseen */
    NANGO_WRITE_FULL,           /* the log has reached its size */
    NANGO_WRITE_FAILED
} nango_write_result_e;


/* A job for the writer.  Owned by the caller; lives until commit returns. */
typedef struct {
    const void           *record;       /* of nango_record_encode() */
    size_t                len;

    /* Compared when dedupe_ms is not 0: repeats within that time. */
    uint64_t              dedupe_ms;
    uint64_t              received_at;
    unsigned char         environment[NANGO_KEY_LEN];
    unsigned char         hmac[NANGO_HMAC_LEN];

    /*
     * Not 0: what this says rests on what was known before that sequence.  It
     * is not written if from there on the log has an auth event of the same
     * connection, this batch's before it included, or something that is not
     * known: a record that cannot be read, one that is no longer there, more
     * than NANGO_LOG_UNSEEN of them.
     */
    uint64_t              unseen;

    nango_write_result_e  result;
    uint64_t              sequence;
} nango_write_t;


typedef struct nango_writer_s  nango_writer_t;


/*
 * remember_ms: the longest dedupe time there is; 0: none.  One thread uses a
 * writer.  NULL if there is no memory.  The table grows with use up to
 * NANGO_LOG_REMEMBERED entries.
 */
nango_writer_t *nango_writer_create(nango_store_t *store,
    uint64_t remember_ms);
void nango_writer_free(nango_writer_t *writer);

/*
 * Appends n jobs in the order given, in one transaction, and returns after it
 * is on disk.  Each job gets its result.  A job that fails alone (no room for
 * it, not accepted by LMDB) is left out and the rest done again; what concerns
 * all fails all.  Returns NANGO_OK if every job is STORED, DUPLICATE or
 * OVERTAKEN, else the reason of the first that is not, and *err.  No result
 * but OVERTAKEN, FAILED or FULL is ever given to a job that is not on disk;
 * after a failed commit nobody knows, and FAILED is what is said.  Duplicates
 * of a job that fails in the same batch fail too; those of what was on disk
 * before it do not.  A job whose bytes are no record is FAILED with
 * NANGO_EINVAL.
 */
nango_rc_e nango_log_commit(nango_writer_t *writer, nango_write_t **jobs,
    size_t n, nango_error_t *err);

/*
 * The same, but first asks for more: once LMDB's writer lock is held, which is
 * where a batch waits for the batches of other workers, more is called, once
 * and on this thread.  It may add jobs behind the first n, for which the array
 * has room, and returns how many there are then.  *n is set to that, also when
 * the commit fails.  It is not called if the lock is not reached, or n is 0.
 */
typedef size_t (*nango_log_more_pt)(void *data, nango_write_t **jobs,
    size_t n);

nango_rc_e nango_log_commit_more(nango_writer_t *writer, nango_write_t **jobs,
    size_t *n, nango_log_more_pt more, void *data, nango_error_t *err);


/*
 * First and last sequence in the log, 0 if it is empty; last is never below
 * the floor.  Opens a read transaction of its own; see nango_state.h for the
 * kind that an event loop uses.
 */
nango_rc_e nango_log_bounds(nango_store_t *store, uint64_t *first,
    uint64_t *last, nango_error_t *err);

/*
 * Calls handler for each event from sequence on, until it returns other than
 * 0, in one read transaction: for tools and tests, not for event loops.
 * Returns what handler returned, 0 at the end, -1 and *err on an error.
 * record's strings are valid during the call only.  Unknown versions are
 * passed over; damaged records come with a NULL record.
 */
int nango_log_scan(nango_store_t *store, uint64_t from,
    int (*handler)(void *data, uint64_t sequence,
    const nango_record_t *record), void *data, nango_error_t *err);


/*
 * Body files.  A name is 32 random hex digits; path takes at least
 * nango_body_path_len() bytes and is terminated by zero.
 *
 * nango_body_adopt() makes a file that nginx has received (somewhere on the
 * store's file system) a durable body: fsync, rename, fsync of the directory.
 * nango_body_copy() makes one of what belongs to somebody else and may be
 * anywhere.  Both wait for the disk.  *held is a descriptor that the caller
 * closes once the body's record is committed, or will not be: until then no
 * sweep removes it, however old the file is by whatever clock.  held may be
 * NULL.  nango_body_remove() is for a body whose record did not come to be.
 * 0, or the rc with *err, and *held is -1.
 */
size_t nango_body_path_len(const nango_store_t *store);
void nango_body_path(const nango_store_t *store, nango_str_t name, char *path);
nango_rc_e nango_body_adopt(nango_store_t *store, int fd, const char *from,
    unsigned char name[NANGO_BODY_NAME_LEN], int *held, nango_error_t *err);
nango_rc_e nango_body_copy(nango_store_t *store, nango_str_t body,
    unsigned char name[NANGO_BODY_NAME_LEN], int *held, nango_error_t *err);
void nango_body_remove(nango_store_t *store, nango_str_t name);

/*
 * Removes body files that no record names and nobody holds, and what a killed
 * worker left in PATH/temp, once they are older than an hour: at most max of
 * them in one call; for the leader.  Returns how many, -1 on error.
 * Reads the directory, and the log only if there are files of that age that
 * the fold has not marked.  Removes nothing while the log holds a record that
 * this code cannot read.
 */
int nango_body_sweep(nango_store_t *store, uint64_t now_ms, size_t max,
    nango_error_t *err);


#endif /* _NANGO_LOG_H_INCLUDED_ */
