/*
 * Copyright (C) nginx-nango authors
 *
 * What subscribers are owed.  The log is the queue, and nothing of it is
 * copied: a subscriber is a cursor over it and a few rows for the events that
 * the cursor has passed and that are not delivered yet, or never will be.
 *
 * Everything here but the ledger's readers is for the one thread that leads.
 * It reads what is to be sent, and later says in the fold's transaction what
 * came of it (nango_fold_options_t, nango_settled_t): delivering costs no wait
 * for the disk of its own.  Who dies between sending and that sends again.
 *
 * Lanes.  Events of one connection are delivered in their order: they are a
 * lane, whose key is the connection's.  An event without a connection is a
 * lane of its own.  A lane with rows is one that is held up: what comes later
 * for it gets rows as well, and waits behind them.
 *
 * The ledger.  For each subscriber, in one snapshot and whatever happens:
 *
 *     stored = delivered + skipped + dead + waiting + lost
 *
 * where stored counts the environment's events in the state since the
 * subscriber's first one, and lost those that vanished with their log.
 */

#ifndef _NANGO_DELIVERY_H_INCLUDED_
#define _NANGO_DELIVERY_H_INCLUDED_


#include "nango_hash.h"
#include "nango_record.h"
#include "nango_state.h"
#include "nango_store.h"


/*
 * Bits of nango_subscriber_t's types.  A type that this code does not know is
 * NANGO_TYPE_OTHER.
 */
#define NANGO_DELIVERY_TYPE(type)  (1u << (type))

/* How many events of one lane are read ahead of its first one's end. */
#define NANGO_DELIVERY_LANE        64


typedef struct {
    nango_str_t           environment;
    nango_str_t           name;
    unsigned char         key[NANGO_KEY_LEN];   /* nango_subscriber_key() */
    unsigned              types;        /* of NANGO_DELIVERY_TYPE; 0: all */
    unsigned              repairs:1;    /* wants events of the edge's repairs */
    unsigned              from_start:1;
    uint64_t              max_age_ms;
} nango_subscriber_t;


/*
 * An event on its way.  One piece of memory with all its strings, owned by
 * whoever took it from the list, until nango_delivery_free().  record's
 * strings point into it; a body that is a file stays one.
 */
typedef struct nango_delivery_s  nango_delivery_t;

struct nango_delivery_s {
    nango_delivery_t     *next;
    uint64_t              sequence;
    unsigned char         lane[NANGO_KEY_LEN];
    uint32_t              attempts;     /* before this one, that failed */
    unsigned              row:1;        /* it has one: the cursor is past it */
    nango_record_t        record;

    /* The connection's tags as they were at that sequence. */
    nango_tag_t           owner[NANGO_EVENT_TAGS_MAX];
    size_t                nowner;
};

/* Any thread. */
void nango_delivery_free(nango_delivery_t *d);


/*
 * What became of an event, or of several in a row: SKIPPED counts those of the
 * environment, up to and including sequence, that the subscriber does not
 * want.
 */
typedef enum {
    NANGO_SETTLED_DELIVERED = 0,
    NANGO_SETTLED_SKIPPED,          /* of a row: it is not wanted any more */
    NANGO_SETTLED_WAITING,          /* gets a row, or keeps it */
    NANGO_SETTLED_DEAD              /* will not be tried again */
} nango_settled_e;

typedef struct {
    uint64_t              sequence;
    unsigned char         lane[NANGO_KEY_LEN];
    nango_settled_e       kind;
    unsigned              row:1;        /* it had one before */
    unsigned              held:1;       /* for nango_queue.h, not looked at */
    uint32_t              attempts;     /* that failed until now */
    uint16_t              status;       /* the last answer's; 0: none */
    uint64_t              next_at;      /* WAITING: not before; ms since 1970.
                                           0: now, once it is the first */
    uint64_t              count;        /* SKIPPED */
} nango_settled_t;

/*
 * What a subscriber's events came to since it was told the last time.  The
 * cursor goes from cursor_before to cursor; settled has everything of the
 * environment in between, in any order, and rows from before.  If the cursor
 * is not at cursor_before on disk, which another leader can have caused, or
 * the subscriber is not there, nothing of it is applied and stale is set: who
 * leads reads its ledger, drops what it knew, and goes on from there.  Rows
 * that are gone or dead by now are passed over.
 *
 * A delivered row's successor in its lane is due at once, whatever its own
 * time.  A cursor at the end of what is applied (also one that stays there)
 * is where what has vanished with its log becomes lost.
 */
typedef struct {
    unsigned char         key[NANGO_KEY_LEN];
    uint64_t              cursor_before;
    uint64_t              cursor;
    nango_settled_t      *settled;
    size_t                nsettled;
    unsigned              park:1;       /* the subscriber is gone: 410 */
    unsigned              stale:1;      /* out */
} nango_settlement_t;


/*
 * Makes those that the state does not know yet: with their cursor at the end
 * of what is applied, or (from_start) before the first event in the log.  One
 * that is there keeps everything, whether it can be read or not.  Register
 * before anything is folded: what came before the leader did is theirs too.
 * Where a state was lost, that is all that the log still has.
 * Leader's thread; a write transaction of the state if there is anything to
 * make.  NANGO_EWRECKED like nango_fold().
 */
nango_rc_e nango_delivery_register(nango_store_t *store,
    const nango_subscriber_t *subscribers, size_t n, uint64_t now_ms,
    nango_error_t *err);


/*
 * What comes after a position, in the log's order, at most up to what is
 * applied: reads about max_events and max_bytes, at least one event.  Appends
 * to *deliveries (a list, in order) what is to be sent, and to *settled (an
 * array that the function realloc()s, the caller's to free(); *nsettled,
 * *settled_size in elements) what is settled as it is: SKIPPED, WAITING for
 * events whose lane has rows (next_at 0: behind them), DEAD for those received
 * more than max_age_ms before now_ms if expire is set, and then nothing is
 * appended to *deliveries and reading stops before the first wanted one that
 * is younger.  *position is set to the last sequence that was looked at, or to
 * what is applied if there is nothing left up to there; *more to whether there
 * is, which is so too where expire has stopped.  Records that cannot be read,
 * and those of other environments, are passed over, and count for max_events.
 * Consecutive SKIPPED ones of a call are one element.
 *
 * Whether a lane has rows is what the state says: rows whose settlement is not
 * in it yet the caller has to know of itself.  On an error the lists are as
 * they were, and so is *position.  Leader's thread; waits for the disk.
 */
typedef struct {
    uint64_t              now_ms;
    size_t                max_events;
    size_t                max_bytes;
    int                   expire;
} nango_delivery_read_t;

nango_rc_e nango_delivery_read(nango_store_t *store,
    const nango_subscriber_t *subscriber, const nango_delivery_read_t *how,
    uint64_t *position, int *more, nango_delivery_t **deliveries,
    nango_settled_t **settled, size_t *nsettled, size_t *settled_size,
    nango_error_t *err);

/*
 * Rows whose time has come: for at most max_lanes lanes that skip() does not
 * want passed over, the first NANGO_DELIVERY_LANE events each, in order, into
 * *deliveries.  With now_ms UINT64_MAX all rows are due.  So are those that are
 * further ahead than rows may be, NANGO_QUEUE_RETRY_MAX.  *next_at: when the
 * next lane will be that skip() does not want passed over and that has not
 * been taken, which may be in the past; 0: none.  A row whose event is no
 * longer in the log or cannot be read is settled as DEAD in *settled, like
 * above.  skip (which may be NULL) is called inside of the store, perhaps
 * several times for a lane.
 */
nango_rc_e nango_delivery_due(nango_store_t *store,
    const nango_subscriber_t *subscriber, uint64_t now_ms, size_t max_lanes,
    size_t max_bytes,
    int (*skip)(void *data, const unsigned char lane[NANGO_KEY_LEN]),
    void *data, uint64_t *next_at, nango_delivery_t **deliveries,
    nango_settled_t **settled, size_t *nsettled, size_t *settled_size,
    nango_error_t *err);

/*
 * Rows of events received more than max_age_ms before now_ms, of the oldest
 * max rows that wait, into *settled as DEAD: of a subscriber that gets nothing
 * for so long.  One that was put back by hand is as old as that until it has
 * been tried.  skip() as above.  Leader's thread; waits for the disk.
 */
nango_rc_e nango_delivery_expired(nango_store_t *store,
    const nango_subscriber_t *subscriber, uint64_t now_ms, size_t max,
    int (*skip)(void *data, const unsigned char lane[NANGO_KEY_LEN]),
    void *data, nango_settled_t **settled, size_t *nsettled,
    size_t *settled_size, nango_error_t *err);


/*
 * Prunes the log from its old end, in one transaction: what was received more
 * than retain_ms before now_ms, is applied and owed to nobody: the cursors of
 * all subscribers of its environment are past it, configured or not, and no
 * row names it.  What is owed is passed over.  Never the newest event.  Above
 * full_percent of the store's size what is owed to nobody goes whatever its
 * age, down to that; 0: no such limit.  At most max_events, of eight times as
 * many that are looked at; *from (in and out) is where to go on, 0: at the
 * beginning, which is also where a round ends (more is 0 then).  Body files
 * are removed after the commit.  Nothing goes while a subscriber cannot be
 * read.  A record that cannot be read, or comes from the future, is as old as
 * the next one that tells.  Leader's thread.  NANGO_EWRECKED like
 * nango_log_commit().
 */
typedef struct {
    uint64_t              now_ms;
    uint64_t              retain_ms;
    unsigned              full_percent;
    size_t                max_events;
} nango_prune_options_t;

typedef struct {
    uint64_t              pruned;       /* events, in this call */
    uint64_t              early;        /* of these, younger than retain */
    int                   more;         /* call again, soon */
} nango_pruned_t;

nango_rc_e nango_log_prune(nango_store_t *store,
    const nango_prune_options_t *options, uint64_t *from,
    nango_pruned_t *pruned, nango_error_t *err);


/* A subscriber as the state has it, in one snapshot. */
typedef struct {
    unsigned char         key[NANGO_KEY_LEN];
    nango_str_t           environment;
    nango_str_t           name;
    uint64_t              created_at;
    uint64_t              cursor;
    uint64_t              parked_at;    /* 0: is not */

    /* The ledger; see above. */
    uint64_t              stored;
    uint64_t              delivered;
    uint64_t              skipped;
    uint64_t              dead;
    uint64_t              waiting;      /* with rows and beyond the cursor */
    uint64_t              lost;

    uint64_t              rows;         /* of the waiting ones */
    uint64_t              redelivered;  /* put back by hand */

    /*
     * received_at of the oldest waiting one, 0: none, or nobody knows.  Behind
     * more than a thousand events of other environments: not older than that.
     */
    uint64_t              oldest_at;
} nango_ledger_t;

/* An environment's events that the state has applied. */
typedef struct {
    unsigned char         key[NANGO_KEY_LEN];
    nango_str_t           name;
    uint64_t              stored;
    uint64_t              pruned;       /* of these, no longer in the log */
} nango_stored_t;

/*
 * In a snapshot of a reader (nango_state.h), so also on event loops: calls
 * visit for each; what it gets is valid during the call, and visit calls
 * nothing of the reader.  0, or -1 and *err.  What cannot be read is passed
 * over.
 */
int nango_reader_ledgers(nango_reader_t *reader,
    void (*visit)(void *data, const nango_ledger_t *ledger), void *data,
    nango_error_t *err);
int nango_reader_stored(nango_reader_t *reader,
    void (*visit)(void *data, const nango_stored_t *stored), void *data,
    nango_error_t *err);

/*
 * The same for one subscriber: 1, and strings that are valid until the next is
 * read; 0: is not known, or cannot be read; -1 and *err.
 */
int nango_reader_ledger(nango_reader_t *reader,
    const unsigned char key[NANGO_KEY_LEN], nango_ledger_t *ledger,
    nango_error_t *err);

/*
 * In a snapshot: the subscriber's dead letters (dead != 0) or waiting rows,
 * those behind after only, at most max, in the order of their sequences.
 * Returns 1: there may be more, 0, or -1 and *err.
 */
typedef struct {
    uint64_t              sequence;
    uint32_t              attempts;
    uint16_t              status;
    uint64_t              since;        /* dead: when it died; else when it
                                           first failed, or was put back */
    uint64_t              next_at;      /* waiting */
} nango_owed_t;

int nango_reader_owed(nango_reader_t *reader,
    const unsigned char key[NANGO_KEY_LEN], int dead, uint64_t after,
    size_t max, void (*visit)(void *data, const nango_owed_t *owed),
    void *data, nango_error_t *err);


/*
 * By hand, each one write transaction of the state.  They wait for the disk
 * and for the leader's batch, on a thread of their own that they start and
 * join: any thread that may wait, in any process, beside a leader that runs.
 * NANGO_EINVAL: there is no such subscriber, or nothing to do it to.
 *
 * redeliver: the dead letter of that sequence, or (sequence 0) all of them, at
 *            most max in one call, is waiting again, due at once and as if it
 *            had not been tried; *n of them, *more: call again.
 * resume:    it is parked no longer, and all its rows are due.
 * forget:    the subscriber is removed with all that it is owed; at most max
 *            rows in one call, *n of them, *more: call again.
 */
nango_rc_e nango_delivery_redeliver(nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t sequence, size_t max,
    uint64_t now_ms, uint64_t *n, int *more, nango_error_t *err);
nango_rc_e nango_delivery_resume(nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], uint64_t now_ms,
    nango_error_t *err);
nango_rc_e nango_delivery_forget(nango_store_t *store,
    const unsigned char key[NANGO_KEY_LEN], size_t max, uint64_t *n,
    int *more, nango_error_t *err);


#endif /* _NANGO_DELIVERY_H_INCLUDED_ */
