/*
 * Copyright (C) nginx-nango authors
 *
 * The state: which connection belongs to whom and how it is.  Written by the
 * fold alone (nango_fold.h); read by event loops through a reader.
 */

#ifndef _NANGO_STATE_H_INCLUDED_
#define _NANGO_STATE_H_INCLUDED_


#include "nango_event.h"
#include "nango_hash.h"
#include "nango_store.h"


typedef enum {
    NANGO_STATUS_NONE = 0,
    NANGO_STATUS_VALID = 1,
    NANGO_STATUS_INVALID = 2,
    NANGO_STATUS_DELETED = 3        /* a tombstone */
} nango_status_e;


/* A connection.  Times in ms since 1970, 0: never. */
typedef struct {
    unsigned char         key[NANGO_KEY_LEN];    /* in hex: the opaque id */
    nango_status_e        status;
    uint64_t              created_sequence;
    uint64_t              updated_sequence;
    uint64_t              created_at;
    uint64_t              updated_at;
    uint64_t              status_since;
    uint64_t              checked_at;
    uint64_t              repeats;      /* events that found it so already */
    unsigned char         creation_hmac[NANGO_HMAC_LEN];
    nango_str_t           environment;
    nango_str_t           integration;
    nango_str_t           connection_id;
    nango_str_t           provider;
    nango_str_t           error_type;
    nango_str_t           error_text;
    nango_tag_t           tags[NANGO_EVENT_TAGS_MAX];
    size_t                ntags;
} nango_connection_t;

/* NULL data if there is none. */
nango_str_t nango_connection_tag(const nango_connection_t *c, nango_str_t name);


/*
 * A reader keeps one read transaction of each environment and renews it for
 * each snapshot: cheap enough for an event loop, which never waits here for
 * another thread or process beyond LMDB's reader table, taken once.  One
 * thread uses a reader.
 *
 * A snapshot is consistent and must be short: while it is held, the file can
 * only grow.  Never hold one across an asynchronous wait, and call nothing of
 * nango_log.h or nango_fold.h meanwhile: it would have to wait for a recovery,
 * which waits for the snapshot to end.
 */
typedef struct nango_reader_s  nango_reader_t;

nango_reader_t *nango_reader_create(nango_store_t *store);
void nango_reader_free(nango_reader_t *reader);     /* before the store */

/*
 * NANGO_EBUSY while the store is being recovered, NANGO_EBROKEN or
 * NANGO_ERESIZED when it needs to be (nango_store_recover(), on a thread that
 * may wait).  After NANGO_OK: nango_reader_end().
 */
nango_rc_e nango_reader_begin(nango_reader_t *reader, nango_error_t *err);
void nango_reader_end(nango_reader_t *reader);

/*
 * In a snapshot, the number of the state's transaction that it is of.  While
 * another is being synced nango_store_state_txnid() may be that one's already.
 */
uint64_t nango_reader_state_txnid(const nango_reader_t *reader);

/*
 * The same of the state alone, for those who take what is there: about half
 * the price, and last and applied are not known in such a snapshot.
 */
nango_rc_e nango_reader_begin_state(nango_reader_t *reader,
    nango_error_t *err);

/*
 * In a snapshot: the last sequence that the log holds (or its floor), and the
 * last one that is in the state.  The log is looked at first, so last <=
 * applied means: everything acknowledged before the snapshot is in it.
 * applied may be the larger one.
 */
uint64_t nango_reader_last(nango_reader_t *reader);
uint64_t nango_reader_applied(nango_reader_t *reader);

/*
 * In a snapshot.  1 and *c, whose strings are valid until the next is read;
 * 0: there is none, or its version is not known; -1 and *err, among others
 * NANGO_EDAMAGED for a record that cannot be read.  Tombstones are found too:
 * look at status.  By key: the caller compares environment and owner.
 */
int nango_reader_connection(nango_reader_t *reader,
    const unsigned char key[NANGO_KEY_LEN], nango_connection_t *c,
    nango_error_t *err);

/*
 * In a snapshot: calls visit for at most max connections, tombstones too, in
 * the order of their keys, those behind key only.  key is set to the last one
 * that was looked at, so that the next call, perhaps in another snapshot, goes
 * on there.  c is valid during the call only.  visit returns other than 0 to
 * stop.  1: there may be more, 0: that was the end, -1 and *err.  Records that
 * cannot be read are passed over.
 */
int nango_reader_all(nango_reader_t *reader, unsigned char key[NANGO_KEY_LEN],
    size_t max, int (*visit)(void *data, const nango_connection_t *c),
    void *data, nango_error_t *err);


/*
 * The connections of an owner, newest first: those of the environment whose
 * tags include all the given ones.  Walks the index of each tag side by side,
 * so the cost is that of the smallest, and compares the full strings.
 * Tombstones are not in the index.  ntags is 1 to NANGO_TAGS_MAX; tag names in
 * lower case.  The strings must live until _close().  before: only those whose
 * created_sequence is less; 0: all.
 *
 * nango_owned_only(), before the first is read: those to one integration, whose
 * id must live until _close(), among the first max that the owner has; most of
 * the others' records are not looked at.
 *
 * nango_owned_next(): 1 and *c (until the next is read), 0 at the end, -1
 * and *err.  Records that cannot be read are passed over.
 */
typedef struct nango_owned_s  nango_owned_t;

nango_owned_t *nango_owned_open(nango_reader_t *reader,
    nango_str_t environment, const nango_tag_t *tags, size_t ntags,
    uint64_t before, nango_error_t *err);
void nango_owned_only(nango_owned_t *owned, nango_str_t integration,
    size_t max);
int nango_owned_next(nango_owned_t *owned, nango_connection_t *c,
    nango_error_t *err);
void nango_owned_close(nango_owned_t *owned);

/*
 * In a snapshot: whether anything of the owner changed after sequence.  1, 0;
 * 2 if sequence is older than what is remembered (an hour) or lies more than
 * NANGO_CHANGES_MAX changes back, so nobody knows; -1 and *err.  Where a
 * connection's tags changed, those before and after count together: who has
 * some of each is told of a change once too often.
 */
int nango_reader_changed(nango_reader_t *reader, nango_str_t environment,
    const nango_tag_t *tags, size_t ntags, uint64_t sequence,
    nango_error_t *err);

/*
 * In a snapshot: calls visit for each owner key that a change after sequence
 * concerns, in the order of the changes, a key perhaps several times.  1: these
 * were all; 0: some are forgotten, or there are more than
 * NANGO_CHANGES_MAX changes, so anybody may be concerned; -1 and *err.
 */
#define NANGO_CHANGES_MAX  16384

int nango_reader_changes(nango_reader_t *reader, uint64_t sequence,
    void (*visit)(void *data, const unsigned char key[NANGO_KEY_LEN]),
    void *data, nango_error_t *err);


/* Exact, from the transaction that made them true. */
typedef struct {
    uint64_t              applied;          /* sequence */
    uint64_t              events;           /* folded since the beginning */
    uint64_t              effective;        /* changed something */
    uint64_t              ignored;          /* blocked, replayed, unknown id */
    uint64_t              not_understood;   /* passed over, listed */
    uint64_t              gaps;             /* sequences that were missing */
    uint64_t              valid;
    uint64_t              invalid;
    uint64_t              tombstones;
} nango_counts_t;

/* In a snapshot. */
nango_rc_e nango_reader_counts(nango_reader_t *reader, nango_counts_t *counts,
    nango_error_t *err);


/* Bytes are those of whole pages. */
typedef struct {
    uint64_t              first;        /* sequence, 0: it holds none */
    uint64_t              events;       /* that the log holds */
    uint64_t              log_bytes;    /* of them, what is held against */
    uint64_t              log_size;     /* the log's size */
    uint64_t              state_bytes;  /* of the state's file */
} nango_usage_t;

/* In a snapshot: how much there is, as LMDB counts it.  Cheap. */
nango_rc_e nango_reader_usage(nango_reader_t *reader, nango_usage_t *usage,
    nango_error_t *err);


#endif /* _NANGO_STATE_H_INCLUDED_ */
