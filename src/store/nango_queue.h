/*
 * Copyright (C) nginx-nango authors
 *
 * A subscriber's events in memory: which of them may be sent now, and what is
 * to be remembered of those that were.  No clock, no chance and no I/O of its
 * own: whoever uses it gives it all three, so that days of a backend's absence
 * take no time in a test.  One thread uses a queue; in nginx, the event loop.
 *
 * Events come from the log in its order (nango_delivery_read()) and from the
 * rows of those that were held up (nango_delivery_due()).  An event is sent
 * when those of its lane before it are done.  What came of them leaves in
 * reports, which whoever leads commits; _feed() says later up to which report
 * that has happened.
 *
 * The cursor follows the oldest event that is not done.  It does not wait for
 * one that takes longer than NANGO_QUEUE_SLOW: that one gets a row, and those
 * behind it in its lane leave for rows.  So a slow or broken connection costs
 * rows, and holds up nobody else.
 *
 * A lane that has failed or was left for rows is closed: what comes for it
 * from the log gets rows too, until the report that says so is committed and
 * the log's reader finds them itself.
 *
 * Who fails events of ten lanes at their first attempt with none delivered in
 * between, or cannot be reached, is down: one event at a time is sent, after a
 * pause that doubles.
 */

#ifndef _NANGO_QUEUE_H_INCLUDED_
#define _NANGO_QUEUE_H_INCLUDED_


#include "nango_delivery.h"


/* Events that are not done, and their bytes, that a queue asks for. */
#define NANGO_QUEUE_EVENTS     2048
#define NANGO_QUEUE_BYTES      (16 * 1024 * 1024)

/* ms: the cursor waits for an event, at most. */
#define NANGO_QUEUE_SLOW       250

/* Lanes in a row whose first attempts failed. */
#define NANGO_QUEUE_DOWN       10

/* ms between attempts at an event, and at a subscriber that is down. */
#define NANGO_QUEUE_RETRY_MIN  1000
#define NANGO_QUEUE_RETRY_MAX  (3600 * 1000)
#define NANGO_QUEUE_PROBE_MAX  (30 * 1000)


typedef struct nango_queue_s  nango_queue_t;
typedef struct nango_queued_s  nango_queued_t;


typedef enum {
    NANGO_SENT_OK = 0,              /* 2xx */
    NANGO_SENT_FAILED,              /* another answer, or none in time */
    NANGO_SENT_UNREACHED,           /* nobody is there */
    NANGO_SENT_GONE,                /* 410 */
    NANGO_SENT_NOT                  /* our own trouble: not an attempt */
} nango_sent_e;


/* NULL if there is no memory. */
nango_queue_t *nango_queue_create(size_t concurrency, uint64_t max_age_ms);
void nango_queue_free(nango_queue_t *q);    /* nothing may be in flight */

/*
 * Forgets everything but whether it is parked, and begins behind cursor.  What
 * is in flight stays its sender's, who gives it back with nango_queue_done(),
 * to no effect.
 */
void nango_queue_reset(nango_queue_t *q, uint64_t cursor);

/*
 * What was read: reports up to number are committed; deliveries (now the
 * queue's) and settled (copied) are what nango_delivery_read() gave up to
 * position, or what nango_delivery_due() did, with position 0.  0; -1 without
 * memory, and then the queue has to be reset.
 */
int nango_queue_feed(nango_queue_t *q, uint64_t number,
    nango_delivery_t *deliveries, const nango_settled_t *settled,
    size_t nsettled, uint64_t position);

/* How many events there is room for; 0: none now. */
size_t nango_queue_room(const nango_queue_t *q);

/*
 * The next event to be sent, which is in flight then, until
 * nango_queue_done(); NULL: none now.  *wait: look again after so many ms even
 * if nothing else happens, 0: not needed.  now in ms since 1970.
 */
nango_queued_t *nango_queue_next(nango_queue_t *q, uint64_t now,
    uint64_t *wait);
const nango_delivery_t *nango_queued_delivery(const nango_queued_t *e);

/*
 * What came of it.  status: the answer's, 0: none; retry_after: ms that it
 * asked for, 0: nothing; chance: any number.  e is the queue's again.
 */
void nango_queue_done(nango_queue_t *q, nango_queued_t *e, nango_sent_e sent,
    unsigned status, uint64_t retry_after, uint64_t now, uint64_t chance);

/*
 * The event itself, which is the caller's then; e is gone.  Only before a
 * reset, or the end.
 */
nango_delivery_t *nango_queue_orphan(nango_queue_t *q, nango_queued_t *e);

/* Those older than max_age that a subscriber who is down or parked leaves. */
void nango_queue_expire(nango_queue_t *q, uint64_t now);

/*
 * Nothing more is sent; what is in flight may come to its end.  Reports have
 * all that was delivered, and rows for what lies before that.
 */
void nango_queue_stop(nango_queue_t *q);

/* After nango_delivery_resume(), or when the state says that it is parked. */
void nango_queue_park(nango_queue_t *q, int parked);


/*
 * What is to be committed.  settled and released are malloc()ed arrays of the
 * caller's that grow; both are appended to.  released: lanes that the queue
 * holds rows of no longer; those of settled with held set it goes on holding.
 * after: how many of settled came before that, since it may hold the lane once
 * more.  0; -1 without memory: the queue has to be reset, and the report is
 * right as far as it goes.  *wait as above.
 */
typedef struct {
    unsigned char         lane[NANGO_KEY_LEN];
    size_t                after;
} nango_released_t;

typedef struct {
    uint64_t              cursor;
    nango_settled_t      *settled;
    size_t                nsettled;
    size_t                settled_size;
    nango_released_t     *released;
    size_t                nreleased;
    size_t                released_size;
    int                   park;
} nango_report_t;

int nango_queue_report(nango_queue_t *q, uint64_t number, uint64_t now,
    nango_report_t *report, uint64_t *wait);


/* down_since in ms since 1970, 0: it is up. */
typedef struct {
    size_t                flight;
    size_t                queued;
    int                   parked;
    uint64_t              down_since;
} nango_queue_stat_t;

void nango_queue_stat(const nango_queue_t *q, nango_queue_stat_t *stat);


#endif /* _NANGO_QUEUE_H_INCLUDED_ */
