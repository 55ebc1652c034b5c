/*
 * Copyright (C) nginx-nango authors
 *
 * Subscribers and their rows as the state has them: the bytes, and the few
 * changes that keep the tables of rows in step with one another.
 *
 *     owed    sequence, subscriber          -> the row
 *     rows    subscriber, state, sequence   -> nothing: a subscriber's own
 *     lanes   subscriber, lane, sequence    -> nothing: those that wait
 *     due     subscriber, time, lane        -> nothing: one a lane
 *
 * Functions without a comment return LMDB's code.  All of it is inside of the
 * store, under a guard, and with a transaction of the state.
 */

#ifndef _NANGO_ROWS_H_INCLUDED_
#define _NANGO_ROWS_H_INCLUDED_


#include "nango_delivery.h"
#include "nango_tables.h"


#define NANGO_OWED_KEY_LEN   (NANGO_SEQUENCE_LEN + NANGO_KEY_LEN)
#define NANGO_ROWS_KEY_LEN   (NANGO_KEY_LEN + 1 + NANGO_SEQUENCE_LEN)
#define NANGO_LANES_KEY_LEN  (2 * NANGO_KEY_LEN + NANGO_SEQUENCE_LEN)
#define NANGO_DUE_KEY_LEN    (NANGO_KEY_LEN + 8 + NANGO_KEY_LEN)

#define NANGO_ROW_LEN        40


/* The numbers are on disk. */

typedef enum {
    NANGO_ROW_WAITING = 1,
    NANGO_ROW_DEAD = 2
} nango_row_state_e;

typedef struct {
    nango_row_state_e     state;
    uint16_t              status;
    uint32_t              attempts;
    uint64_t              next_at;      /* 0: now, or behind its lane's head */
    uint64_t              since;
    unsigned char         lane[NANGO_KEY_LEN];
} nango_row_t;


/* A subscriber's record.  counted = delivered + skipped + dead + rows + lost */

typedef struct {
    int                   parked;
    uint64_t              created_at;
    uint64_t              cursor;
    uint64_t              base;         /* stored when it was made */
    uint64_t              counted;      /* that the cursor has passed */
    uint64_t              delivered;
    uint64_t              skipped;
    uint64_t              dead;
    uint64_t              rows;         /* that wait */
    uint64_t              lost;
    uint64_t              redelivered;
    uint64_t              parked_at;
    nango_str_t           environment;
    nango_str_t           name;
} nango_subscribed_t;

/*
 * Size 0: a string is too long.  Decoding: 0, strings point into data; -1: no
 * record; 1: of an unknown version.
 */
size_t nango_subscribed_size(const nango_subscribed_t *s);
void nango_subscribed_encode(const nango_subscribed_t *s, unsigned char *dst);
int nango_subscribed_decode(nango_subscribed_t *s, nango_str_t data);

/*
 * For changing: *record is a copy that the caller free()s in any case, also
 * after a fault, and to which the strings of s point.  MDB_NOTFOUND also if it
 * cannot be read.
 */
int nango_subscribed_get(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], nango_subscribed_t *s,
    unsigned char **record);
int nango_subscribed_put(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], const nango_subscribed_t *s,
    unsigned char *record);

/* One event less that waits, or is dead; what the disk does not know of. */
void nango_subscribed_less(nango_subscribed_t *s, uint64_t *n);


/* An environment's in the log: how many were pruned, and the last of them. */
#define NANGO_PRUNED_LEN  16


/*
 * An environment's events in the state, and what of them the log (a
 * transaction of it) no longer has: how many, and the last one; 0 if nothing is
 * known of it.
 */
int nango_stored_get(MDB_txn *state, nango_store_t *store,
    const unsigned char environment[NANGO_KEY_LEN], uint64_t *stored);
int nango_stored_add(MDB_txn *state, nango_store_t *store, MDB_txn *log,
    const unsigned char environment[NANGO_KEY_LEN], nango_str_t name,
    uint64_t n);
int nango_stored_decode(nango_str_t data, nango_str_t *name, uint64_t *stored);
int nango_pruned_get(MDB_txn *log, nango_store_t *store,
    const unsigned char environment[NANGO_KEY_LEN], uint64_t *pruned,
    uint64_t *last);


/* Keys. */

void nango_owed_key(unsigned char buf[NANGO_OWED_KEY_LEN],
    uint64_t sequence, const unsigned char key[NANGO_KEY_LEN]);
void nango_rows_key(unsigned char buf[NANGO_ROWS_KEY_LEN],
    const unsigned char key[NANGO_KEY_LEN], nango_row_state_e state,
    uint64_t sequence);
void nango_lanes_key(unsigned char buf[NANGO_LANES_KEY_LEN],
    const unsigned char key[NANGO_KEY_LEN],
    const unsigned char lane[NANGO_KEY_LEN], uint64_t sequence);
void nango_due_key(unsigned char buf[NANGO_DUE_KEY_LEN],
    const unsigned char key[NANGO_KEY_LEN], uint64_t time,
    const unsigned char lane[NANGO_KEY_LEN]);

/*
 * To the first key from buf on; MDB_NOTFOUND also if it does not begin with
 * the first n bytes of it, or has another length.
 */
int nango_rows_seek(MDB_cursor *cursor, const unsigned char *buf, size_t len,
    size_t n, MDB_val *key, MDB_val *val);

/* The same of the next one. */
int nango_rows_step(MDB_cursor *cursor, const unsigned char *buf, size_t len,
    size_t n, MDB_val *key, MDB_val *val);


/* 0, or -1: it cannot be read, also because of its version. */
int nango_row_decode(nango_row_t *row, nango_str_t data);
void nango_row_encode(const nango_row_t *row,
    unsigned char dst[NANGO_ROW_LEN]);

/*
 * What a row is to others.  *found: there is one.  One that cannot be read
 * waits in the lane if the lane knows of it, and has not been tried.
 */
int nango_row_get(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t sequence,
    const unsigned char lane[NANGO_KEY_LEN], nango_row_t *row, int *found);

/* Writes a row and its keys; *found: there was one already, nothing done. */
int nango_row_add(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t sequence,
    const nango_row_t *row, int *found);

/* From one to the other; NULL: it goes. */
int nango_row_change(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t sequence,
    const nango_row_t *before, const nango_row_t *after);


/*
 * A lane's head before something in it changes, and what has to be due after
 * that.
 */
typedef struct {
    int                   found;
    uint64_t              sequence;
    uint64_t              next_at;
} nango_lane_t;

int nango_lane_head(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN],
    const unsigned char lane[NANGO_KEY_LEN], nango_lane_t *head);

/* now: the new head, if it is another one, does not wait any longer. */
int nango_lane_moved(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN],
    const unsigned char lane[NANGO_KEY_LEN], const nango_lane_t *before,
    int now);


/*
 * A connection as it was at a sequence: its strings point into the map.
 * MDB_NOTFOUND: it was not there then, or is no longer known.
 */
int nango_history_at(MDB_txn *txn, nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t sequence,
    nango_connection_t *c);


/*
 * Applies a settlement in the fold's transaction, where the state has applied
 * the log up to applied.  *changed is set if something has been written;
 * *writes counts what may dirty a page.  *record: see nango_subscribed_get().
 */
int nango_settle(MDB_txn *txn, nango_store_t *store, nango_settlement_t *s,
    uint64_t applied, uint64_t now_ms, int *changed, size_t *writes,
    unsigned char **record);


#endif /* _NANGO_ROWS_H_INCLUDED_ */
