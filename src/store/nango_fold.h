/*
 * Copyright (C) nginx-nango authors
 *
 * The fold: the one place where an event changes a connection.  Reads the log
 * after the last applied sequence and writes the state, in batches; what it
 * has applied is read inside its own write transaction, so two leaders would
 * do no harm, only work twice.
 *
 * The fold never fails on an event.  What cannot be applied is counted and
 * passed over; only I/O and a full map stop it.
 */

#ifndef _NANGO_FOLD_H_INCLUDED_
#define _NANGO_FOLD_H_INCLUDED_


#include "nango_delivery.h"
#include "nango_record.h"
#include "nango_state.h"
#include "nango_store.h"


#define NANGO_FOLD_EVENTS  16384
#define NANGO_FOLD_BYTES   (64 * 1024 * 1024)

/* How long changes are remembered for those who wait for them. */
#define NANGO_CHANGES_MS   (3600 * 1000)


typedef struct {
    uint64_t              now_ms;
    uint64_t              retain_ms;    /* tombstones are dropped after it */
    size_t                max_events;   /* 0: NANGO_FOLD_EVENTS */
    size_t                max_bytes;    /* 0: NANGO_FOLD_BYTES */

    /* 0, or nango_store_generation(): nothing is folded if it is another. */
    uint64_t              generation;

    /* What deliveries came to, applied before the events; see there. */
    nango_settlement_t   *settlements;
    size_t                nsettlements;
} nango_fold_options_t;

typedef struct {
    uint64_t              from;         /* first sequence, or above a floor */
    uint64_t              applied;      /* the state's last, after it */
    uint64_t              events;       /* in this batch */
    uint64_t              bytes;        /* of their records */
    uint64_t              not_understood;
    uint64_t              gap;          /* sequences missing, holes too */
    int                   more;         /* the log holds more */
    int                   old;          /* there is more to be dropped */
    int                   committed;    /* something was written */
    int                   reopened;     /* it is another; all else is 0 */

    /*
     * The transaction of the log that was looked at.  Whoever looks for news
     * compares this, not an id that was read before: LMDB shows a commit's id
     * a moment before a reader can see its data.
     */
    uint64_t              log_txnid;
} nango_folded_t;


/*
 * Folds one batch and commits it, settlements first.  NANGO_OK with events == 0
 * if there is nothing to fold (then nothing is written, except what is settled,
 * that old changes, tombstones and history are dropped, 1024 of each more than
 * the batch can have added, and a gap up to the floor of a log made anew).  On
 * an error nothing of the batch is applied, settlements included, unless it
 * came of the commit: then who settles them again is told that they are stale.
 * Waits for the disk and for LMDB's writer lock of the state: never on an event
 * loop.
 */
nango_rc_e nango_fold(nango_store_t *store, const nango_fold_options_t *options,
    nango_folded_t *folded, nango_error_t *err);


/*
 * The transition itself, without any store: what an event makes of a
 * connection.  docs/internals.md has the table.  before has status NONE for an
 * unknown connection, and nothing else set but its key.  after's strings point
 * to where those of before, record and event do.
 * Total: every combination has a result.
 */
typedef enum {
    NANGO_EFFECT_NONE = 0,          /* event only */
    NANGO_EFFECT_IGNORED,           /* meant a connection, changed nothing */
    NANGO_EFFECT_REPEAT,            /* a state that holds: counter */
    NANGO_EFFECT_CHANGED
} nango_effect_e;

nango_effect_e nango_transition(const nango_connection_t *before,
    const nango_record_t *record, const nango_event_t *event,
    uint64_t sequence, nango_connection_t *after);


#endif /* _NANGO_FOLD_H_INCLUDED_ */
