/*
 * Copyright (C) nginx-nango authors
 *
 * See nango_queue.h.  An event is in its lane, in the order of sequences, and,
 * as long as it has no row, in the window: what lies between the cursor and
 * where the log has been read.  The window's head is what the cursor waits
 * for.  An event that is done stays there as its outcome, without the event,
 * until the cursor passes it.
 *
 * A lane is in the list of those that are ready if its first event may be
 * sent.  It ends with its last event, unless it is closed.
 */

#include "nango_queue.h"

#include <stdlib.h>
#include <string.h>


#define NANGO_QUEUE_LANES_MIN  256


typedef struct nango_lane_s    nango_lane_t;
typedef struct nango_place_s   nango_place_t;


/* A place in the window: an event that is not done, or what came of it. */
struct nango_place_s {
    nango_place_t         *next;
    nango_queued_t        *event;       /* NULL: settled */
    nango_lane_t          *lane;        /* closed, and told to be by this */
    nango_settled_t        settled;
};

struct nango_queued_s {
    nango_delivery_t      *delivery;
    nango_lane_t          *lane;        /* NULL: nobody's any more */
    nango_queued_t        *next;        /* in the lane */
    nango_place_t         *place;       /* in the window; NULL: it has a row */
    uint64_t               sent_at;
    unsigned               flight:1;
};

struct nango_lane_s {
    nango_lane_t          *chain;       /* of the hash */
    nango_lane_t          *next;        /* of those that are ready, or closed */
    nango_queued_t        *first;
    nango_queued_t        *last;
    size_t                 places;      /* that say that it is closed */
    uint64_t               number;      /* of the report that has the last */
    unsigned               ready:1;
    unsigned               closed:1;
    unsigned               reported:1;
    unsigned               rows:1;      /* to be released */
    unsigned char          key[NANGO_KEY_LEN];
};

typedef struct {
    nango_lane_t          *first;
    nango_lane_t         **last;
} nango_lanes_t;

struct nango_queue_s {
    size_t                 concurrency;
    uint64_t               max_age;

    uint64_t               cursor;
    nango_place_t         *window;
    nango_place_t        **window_last;

    nango_lane_t         **lanes;       /* hash */
    size_t                 nlanes;
    size_t                 size;        /* of the hash, a power of two */
    nango_lanes_t          ready;
    nango_lanes_t          closed;      /* without events */

    /* Settled rows, and lanes that have been let go, for the next report. */
    nango_settled_t       *rows;
    size_t                 nrows;
    size_t                 rows_size;
    unsigned char        (*released)[NANGO_KEY_LEN];
    size_t                 nreleased;
    size_t                 released_size;

    size_t                 events;      /* that are not done */
    size_t                 bytes;
    size_t                 flight;

    uint64_t               paused;      /* until */
    uint64_t               probe;       /* ms of the last pause; 0: is up */
    uint64_t               down_since;

    /* Lanes whose first attempts have failed since the last that did not. */
    unsigned char          failed_lanes[NANGO_QUEUE_DOWN][NANGO_KEY_LEN];
    unsigned               failures;

    unsigned               parked:1;
    unsigned               park:1;      /* to be reported */
    unsigned               stopped:1;
    unsigned               failed:1;    /* no memory: has to be reset */
};


static void nango_queue_acknowledge(nango_queue_t *q, uint64_t number);
static int nango_queue_add(nango_queue_t *q, nango_delivery_t *d);
static void nango_queue_add_settled(nango_queue_t *q,
    const nango_settled_t *settled);
static nango_place_t *nango_queue_place(nango_queue_t *q);
static void nango_queue_settle(nango_queue_t *q, nango_queued_t *e,
    nango_settled_e kind, uint32_t attempts, unsigned status,
    uint64_t next_at);
static void nango_queue_row(nango_queue_t *q, const nango_settled_t *settled);
static void nango_queue_drop(nango_queue_t *q, nango_queued_t *e);
static void nango_queue_clear(nango_queue_t *q);
static void nango_queue_failed(nango_queue_t *q, nango_queued_t *e,
    unsigned status, uint64_t retry_after, uint64_t now, uint64_t chance);
static void nango_queue_failure(nango_queue_t *q, const nango_lane_t *lane);
static void nango_queue_later(nango_queue_t *q, nango_queued_t *e,
    unsigned status, uint64_t delay, uint64_t now);
static void nango_queue_pause(nango_queue_t *q, uint64_t until);
static void nango_queue_again(nango_queue_t *q, nango_queued_t *e);
static void nango_queue_down(nango_queue_t *q, uint64_t now, uint64_t chance);
static void nango_queue_release(nango_queue_t *q, nango_report_t *report);
static nango_place_t *nango_queue_last(const nango_queue_t *q);
static int nango_queue_leave(nango_queue_t *q, nango_queued_t *e,
    uint64_t now);
static int nango_queue_slow(nango_queue_t *q, nango_queued_t *e, uint64_t now,
    uint64_t *wait);
static int nango_queue_without(nango_queue_t *q, nango_queued_t *e,
    uint64_t now);
static nango_lane_t *nango_lane_find(nango_queue_t *q,
    const unsigned char key[NANGO_KEY_LEN], int create);
static int nango_lane_grow(nango_queue_t *q);
static size_t nango_lane_hash(const unsigned char *key, size_t size);
static void nango_lane_ready(nango_queue_t *q, nango_lane_t *lane, int first);
static void nango_lane_unready(nango_queue_t *q, nango_lane_t *lane);
static void nango_lane_close(nango_queue_t *q, nango_lane_t *lane);
static void nango_lane_end(nango_queue_t *q, nango_lane_t *lane);
static void nango_lane_free(nango_queue_t *q, nango_lane_t *lane);
static void nango_lanes_push(nango_lanes_t *lanes, nango_lane_t *lane);
static int nango_room(void *array, size_t n, size_t *size, size_t element);
static int nango_lane_release(nango_queue_t *q, nango_lane_t *lane);
static void nango_place_wait(nango_place_t *place, nango_lane_t *lane,
    uint32_t attempts);


nango_queue_t *
nango_queue_create(size_t concurrency, uint64_t max_age_ms)
{
    nango_queue_t  *q;

    q = calloc(1, sizeof(nango_queue_t));
    if (q == NULL) {
        return NULL;
    }

    q->lanes = calloc(NANGO_QUEUE_LANES_MIN, sizeof(nango_lane_t *));
    if (q->lanes == NULL) {
        free(q);
        return NULL;
    }

    q->size = NANGO_QUEUE_LANES_MIN;
    q->concurrency = concurrency;
    q->max_age = max_age_ms;
    q->window_last = &q->window;
    q->ready.last = &q->ready.first;
    q->closed.last = &q->closed.first;

    return q;
}


void
nango_queue_free(nango_queue_t *q)
{
    if (q == NULL) {
        return;
    }

    nango_queue_clear(q);

    free(q->rows);
    free(q->released);
    free(q->lanes);
    free(q);
}


static void
nango_queue_clear(nango_queue_t *q)
{
    size_t           i;
    nango_lane_t    *lane;
    nango_place_t   *place;
    nango_queued_t  *e;

    for (i = 0; i < q->size; i++) {

        while (q->lanes[i] != NULL) {
            lane = q->lanes[i];
            q->lanes[i] = lane->chain;

            while (lane->first != NULL) {
                e = lane->first;
                lane->first = e->next;

                e->lane = NULL;
                e->place = NULL;

                if (!e->flight) {

                    if (e->delivery != NULL) {
                        nango_delivery_free(e->delivery);
                    }

                    free(e);
                }
            }

            free(lane);
        }
    }

    while (q->window != NULL) {
        place = q->window;
        q->window = place->next;
        free(place);
    }

    q->window_last = &q->window;
    q->ready.first = NULL;
    q->ready.last = &q->ready.first;
    q->closed.first = NULL;
    q->closed.last = &q->closed.first;

    q->nlanes = 0;
    q->nrows = 0;
    q->nreleased = 0;
    q->events = 0;
    q->bytes = 0;
}


void
nango_queue_reset(nango_queue_t *q, uint64_t cursor)
{
    nango_queue_clear(q);

    q->cursor = cursor;
    q->paused = 0;
    q->probe = 0;
    q->down_since = 0;
    q->failures = 0;
    q->park = 0;
    q->failed = 0;
}


int
nango_queue_feed(nango_queue_t *q, uint64_t number,
    nango_delivery_t *deliveries, const nango_settled_t *settled,
    size_t nsettled, uint64_t position)
{
    size_t             i;
    nango_place_t     *place;
    nango_delivery_t  *d;

    nango_queue_acknowledge(q, number);

    i = 0;

    /* Both are in the log's order, and the window is to be. */

    while (deliveries != NULL || i < nsettled) {

        if (i < nsettled && settled[i].row) {
            nango_queue_row(q, &settled[i++]);
            continue;
        }

        d = deliveries;

        if (d != NULL && (d->row || i == nsettled
                          || d->sequence < settled[i].sequence))
        {
            deliveries = d->next;

            if (q->failed || nango_queue_add(q, d) != 0) {
                q->failed = 1;
                nango_delivery_free(d);
            }

            continue;
        }

        nango_queue_add_settled(q, &settled[i++]);
    }

    if (position != 0) {
        place = nango_queue_place(q);

        if (place != NULL) {
            place->settled.kind = NANGO_SETTLED_SKIPPED;
            place->settled.sequence = position;
        }
    }

    return q->failed ? -1 : 0;
}


/* Lanes whose rows the log's reader has seen are closed no longer. */

static void
nango_queue_acknowledge(nango_queue_t *q, uint64_t number)
{
    nango_lane_t   *lane;
    nango_lanes_t   closed;

    closed.first = NULL;
    closed.last = &closed.first;

    while (q->closed.first != NULL) {
        lane = q->closed.first;
        q->closed.first = lane->next;

        if (lane->reported && lane->number <= number) {
            nango_lane_free(q, lane);

        } else {
            nango_lanes_push(&closed, lane);
        }
    }

    q->closed.first = closed.first;
    q->closed.last = closed.first ? closed.last : &q->closed.first;
}


/* 0, or -1 and d is still the caller's. */

static int
nango_queue_add(nango_queue_t *q, nango_delivery_t *d)
{
    nango_lane_t    *lane;
    nango_place_t   *place;
    nango_queued_t  *e;

    lane = nango_lane_find(q, d->lane, 1);
    if (lane == NULL) {
        return -1;
    }

    if (lane->closed && d->row) {

        /* Not behind what is in no row yet: once the lane is open again. */

        lane->rows = 1;

        if (lane->reported && nango_lane_release(q, lane) != 0) {
            return -1;
        }

        nango_delivery_free(d);
        return 0;
    }

    place = NULL;

    if (!d->row) {
        place = nango_queue_place(q);
        if (place == NULL) {
            return -1;
        }
    }

    if (lane->closed) {
        place->settled.sequence = d->sequence;
        memcpy(place->settled.lane, d->lane, NANGO_KEY_LEN);
        nango_place_wait(place, lane, d->attempts);

        nango_delivery_free(d);
        return 0;
    }

    e = calloc(1, sizeof(nango_queued_t));
    if (e == NULL) {
        return -1;
    }

    e->delivery = d;
    e->lane = lane;
    e->place = place;

    if (place != NULL) {
        place->event = e;
        place->settled.sequence = d->sequence;
        memcpy(place->settled.lane, d->lane, NANGO_KEY_LEN);

    } else {
        lane->rows = 1;
    }

    if (lane->first == NULL) {
        lane->first = e;
        nango_lane_ready(q, lane, 0);

    } else {
        lane->last->next = e;
    }

    lane->last = e;

    q->events++;
    q->bytes += d->record.body.len + d->record.headers.len;

    return 0;
}


/*
 * One that waits does so behind rows.  Until it has a row itself, which the
 * cursor may be far from, the log's reader may find no more of them.
 */

static void
nango_queue_add_settled(nango_queue_t *q, const nango_settled_t *settled)
{
    nango_lane_t   *lane;
    nango_place_t  *place;

    place = nango_queue_place(q);

    if (place == NULL) {
        return;
    }

    place->settled = *settled;

    if (settled->kind != NANGO_SETTLED_WAITING) {
        return;
    }

    lane = nango_lane_find(q, settled->lane, 1);

    if (lane == NULL) {
        q->failed = 1;
        return;
    }

    nango_place_wait(place, lane, settled->attempts);

    if (!lane->closed) {
        lane->closed = 1;

        if (lane->first == NULL) {
            nango_lanes_push(&q->closed, lane);
        }
    }
}


static nango_place_t *
nango_queue_place(nango_queue_t *q)
{
    nango_place_t  *place;

    place = calloc(1, sizeof(nango_place_t));

    if (place == NULL) {
        q->failed = 1;
        return NULL;
    }

    *q->window_last = place;
    q->window_last = &place->next;

    return place;
}


size_t
nango_queue_room(const nango_queue_t *q)
{
    if (q->events >= NANGO_QUEUE_EVENTS || q->bytes >= NANGO_QUEUE_BYTES) {
        return 0;
    }

    return NANGO_QUEUE_EVENTS - q->events;
}


nango_queued_t *
nango_queue_next(nango_queue_t *q, uint64_t now, uint64_t *wait)
{
    size_t           limit;
    nango_lane_t    *lane;
    nango_queued_t  *e;

    *wait = 0;

    if (q->failed || q->parked || q->stopped || q->ready.first == NULL) {
        return NULL;
    }

    limit = q->probe ? 1 : q->concurrency;

    if (q->flight >= limit) {
        return NULL;
    }

    /* Nothing is longer: else a clock has been set back. */

    if (q->paused > now + NANGO_QUEUE_RETRY_MAX) {
        q->paused = now;
    }

    if (q->paused > now) {
        *wait = q->paused - now;
        return NULL;
    }

    lane = q->ready.first;
    nango_lane_unready(q, lane);

    e = lane->first;
    e->flight = 1;
    e->sent_at = now;

    q->flight++;

    return e;
}


const nango_delivery_t *
nango_queued_delivery(const nango_queued_t *e)
{
    return e->delivery;
}


void
nango_queue_done(nango_queue_t *q, nango_queued_t *e, nango_sent_e sent,
    unsigned status, uint64_t retry_after, uint64_t now, uint64_t chance)
{
    uint32_t  attempts;

    q->flight--;
    e->flight = 0;

    if (sent == NANGO_SENT_OK) {
        q->failures = 0;
        q->down_since = 0;

        if (q->probe) {
            q->probe = 0;
            q->paused = 0;
        }
    }

    if (e->lane == NULL) {

        /* From before a reset. */

        nango_delivery_free(e->delivery);
        free(e);
        return;
    }

    attempts = e->delivery->attempts;

    switch (sent) {

    case NANGO_SENT_OK:
        nango_queue_settle(q, e, NANGO_SETTLED_DELIVERED, attempts, status, 0);
        break;

    case NANGO_SENT_FAILED:
        nango_queue_failed(q, e, status, retry_after, now, chance);
        break;

    case NANGO_SENT_UNREACHED:
        e->delivery->attempts++;
        nango_queue_again(q, e);
        nango_queue_down(q, now, chance);
        break;

    case NANGO_SENT_GONE:
        e->delivery->attempts++;
        nango_queue_again(q, e);
        q->parked = 1;
        q->park = 1;
        break;

    default: /* NANGO_SENT_NOT */

        /* A row: it may be for ever, and the event's own. */

        nango_queue_pause(q, now + NANGO_QUEUE_RETRY_MIN);
        nango_queue_later(q, e, status, NANGO_QUEUE_RETRY_MIN, now);
        break;
    }
}


nango_delivery_t *
nango_queue_orphan(nango_queue_t *q, nango_queued_t *e)
{
    nango_delivery_t  *d;

    d = e->delivery;

    q->flight--;

    if (e->lane == NULL) {
        free(e);

    } else {
        e->flight = 0;
        e->delivery = NULL;
        q->failed = 1;
    }

    return d;
}


static void
nango_queue_failed(nango_queue_t *q, nango_queued_t *e, unsigned status,
    uint64_t retry_after, uint64_t now, uint64_t chance)
{
    uint32_t  attempts;
    uint64_t  delay;

    attempts = ++e->delivery->attempts;

    if (attempts == 1) {
        nango_queue_failure(q, e->lane);
    }

    if (q->probe || q->failures == NANGO_QUEUE_DOWN) {
        nango_queue_down(q, now, chance);
    }

    if (retry_after > NANGO_QUEUE_RETRY_MAX) {
        retry_after = NANGO_QUEUE_RETRY_MAX;
    }

    if (retry_after && (status == 429 || status == 503)) {
        nango_queue_pause(q, now + retry_after);
    }

    /* Exponential, with full jitter. */

    delay = NANGO_QUEUE_RETRY_MAX;

    if (attempts <= 12) {
        delay = (uint64_t) NANGO_QUEUE_RETRY_MIN << (attempts - 1);

        if (delay > NANGO_QUEUE_RETRY_MAX) {
            delay = NANGO_QUEUE_RETRY_MAX;
        }
    }

    delay = chance % delay;

    if (delay < retry_after) {
        delay = retry_after;
    }

    nango_queue_later(q, e, status, delay, now);
}


/* One broken connection, however many its events, says nothing of others. */

static void
nango_queue_failure(nango_queue_t *q, const nango_lane_t *lane)
{
    unsigned  i;

    for (i = 0; i < q->failures; i++) {

        if (memcmp(q->failed_lanes[i], lane->key, NANGO_KEY_LEN) == 0) {
            return;
        }
    }

    if (q->failures < NANGO_QUEUE_DOWN) {
        memcpy(q->failed_lanes[q->failures++], lane->key, NANGO_KEY_LEN);
    }
}


/* As a row, or it is dead. */

static void
nango_queue_later(nango_queue_t *q, nango_queued_t *e, unsigned status,
    uint64_t delay, uint64_t now)
{
    uint32_t  attempts;
    uint64_t  end;

    attempts = e->delivery->attempts;
    end = e->delivery->record.received_at + q->max_age;

    if (now >= end) {
        nango_queue_settle(q, e, NANGO_SETTLED_DEAD, attempts, status, 0);
        return;
    }

    if (delay > end - now) {
        delay = end - now;
    }

    nango_lane_close(q, e->lane);
    nango_queue_settle(q, e, NANGO_SETTLED_WAITING, attempts, status,
                       now + delay);
}


/* The longest pause that somebody asked for. */

static void
nango_queue_pause(nango_queue_t *q, uint64_t until)
{
    if (q->paused < until) {
        q->paused = until;
    }
}


/* First in its lane, as it was. */

static void
nango_queue_again(nango_queue_t *q, nango_queued_t *e)
{
    nango_lane_ready(q, e->lane, 1);
}


static void
nango_queue_down(nango_queue_t *q, uint64_t now, uint64_t chance)
{
    if (q->probe == 0) {
        q->probe = NANGO_QUEUE_RETRY_MIN;
        q->down_since = now;

    } else if (q->paused > now) {

        /* What was in flight with the others says the same. */

        return;

    } else {
        q->probe *= 2;

        if (q->probe > NANGO_QUEUE_PROBE_MAX) {
            q->probe = NANGO_QUEUE_PROBE_MAX;
        }
    }

    nango_queue_pause(q, now + q->probe / 2 + chance % (q->probe / 2));
}


/*
 * The event, which is the first of its lane and not in flight, or was just
 * that, is over.
 */

static void
nango_queue_settle(nango_queue_t *q, nango_queued_t *e, nango_settled_e kind,
    uint32_t attempts, unsigned status, uint64_t next_at)
{
    nango_lane_t     *lane;
    nango_settled_t   row, *s;

    lane = e->lane;

    if (e->place != NULL) {
        s = &e->place->settled;
        e->place->event = NULL;

    } else {
        s = &row;
        memset(&row, 0, sizeof(nango_settled_t));
        row.sequence = e->delivery->sequence;
        memcpy(row.lane, lane->key, NANGO_KEY_LEN);
        row.row = 1;
    }

    s->kind = kind;
    s->attempts = attempts;
    s->status = (uint16_t) status;
    s->next_at = next_at;

    if (e->place == NULL) {
        nango_queue_row(q, s);

    } else if (kind == NANGO_SETTLED_WAITING) {
        nango_place_wait(e->place, lane, attempts);
    }

    nango_queue_drop(q, e);

    if (lane->first == NULL) {
        nango_lane_end(q, lane);

    } else if (!lane->first->flight && !lane->ready) {
        nango_lane_ready(q, lane, 0);
    }
}


static void
nango_queue_row(nango_queue_t *q, const nango_settled_t *settled)
{
    if (nango_room(&q->rows, q->nrows, &q->rows_size, sizeof(nango_settled_t))
        != 0)
    {
        q->failed = 1;
        return;
    }

    q->rows[q->nrows++] = *settled;
}


/* Out of its lane, wherever it is there. */

static void
nango_queue_drop(nango_queue_t *q, nango_queued_t *e)
{
    nango_lane_t     *lane;
    nango_queued_t   *before, **p;

    lane = e->lane;
    before = NULL;

    for (p = &lane->first; *p != e; p = &(*p)->next) {
        before = *p;
    }

    *p = e->next;

    if (lane->last == e) {
        lane->last = before;
    }

    q->events--;
    q->bytes -= e->delivery->record.body.len + e->delivery->record.headers.len;

    nango_delivery_free(e->delivery);
    free(e);
}


void
nango_queue_expire(nango_queue_t *q, uint64_t now)
{
    size_t            i;
    nango_lane_t     *lane, *chain;
    nango_delivery_t  *d;

    if (!q->parked && !q->probe) {
        return;
    }

    for (i = 0; i < q->size; i++) {

        for (lane = q->lanes[i]; lane != NULL; lane = chain) {

            /* It may end with its last event. */
            chain = lane->chain;

            while (lane->first != NULL && !lane->first->flight) {
                d = lane->first->delivery;

                if (now < d->record.received_at + q->max_age) {
                    break;
                }

                if (lane->first->next == NULL) {
                    nango_queue_settle(q, lane->first, NANGO_SETTLED_DEAD,
                                       d->attempts, 0, 0);
                    break;
                }

                nango_queue_settle(q, lane->first, NANGO_SETTLED_DEAD,
                                   d->attempts, 0, 0);
            }
        }
    }
}


void
nango_queue_stop(nango_queue_t *q)
{
    q->stopped = 1;
}


void
nango_queue_park(nango_queue_t *q, int parked)
{
    q->parked = (parked != 0);

    if (!parked) {
        q->park = 0;
        q->paused = 0;
    }
}


int
nango_queue_report(nango_queue_t *q, uint64_t number, uint64_t now,
    nango_report_t *report, uint64_t *wait)
{
    size_t            i;
    nango_lane_t     *lane;
    nango_place_t    *place, *last;
    nango_settled_t  *s;

    *wait = 0;

    if (q->failed) {

        /* What it has forgotten must not be passed. */

        return -1;
    }

    /* Before what is held from now on. */

    nango_queue_release(q, report);

    last = nango_queue_last(q);

    while (q->window != NULL) {
        place = q->window;

        if (place == last) {
            last = NULL;
        }

        if (place->event != NULL
            && !(last != NULL
                 ? nango_queue_leave(q, place->event, now)
                 : nango_queue_slow(q, place->event, now, wait)))
        {
            break;
        }

        /* Settled by now, also one that goes on as a row. */

        s = &place->settled;

        if (s->kind != NANGO_SETTLED_SKIPPED || s->count != 0) {

            if (nango_room(&report->settled, report->nsettled,
                           &report->settled_size, sizeof(nango_settled_t))
                != 0)
            {
                q->failed = 1;
                break;
            }

            report->settled[report->nsettled++] = *s;
        }

        q->cursor = s->sequence;

        if (place->lane != NULL) {
            place->lane->places--;
        }

        q->window = place->next;

        if (q->window == NULL) {
            q->window_last = &q->window;
        }

        free(place);
    }

    for (i = 0; i < q->nrows; i++) {

        if (nango_room(&report->settled, report->nsettled,
                       &report->settled_size, sizeof(nango_settled_t))
            != 0)
        {
            q->failed = 1;
            break;
        }

        report->settled[report->nsettled++] = q->rows[i];
    }

    q->nrows = 0;

    /* What a lane left behind is in this report, or before it. */

    for (lane = q->closed.first; lane != NULL; lane = lane->next) {

        if (!lane->reported && lane->places == 0) {
            lane->reported = 1;
            lane->number = number;

            if (lane->rows) {
                (void) nango_lane_release(q, lane);
            }
        }
    }

    nango_queue_release(q, report);

    report->cursor = q->cursor;

    if (q->park) {
        q->park = 0;
        report->park = 1;
    }

    return q->failed ? -1 : 0;
}


/* What has been let go until now. */

static void
nango_queue_release(nango_queue_t *q, nango_report_t *report)
{
    size_t             i;
    nango_released_t  *released;

    for (i = 0; i < q->nreleased; i++) {

        if (nango_room(&report->released, report->nreleased,
                       &report->released_size, sizeof(nango_released_t))
            != 0)
        {
            q->failed = 1;
            break;
        }

        released = &report->released[report->nreleased++];

        memcpy(released->lane, q->released[i], NANGO_KEY_LEN);
        released->after = report->nsettled;
    }

    q->nreleased = 0;
}


/*
 * Of a queue that is stopped, the last place in the window that was delivered:
 * whoever goes on would deliver it again, if the cursor did not get there.
 */

static nango_place_t *
nango_queue_last(const nango_queue_t *q)
{
    nango_place_t  *place, *last;

    last = NULL;

    if (!q->stopped) {
        return NULL;
    }

    for (place = q->window; place != NULL; place = place->next) {

        if (place->event == NULL
            && place->settled.kind == NANGO_SETTLED_DELIVERED)
        {
            last = place;
        }
    }

    return last;
}


/* As nango_queue_slow(), at once, and also for what was not sent. */

static int
nango_queue_leave(nango_queue_t *q, nango_queued_t *e, uint64_t now)
{
    nango_lane_t    *lane;
    nango_queued_t  *first;

    lane = e->lane;
    first = lane->first;

    if (first->flight) {
        return nango_queue_without(q, e, now);
    }

    nango_lane_close(q, lane);

    if (first->place != NULL) {
        nango_queue_settle(q, first, NANGO_SETTLED_WAITING,
                           first->delivery->attempts, 0, now);
    }

    return 1;
}


/*
 * Whether the cursor goes on without the event, which then has a row, and is
 * in its lane no longer unless it is in flight.
 */

static int
nango_queue_slow(nango_queue_t *q, nango_queued_t *e, uint64_t now,
    uint64_t *wait)
{
    uint64_t         taken;
    nango_queued_t  *first;

    first = e->lane->first;

    if (!first->flight) {
        return 0;
    }

    taken = (now > first->sent_at) ? now - first->sent_at : 0;

    if (taken < NANGO_QUEUE_SLOW) {
        *wait = NANGO_QUEUE_SLOW - taken;
        return 0;
    }

    return nango_queue_without(q, e, now);
}


/* Its lane's first one is in flight. */

static int
nango_queue_without(nango_queue_t *q, nango_queued_t *e, uint64_t now)
{
    nango_lane_t     *lane;
    nango_settled_t  *s;

    lane = e->lane;

    if (e != lane->first) {

        /* All of them: who stayed would be sent before who left. */

        nango_lane_close(q, lane);
        return 1;
    }

    s = &e->place->settled;
    s->kind = NANGO_SETTLED_WAITING;
    s->attempts = e->delivery->attempts;
    s->held = 1;
    s->next_at = now;

    e->place->event = NULL;
    e->place = NULL;

    lane->rows = 1;

    return 1;
}


void
nango_queue_stat(const nango_queue_t *q, nango_queue_stat_t *stat)
{
    stat->flight = q->flight;
    stat->queued = q->events;
    stat->parked = q->parked;
    stat->down_since = q->down_since;
}


static nango_lane_t *
nango_lane_find(nango_queue_t *q, const unsigned char key[NANGO_KEY_LEN],
    int create)
{
    size_t         i;
    nango_lane_t  *lane;

    i = nango_lane_hash(key, q->size);

    for (lane = q->lanes[i]; lane != NULL; lane = lane->chain) {

        if (memcmp(lane->key, key, NANGO_KEY_LEN) == 0) {
            return lane;
        }
    }

    if (!create) {
        return NULL;
    }

    lane = calloc(1, sizeof(nango_lane_t));
    if (lane == NULL) {
        return NULL;
    }

    if (q->nlanes >= q->size && nango_lane_grow(q) == 0) {
        i = nango_lane_hash(key, q->size);
    }

    memcpy(lane->key, key, NANGO_KEY_LEN);

    lane->chain = q->lanes[i];
    q->lanes[i] = lane;
    q->nlanes++;

    return lane;
}


/* Without memory chains grow longer. */

static int
nango_lane_grow(nango_queue_t *q)
{
    size_t         i, n, size;
    nango_lane_t  *lane, **lanes;

    size = q->size * 2;

    lanes = calloc(size, sizeof(nango_lane_t *));
    if (lanes == NULL) {
        return -1;
    }

    for (i = 0; i < q->size; i++) {

        while (q->lanes[i] != NULL) {
            lane = q->lanes[i];
            q->lanes[i] = lane->chain;

            n = nango_lane_hash(lane->key, size);
            lane->chain = lanes[n];
            lanes[n] = lane;
        }
    }

    free(q->lanes);

    q->lanes = lanes;
    q->size = size;

    return 0;
}


/* Hashes, or a sequence in the last bytes. */

static size_t
nango_lane_hash(const unsigned char *key, size_t size)
{
    uint32_t  n;

    memcpy(&n, &key[NANGO_KEY_LEN - 4], 4);

    return (size_t) ((n * 2654435761u) >> 7) & (size - 1);
}


static void
nango_lane_ready(nango_queue_t *q, nango_lane_t *lane, int first)
{
    lane->ready = 1;

    if (!first) {
        nango_lanes_push(&q->ready, lane);
        return;
    }

    lane->next = q->ready.first;
    q->ready.first = lane;

    if (lane->next == NULL) {
        q->ready.last = &lane->next;
    }
}


static void
nango_lane_unready(nango_queue_t *q, nango_lane_t *lane)
{
    nango_lane_t  **p;

    for (p = &q->ready.first; *p != lane; p = &(*p)->next) { /* void */ }

    *p = lane->next;

    if (lane->next == NULL) {
        q->ready.last = p;
    }

    lane->ready = 0;
    lane->next = NULL;
}


static void
nango_lanes_push(nango_lanes_t *lanes, nango_lane_t *lane)
{
    lane->next = NULL;

    *lanes->last = lane;
    lanes->last = &lane->next;
}


/* All behind the first leave it for rows, which some of them have. */

static void
nango_lane_close(nango_queue_t *q, nango_lane_t *lane)
{
    nango_queued_t  *e;

    lane->closed = 1;

    while (lane->first->next != NULL) {
        e = lane->first->next;

        if (e->place != NULL) {
            nango_place_wait(e->place, lane, e->delivery->attempts);
            e->place->event = NULL;
        }

        nango_queue_drop(q, e);
    }
}


/* What is settled so gets a row when the cursor is there. */

static void
nango_place_wait(nango_place_t *place, nango_lane_t *lane, uint32_t attempts)
{
    place->settled.kind = NANGO_SETTLED_WAITING;
    place->settled.attempts = attempts;

    place->lane = lane;
    lane->places++;
    lane->reported = 0;
}


/* Without events: it goes, or stays closed until that is known. */

static void
nango_lane_end(nango_queue_t *q, nango_lane_t *lane)
{
    if (lane->ready) {
        nango_lane_unready(q, lane);
    }

    if (lane->closed) {

        /* Its rows would come back before they can be taken. */

        nango_lanes_push(&q->closed, lane);
        return;
    }

    if (lane->rows && nango_lane_release(q, lane) != 0) {
        return;
    }

    nango_lane_free(q, lane);
}


static int
nango_lane_release(nango_queue_t *q, nango_lane_t *lane)
{
    if (nango_room(&q->released, q->nreleased, &q->released_size,
                   NANGO_KEY_LEN)
        != 0)
    {
        q->failed = 1;
        return -1;
    }

    memcpy(q->released[q->nreleased++], lane->key, NANGO_KEY_LEN);
    lane->rows = 0;

    return 0;
}


static void
nango_lane_free(nango_queue_t *q, nango_lane_t *lane)
{
    nango_lane_t  **p;

    p = &q->lanes[nango_lane_hash(lane->key, q->size)];

    while (*p != lane) {
        p = &(*p)->chain;
    }

    *p = lane->chain;
    q->nlanes--;

    free(lane);
}


/* Of an array that malloc() gave: room for one more. */

static int
nango_room(void *array, size_t n, size_t *size, size_t element)
{
    void    *p, **a;
    size_t   more;

    if (n < *size) {
        return 0;
    }

    a = array;
    more = *size ? *size * 2 : 64;

    p = realloc(*a, more * element);
    if (p == NULL) {
        return -1;
    }

    *a = p;
    *size = more;

    return 0;
}
