/*
 * Copyright (C) nginx-nango authors
 *
 * The queue against a plain model of the log, of rows and of a backend: who
 * leads commits reports late, dies and begins anew, and the backend takes its
 * time, fails, is away and comes back.  However that goes, a connection's
 * events are taken in their order, each one is settled once, and in the end
 * all are.
 */

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "nango_queue.h"


#define EVENTS   4000
#define LANES    12
#define FLIGHT   8
#define DAY      (24 * 3600 * 1000ULL)
#define T0       1700000000000ULL


typedef enum { BEYOND = 0, ROW, TAKEN, SKIPPED, DEAD } fate_e;

typedef struct {
    unsigned       lane;
    int            skipped;
    int            waiting;     /* would be a row as soon as it is read */
    fate_e         fate;        /* on the model's disk */
    uint32_t       attempts;
    uint64_t       next_at;
    int            accepted;    /* by the backend, how often */
    int            started;
} model_event_t;

typedef struct {
    model_event_t    events[EVENTS + 1];     /* by sequence */
    uint64_t         last;
    uint64_t         cursor;
    uint64_t         position;
    uint64_t         number;                 /* of the report being gathered */
    uint64_t         committed;
    uint64_t         now;
    int              out[LANES];
    nango_report_t   report;
    nango_queue_t   *queue;
    nango_queued_t  *flight[FLIGHT];
    uint64_t         end[FLIGHT];
    uint64_t         accepted[LANES];        /* the last one */
    uint64_t         restarts;
} model_t;


static unsigned  state;

static unsigned
chance(unsigned n)
{
    state = state * 1103515245 + 12345;

    return (state >> 8) % n;
}


static void
lane_key(unsigned char key[NANGO_KEY_LEN], unsigned lane)
{
    memset(key, 0x5a, NANGO_KEY_LEN);
    key[3] = (unsigned char) lane;
    key[NANGO_KEY_LEN - 1] = (unsigned char) (lane * 37);
}


static unsigned
lane_of(const unsigned char *key)
{
    return key[3];
}


static nango_delivery_t *
delivery(uint64_t sequence, unsigned lane, uint64_t received_at)
{
    nango_delivery_t  *d;

    /* As nango_delivery_free() has it: one piece of memory. */

    d = calloc(1, sizeof(nango_delivery_t));
    assert_non_null(d);

    d->sequence = sequence;
    d->record.received_at = received_at;
    d->record.body.len = 100;
    lane_key(d->lane, lane);

    return d;
}


static int
lane_has_rows(model_t *m, unsigned lane)
{
    uint64_t  s;

    for (s = 1; s <= m->cursor; s++) {

        if (m->events[s].fate == ROW && m->events[s].lane == lane) {
            return 1;
        }
    }

    return 0;
}


static void
settled_push(nango_settled_t **array, size_t *n, const nango_settled_t *s)
{
    *array = realloc(*array, (*n + 1) * sizeof(nango_settled_t));
    assert_non_null(*array);

    (*array)[(*n)++] = *s;
}


/* As the leader reads the log. */

static void
model_read(model_t *m)
{
    size_t              n, max;
    uint64_t            position;
    nango_settled_t    *settled, s;
    nango_delivery_t   *first, **last;

    max = nango_queue_room(m->queue);

    if (max > 50) {
        max = 50;
    }

    settled = NULL;
    n = 0;
    first = NULL;
    last = &first;
    position = m->position;

    while (max && m->position < m->last) {
        m->position++;

        memset(&s, 0, sizeof(s));
        s.sequence = m->position;
        lane_key(s.lane, m->events[m->position].lane);

        if (m->events[m->position].skipped) {
            s.kind = NANGO_SETTLED_SKIPPED;
            s.count = 1;
            settled_push(&settled, &n, &s);
            continue;
        }

        if (lane_has_rows(m, m->events[m->position].lane)) {
            s.kind = NANGO_SETTLED_WAITING;
            settled_push(&settled, &n, &s);
            continue;
        }

        *last = delivery(m->position, m->events[m->position].lane, m->now);
        last = &(*last)->next;
        max--;
    }

    if (m->position != position) {
        assert_int_equal(nango_queue_feed(m->queue, m->committed, first,
                                          settled, n, m->position),
                         0);
    }

    free(settled);
}


/* As the leader reads rows that are due: a lane's first ones, in order. */

static void
model_due(model_t *m)
{
    unsigned           lane;
    uint64_t           s;
    nango_delivery_t  *first, **last;

    first = NULL;
    last = &first;

    for (lane = 0; lane < LANES; lane++) {

        if (m->out[lane]) {
            continue;
        }

        for (s = 1; s <= m->cursor; s++) {

            if (m->events[s].lane != lane || m->events[s].fate != ROW) {
                continue;
            }

            if (!m->out[lane] && m->events[s].next_at > m->now) {
                break;
            }

            m->out[lane] = 1;

            *last = delivery(s, lane, m->now);
            (*last)->row = 1;
            (*last)->attempts = m->events[s].attempts;
            last = &(*last)->next;
        }
    }

    if (first) {
        assert_int_equal(nango_queue_feed(m->queue, m->committed, first, NULL,
                                          0, 0),
                         0);
    }
}


static void
model_report(model_t *m)
{
    uint64_t  wait;

    assert_int_equal(nango_queue_report(m->queue, m->number, m->now,
                                        &m->report, &wait),
                     0);
}


/* Those from the k-th on that were let go before the i-th was settled. */

static size_t
model_release(model_t *m, size_t k, size_t i)
{
    for ( /* void */ ; k < m->report.nreleased; k++) {

        if (m->report.released[k].after > i) {
            break;
        }

        m->out[lane_of(m->report.released[k].lane)] = 0;
    }

    return k;
}


static void
model_commit(model_t *m)
{
    size_t            i, k;
    uint64_t          s, counted;
    model_event_t    *e;
    nango_settled_t  *t;

    counted = m->cursor;
    k = 0;

    for (i = 0; i < m->report.nsettled; i++) {
        k = model_release(m, k, i);
        t = &m->report.settled[i];
        e = &m->events[t->sequence];

        assert_int_equal(lane_of(t->lane), e->lane);

        if (t->row) {
            assert_int_equal(e->fate, ROW);

        } else {
            assert_int_equal(e->fate, BEYOND);
            assert_true(t->sequence > counted);
            assert_true(t->sequence <= m->report.cursor);
        }

        switch (t->kind) {
        case NANGO_SETTLED_DELIVERED:
            assert_true(e->accepted > 0);
            e->fate = TAKEN;
            break;

        case NANGO_SETTLED_SKIPPED:
            assert_true(e->skipped);
            e->fate = SKIPPED;
            break;

        case NANGO_SETTLED_WAITING:
            e->fate = ROW;
            e->attempts = t->attempts;
            e->next_at = t->next_at;

            if (t->held) {
                m->out[e->lane] = 1;
            }

            break;

        default:
            e->fate = DEAD;
            break;
        }
    }

    k = model_release(m, k, i);
    assert_int_equal(k, m->report.nreleased);

    assert_true(m->report.cursor >= m->cursor);

    m->cursor = m->report.cursor;

    for (s = 1; s <= m->cursor; s++) {
        assert_int_not_equal(m->events[s].fate, BEYOND);
    }

    m->report.nsettled = 0;
    m->report.nreleased = 0;
    m->committed = m->number++;
}


/* Another leader begins where the last commit was. */

static void
model_restart(model_t *m)
{
    unsigned           i;
    nango_delivery_t  *d;

    for (i = 0; i < FLIGHT; i++) {

        if (m->flight[i]) {

            if (chance(2)) {
                d = nango_queue_orphan(m->queue, m->flight[i]);
                nango_delivery_free(d);
                m->flight[i] = NULL;
            }
        }
    }

    nango_queue_reset(m->queue, m->cursor);

    for (i = 0; i < FLIGHT; i++) {

        if (m->flight[i]) {
            nango_queue_done(m->queue, m->flight[i], NANGO_SENT_OK, 200, 0,
                             m->now, 0);
            m->flight[i] = NULL;
        }
    }

    m->report.nsettled = 0;
    m->report.nreleased = 0;
    m->committed = m->number++;
    m->position = m->cursor;
    memset(m->out, 0, sizeof(m->out));
    m->restarts++;
}


static void
model_send(model_t *m, int slow)
{
    unsigned                 i, flight;
    uint64_t                 wait;
    nango_queued_t          *q;
    nango_queue_stat_t       stat;
    const nango_delivery_t  *d;

    for ( ;; ) {
        q = nango_queue_next(m->queue, m->now, &wait);

        if (q == NULL) {
            break;
        }

        nango_queue_stat(m->queue, &stat);
        assert_true(stat.flight <= (stat.down_since ? 1 : FLIGHT));

        d = nango_queued_delivery(q);
        flight = 0;

        for (i = 0; i < FLIGHT; i++) {

            if (m->flight[i]) {
                assert_int_not_equal(
                    lane_of(nango_queued_delivery(m->flight[i])->lane),
                    lane_of(d->lane));
                flight++;
            }
        }

        assert_true(flight < FLIGHT);

        /* Nobody is sent before those before it were taken. */

        for (uint64_t s = 1; m->restarts == 0 && s < d->sequence; s++) {

            if (m->events[s].lane == lane_of(d->lane) && !m->events[s].skipped
                && m->events[s].fate != DEAD)
            {
                assert_true(m->events[s].accepted);
            }
        }

        m->events[d->sequence].started++;

        for (i = 0; m->flight[i]; i++) { /* void */ }

        m->flight[i] = q;
        m->end[i] = m->now + (chance(50) < (unsigned) slow ? chance(3000)
                                                           : chance(20));
    }
}


static void
model_answer(model_t *m, int bad, int away)
{
    unsigned        i;
    uint64_t        s;
    nango_queued_t  *q;
    model_event_t   *e;

    for (i = 0; i < FLIGHT; i++) {
        q = m->flight[i];

        if (q == NULL || m->end[i] > m->now) {
            continue;
        }

        m->flight[i] = NULL;

        s = nango_queued_delivery(q)->sequence;
        e = &m->events[s];

        if (away) {
            nango_queue_done(m->queue, q, NANGO_SENT_UNREACHED, 0, 0, m->now,
                             chance(100000));

        } else if (chance(100) < (unsigned) bad) {
            nango_queue_done(m->queue, q, NANGO_SENT_FAILED, 500, 0, m->now,
                             chance(100000));

        } else if (chance(100) == 0) {
            nango_queue_done(m->queue, q, NANGO_SENT_NOT, 0, 0, m->now, 0);

        } else {
            e->accepted++;

            if (m->restarts == 0) {
                assert_true(m->accepted[e->lane] < s);
                assert_int_equal(e->accepted, 1);
                m->accepted[e->lane] = s;
            }

            nango_queue_done(m->queue, q, NANGO_SENT_OK, 200, 0, m->now, 0);
        }
    }
}


static void
run(unsigned seed, int bad, int slow, int away, int crashes)
{
    int                  i, open, gone;
    model_t             *m;
    uint64_t             s;
    nango_queue_stat_t   stat;

    state = seed;

    m = calloc(1, sizeof(model_t));
    assert_non_null(m);

    m->now = T0;
    m->number = 1;
    m->queue = nango_queue_create(FLIGHT, 3 * DAY);
    assert_non_null(m->queue);

    nango_queue_reset(m->queue, 0);

    gone = 0;
    open = 1;

    for (i = 0; i < 400000 && open; i++) {
        m->now += chance(30);

        if (m->last < EVENTS && chance(3) == 0) {
            m->last++;

            /* Some connections have most of the events. */

            m->events[m->last].lane = chance(2) ? chance(LANES) : chance(2);
            m->events[m->last].skipped = (chance(10) == 0);
        }

        if (away && chance(500) == 0) {
            gone = !gone;
        }

        if (m->last == EVENTS) {
            gone = 0;
        }

        switch (chance(6)) {
        case 0:
            model_read(m);
            break;

        case 1:
            model_due(m);
            break;

        case 2:
            model_report(m);

            if (chance(3) == 0) {
                model_commit(m);
            }

            break;

        case 3:
            if (crashes && chance(300) == 0) {
                model_restart(m);
            }

            break;

        default:
            model_send(m, slow);
            model_answer(m, bad, gone);
            break;
        }

        if (m->last == EVENTS && m->cursor == EVENTS && i % 100 == 0) {
            open = 0;

            for (s = 1; s <= EVENTS && !open; s++) {
                open = (m->events[s].fate == ROW
                        || m->events[s].fate == BEYOND);
            }
        }

        /* Nobody waits for hours here. */

        nango_queue_stat(m->queue, &stat);

        if (chance(200) == 0 && stat.flight == 0) {
            m->now += stat.down_since ? NANGO_QUEUE_PROBE_MAX : 1000;
        }
    }

    assert_false(open);
    assert_int_equal(m->cursor, EVENTS);

    for (s = 1; s <= EVENTS; s++) {
        assert_int_equal(m->events[s].fate,
                         m->events[s].skipped ? SKIPPED : TAKEN);

        if (!crashes) {
            assert_int_equal(m->events[s].accepted, !m->events[s].skipped);
        }
    }

    for (i = 0; i < FLIGHT; i++) {

        if (m->flight[i]) {
            nango_delivery_free(nango_queue_orphan(m->queue, m->flight[i]));
        }
    }

    nango_queue_free(m->queue);
    free(m->report.settled);
    free(m->report.released);
    free(m);
}


static unsigned
seed(void)
{
    const char  *text;

    text = getenv("NANGO_SEED");

    return text ? (unsigned) atoi(text) : 1;
}


static void
all_arrives(void **unused)
{
    run(seed(), 0, 0, 0, 0);
}


static void
some_fails(void **unused)
{
    run(seed() + 1, 30, 2, 0, 0);
}


static void
a_backend_comes_and_goes(void **unused)
{
    run(seed() + 2, 5, 1, 1, 0);
}


static void
leaders_die(void **unused)
{
    run(seed() + 3, 20, 2, 1, 1);
}


static nango_queue_t *
fresh(size_t concurrency)
{
    nango_queue_t  *q;

    q = nango_queue_create(concurrency, DAY);
    assert_non_null(q);

    nango_queue_reset(q, 0);

    return q;
}


static void
feed(nango_queue_t *q, uint64_t sequence, unsigned lane)
{
    assert_int_equal(nango_queue_feed(q, 0, delivery(sequence, lane, T0), NULL,
                                      0, sequence),
                     0);
}


static nango_queued_t *
next(nango_queue_t *q, uint64_t now)
{
    uint64_t  wait;

    return nango_queue_next(q, now, &wait);
}


static void
more(nango_queue_t *q, uint64_t number, uint64_t now, nango_report_t *r)
{
    uint64_t  wait;

    assert_int_equal(nango_queue_report(q, number, now, r, &wait), 0);
}


static nango_report_t
report(nango_queue_t *q, uint64_t number, uint64_t now)
{
    nango_report_t  r;

    memset(&r, 0, sizeof(r));
    more(q, number, now, &r);

    return r;
}


static void
report_free(nango_report_t *r)
{
    free(r->settled);
    free(r->released);
}


static void
failed(nango_queue_t *q, unsigned status, uint64_t retry_after, uint64_t now,
    uint64_t by)
{
    nango_queued_t  *e;

    e = next(q, now);
    assert_non_null(e);

    nango_queue_done(q, e, NANGO_SENT_FAILED, status, retry_after, now, by);
}


/* Attempt by attempt: the greatest delay there is, never more than hours. */

static void
delays_double(void **unused)
{
    unsigned           n;
    uint64_t           most;
    nango_queue_t     *q;
    nango_report_t     r;
    nango_delivery_t  *d;

    for (n = 0; n < 40; n++) {
        q = fresh(4);

        d = delivery(1, 1, T0);
        d->attempts = n;
        d->row = 1;
        assert_int_equal(nango_queue_feed(q, 0, d, NULL, 0, 0), 0);

        failed(q, 500, 0, T0, UINT64_MAX);

        r = report(q, 1, T0);
        assert_int_equal(r.nsettled, 1);
        assert_int_equal(r.settled[0].kind, NANGO_SETTLED_WAITING);
        assert_int_equal(r.settled[0].attempts, n + 1);
        assert_int_equal(r.settled[0].status, 500);
        assert_true(r.settled[0].row);

        most = (n < 12) ? 1000ULL << n : 3600000;
        most = most > 3600000 ? 3600000 : most;

        assert_true(r.settled[0].next_at == T0 + UINT64_MAX % most);
        assert_int_equal(r.nreleased, 1);

        report_free(&r);
        nango_queue_free(q);
    }
}


static void
retry_after_is_honoured(void **unused)
{
    nango_queue_t   *q;
    nango_queued_t  *e;
    nango_report_t   r;

    q = fresh(4);

    feed(q, 1, 1);
    feed(q, 2, 2);

    failed(q, 503, 7000, T0, 0);

    r = report(q, 1, T0);
    assert_int_equal(r.nsettled, 1);
    assert_true(r.settled[0].next_at == T0 + 7000);
    report_free(&r);

    /* It is said of the backend, and so for all. */

    assert_null(next(q, T0 + 6999));
    e = next(q, T0 + 7000);
    assert_non_null(e);

    nango_delivery_free(nango_queue_orphan(q, e));
    nango_queue_free(q);
}


static void
too_old_is_dead(void **unused)
{
    nango_queue_t   *q;
    nango_report_t   r;

    q = fresh(4);

    feed(q, 1, 1);
    failed(q, 500, 0, T0 + DAY - 10, UINT64_MAX);

    /* Once more, at the end of its time. */

    r = report(q, 1, T0 + DAY - 10);
    assert_int_equal(r.settled[0].kind, NANGO_SETTLED_WAITING);
    assert_true(r.settled[0].next_at <= T0 + DAY);
    report_free(&r);

    feed(q, 2, 2);
    failed(q, 500, 0, T0 + DAY, 0);

    r = report(q, 2, T0 + DAY);
    assert_int_equal(r.nsettled, 1);
    assert_int_equal(r.settled[0].kind, NANGO_SETTLED_DEAD);
    assert_int_equal(r.settled[0].attempts, 1);
    assert_int_equal(r.settled[0].status, 500);
    report_free(&r);

    nango_queue_free(q);
}


/* Nobody tries those for whom it is too late, while it is down. */

static void
what_is_down_expires(void **unused)
{
    nango_queue_t   *q;
    nango_queued_t  *e;
    nango_report_t   r;

    q = fresh(4);

    feed(q, 1, 1);
    feed(q, 2, 1);
    feed(q, 3, 2);

    nango_queue_expire(q, T0 + DAY);
    r = report(q, 1, T0 + DAY);
    assert_int_equal(r.nsettled, 0);

    e = next(q, T0);
    nango_queue_done(q, e, NANGO_SENT_UNREACHED, 0, 0, T0, 0);

    nango_queue_expire(q, T0 + DAY - 1);
    r = report(q, 1, T0 + DAY);
    assert_int_equal(r.nsettled, 0);

    nango_queue_expire(q, T0 + DAY);
    r = report(q, 1, T0 + DAY);
    assert_int_equal(r.nsettled, 3);
    assert_int_equal(r.settled[0].kind, NANGO_SETTLED_DEAD);
    assert_int_equal(r.settled[0].attempts, 1);
    assert_int_equal(r.settled[2].kind, NANGO_SETTLED_DEAD);
    assert_int_equal(r.settled[2].attempts, 0);
    assert_int_equal(r.cursor, 3);
    report_free(&r);

    nango_queue_free(q);
}


static void
down_is_probed(void **unused)
{
    unsigned             i;
    uint64_t             now, pause;
    nango_queue_t       *q;
    nango_queued_t      *e, *all[16];
    nango_queue_stat_t   stat;

    q = fresh(16);
    now = T0;
    pause = 1000;

    for (i = 1; i <= 40; i++) {
        feed(q, i, i);
    }

    for (i = 0; i < 10; i++) {
        e = next(q, now);
        assert_non_null(e);

        /* The same one: it is not the event's fault. */

        assert_int_equal(nango_queued_delivery(e)->sequence, 1);
        assert_int_equal(nango_queued_delivery(e)->attempts, i);

        if (i) {
            assert_null(next(q, now));
        }

        nango_queue_done(q, e, NANGO_SENT_UNREACHED, 0, 0, now, 0);

        assert_null(next(q, now + pause / 2 - 1));
        now += pause / 2;

        pause = pause * 2 > 30000 ? 30000 : pause * 2;
    }

    e = next(q, now);
    nango_queue_done(q, e, NANGO_SENT_OK, 200, 0, now, 0);

    nango_queue_stat(q, &stat);
    assert_true(stat.down_since == 0);

    for (i = 0; i < 16; i++) {
        all[i] = next(q, now);
        assert_non_null(all[i]);
    }

    assert_null(next(q, now));

    for (i = 0; i < 16; i++) {
        nango_delivery_free(nango_queue_orphan(q, all[i]));
    }

    nango_queue_free(q);
}


/* It takes ten in a row that fail at their first attempt. */

static void
failures_in_a_row(void **unused)
{
    unsigned             i, round;
    nango_queue_t       *q;
    nango_queued_t      *e;
    nango_report_t       r;
    nango_queue_stat_t   stat;

    q = fresh(1);

    for (round = 0; round < 2; round++) {

        for (i = 0; i < NANGO_QUEUE_DOWN - 1; i++) {
            feed(q, 1 + round * 100 + i, 1 + i);
            failed(q, 500, 0, T0, 0);

            r = report(q, 1 + round * 100 + i, T0);
            report_free(&r);

            assert_int_equal(nango_queue_feed(q, 1 + round * 100 + i, NULL,
                                              NULL, 0, 0),
                             0);
        }

        nango_queue_stat(q, &stat);
        assert_true(stat.down_since == 0);

        if (round == 0) {
            feed(q, 90, 90);
            e = next(q, T0);
            nango_queue_done(q, e, NANGO_SENT_OK, 200, 0, T0, 0);
        }
    }

    feed(q, 190, 90);
    failed(q, 500, 0, T0, 0);

    nango_queue_stat(q, &stat);
    assert_true(stat.down_since == T0);

    nango_queue_free(q);
}


static void
gone_is_parked(void **unused)
{
    nango_queue_t       *q;
    nango_queued_t      *e;
    nango_report_t       r;
    nango_queue_stat_t   stat;

    q = fresh(4);

    feed(q, 1, 1);
    e = next(q, T0);
    nango_queue_done(q, e, NANGO_SENT_GONE, 410, 0, T0, 0);

    assert_null(next(q, T0 + DAY / 2));

    nango_queue_stat(q, &stat);
    assert_true(stat.parked);

    r = report(q, 1, T0);
    assert_true(r.park);
    assert_int_equal(r.cursor, 0);
    report_free(&r);

    r = report(q, 2, T0);
    assert_false(r.park);

    nango_queue_park(q, 0);

    e = next(q, T0);
    assert_non_null(e);
    assert_int_equal(nango_queued_delivery(e)->attempts, 1);

    nango_delivery_free(nango_queue_orphan(q, e));
    nango_queue_free(q);
}


/* The cursor does not wait for one that hangs, nor the others of its lane. */

static void
slow_ones_get_rows(void **unused)
{
    uint64_t         wait;
    nango_queue_t   *q;
    nango_queued_t  *slow, *e;
    nango_report_t   r;

    q = fresh(2);

    feed(q, 1, 1);
    feed(q, 2, 1);
    feed(q, 3, 2);
    feed(q, 4, 1);

    slow = next(q, T0);
    e = next(q, T0);
    assert_int_equal(nango_queued_delivery(e)->sequence, 3);
    nango_queue_done(q, e, NANGO_SENT_OK, 200, 0, T0, 0);

    memset(&r, 0, sizeof(r));

    assert_int_equal(nango_queue_report(q, 1, T0 + 249, &r, &wait), 0);
    assert_int_equal(r.nsettled, 0);
    assert_int_equal(r.cursor, 0);
    assert_int_equal(wait, 1);

    r = report(q, 1, T0 + 250);
    assert_int_equal(r.nsettled, 4);
    assert_int_equal(r.cursor, 4);

    assert_int_equal(r.settled[0].sequence, 1);
    assert_true(r.settled[0].held);
    assert_int_equal(r.settled[1].kind, NANGO_SETTLED_WAITING);
    assert_false(r.settled[1].held);
    assert_int_equal(r.settled[2].kind, NANGO_SETTLED_DELIVERED);
    assert_int_equal(r.settled[3].kind, NANGO_SETTLED_WAITING);
    assert_int_equal(r.nreleased, 0);
    report_free(&r);

    /* What is read before that is known does not overtake them. */

    feed(q, 5, 1);
    assert_null(next(q, T0 + 250));

    nango_queue_done(q, slow, NANGO_SENT_OK, 200, 0, T0 + 300, 0);
    assert_null(next(q, T0 + 300));

    r = report(q, 2, T0 + 300);
    assert_int_equal(r.nsettled, 2);
    assert_int_equal(r.settled[0].sequence, 5);
    assert_int_equal(r.settled[0].kind, NANGO_SETTLED_WAITING);
    assert_int_equal(r.settled[1].sequence, 1);
    assert_int_equal(r.settled[1].kind, NANGO_SETTLED_DELIVERED);
    assert_true(r.settled[1].row);
    assert_int_equal(r.nreleased, 1);
    report_free(&r);

    nango_queue_free(q);
}


static void
a_stopped_one_sends_nothing(void **unused)
{
    nango_queue_t  *q;

    q = fresh(2);

    feed(q, 1, 1);
    nango_queue_stop(q);
    assert_null(next(q, T0));

    nango_queue_free(q);
}


static void
a_stopped_one_reports_what_was_delivered(void **unused)
{
    nango_queue_t   *q;
    nango_queued_t  *slow, *e;
    nango_report_t   r;

    q = fresh(3);

    feed(q, 1, 1);
    feed(q, 2, 1);
    feed(q, 3, 2);
    feed(q, 4, 2);
    feed(q, 5, 3);
    feed(q, 6, 4);

    slow = next(q, T0);
    e = next(q, T0);
    assert_int_equal(nango_queued_delivery(e)->sequence, 3);
    nango_queue_done(q, e, NANGO_SENT_OK, 200, 0, T0, 0);
    e = next(q, T0);
    assert_int_equal(nango_queued_delivery(e)->sequence, 5);
    nango_queue_done(q, e, NANGO_SENT_OK, 200, 0, T0, 0);

    r = report(q, 1, T0);
    assert_int_equal(r.nsettled, 0);
    report_free(&r);

    nango_queue_stop(q);

    r = report(q, 1, T0);
    assert_int_equal(r.nsettled, 5);
    assert_int_equal(r.cursor, 5);
    assert_int_equal(r.settled[0].kind, NANGO_SETTLED_WAITING);
    assert_true(r.settled[0].held);
    assert_int_equal(r.settled[1].kind, NANGO_SETTLED_WAITING);
    assert_int_equal(r.settled[2].kind, NANGO_SETTLED_DELIVERED);
    assert_int_equal(r.settled[3].kind, NANGO_SETTLED_WAITING);
    assert_int_equal(r.settled[3].sequence, 4);
    assert_false(r.settled[3].held);
    assert_int_equal(r.settled[4].kind, NANGO_SETTLED_DELIVERED);
    report_free(&r);

    nango_queue_done(q, slow, NANGO_SENT_OK, 200, 0, T0, 0);

    r = report(q, 2, T0);
    assert_int_equal(r.nsettled, 1);
    assert_int_equal(r.settled[0].kind, NANGO_SETTLED_DELIVERED);
    assert_true(r.settled[0].row);
    assert_int_equal(r.cursor, 5);
    report_free(&r);

    nango_queue_free(q);
}


/* What happens to a lane is put together in one report, in its order. */

static void
a_lane_that_is_let_go_and_held_again(void **unused)
{
    int                out;
    size_t             i, k;
    nango_queue_t     *q;
    nango_queued_t    *e;
    nango_report_t     r;
    nango_delivery_t  *d;

    q = fresh(4);

    d = delivery(1, 1, T0);
    d->row = 1;
    assert_int_equal(nango_queue_feed(q, 0, d, NULL, 0, 0), 0);
    nango_queue_done(q, next(q, T0), NANGO_SENT_OK, 200, 0, T0, 0);

    r = report(q, 1, T0);
    assert_int_equal(r.nreleased, 1);

    feed(q, 2, 1);
    e = next(q, T0);
    assert_non_null(e);
    more(q, 1, T0 + NANGO_QUEUE_SLOW, &r);

    assert_int_equal(r.nsettled, 2);
    assert_int_equal(r.nreleased, 1);
    assert_true(r.settled[1].held);

    /* As who remembers lanes that are out does. */

    out = 1;

    for (i = 0, k = 0; i < r.nsettled; i++) {

        for ( /* void */ ; k < r.nreleased && r.released[k].after <= i; k++) {
            out = 0;
        }

        out |= r.settled[i].held;
    }

    assert_int_equal(k, 1);
    assert_int_equal(out, 1);

    nango_queue_done(q, e, NANGO_SENT_OK, 200, 0, T0, 0);
    report_free(&r);
    nango_queue_free(q);
}


/*
 * While an event waits to get a row because its lane has some, those are not
 * taken, and not let go either: they would come again and again.
 */

static void
rows_of_a_closed_lane_come_once(void **unused)
{
    unsigned           i;
    nango_queue_t     *q;
    nango_report_t     r;
    nango_settled_t    waits;
    nango_queued_t    *first, *e;
    nango_delivery_t  *d;

    q = fresh(1);

    feed(q, 2, 2);
    feed(q, 3, 3);

    memset(&waits, 0, sizeof(waits));
    waits.sequence = 4;
    waits.kind = NANGO_SETTLED_WAITING;
    lane_key(waits.lane, 1);
    assert_int_equal(nango_queue_feed(q, 0, NULL, &waits, 1, 4), 0);

    first = next(q, T0);
    assert_int_equal(nango_queued_delivery(first)->sequence, 2);

    for (i = 1; i < 4; i++) {
        d = delivery(1, 1, T0);
        d->row = 1;
        assert_int_equal(nango_queue_feed(q, 0, d, NULL, 0, 0), 0);

        r = report(q, i, T0 + NANGO_QUEUE_SLOW);
        assert_int_equal(r.nreleased, 0);
        assert_int_equal(r.cursor, 2);
        report_free(&r);
    }

    nango_queue_done(q, first, NANGO_SENT_OK, 200, 0, T0, 0);
    e = next(q, T0);
    assert_int_equal(nango_queued_delivery(e)->sequence, 3);
    nango_queue_done(q, e, NANGO_SENT_OK, 200, 0, T0, 0);

    /* Now it has its row, and they may come. */

    r = report(q, 4, T0);
    assert_int_equal(r.cursor, 4);
    assert_int_equal(r.nreleased, 2);
    assert_int_equal(lane_of(r.released[0].lane), 2);
    assert_int_equal(lane_of(r.released[1].lane), 1);
    report_free(&r);

    d = delivery(1, 1, T0);
    d->row = 1;
    assert_int_equal(nango_queue_feed(q, 4, d, NULL, 0, 0), 0);
    e = next(q, T0);
    assert_non_null(e);
    assert_int_equal(nango_queued_delivery(e)->sequence, 1);
    nango_queue_done(q, e, NANGO_SENT_OK, 200, 0, T0, 0);

    nango_queue_free(q);
}


static void
a_clock_that_is_set_back_stops_nobody(void **unused)
{
    uint64_t         wait;
    nango_queue_t   *q;
    nango_queued_t  *e;

    q = fresh(2);
    feed(q, 1, 1);
    feed(q, 2, 2);

    failed(q, 429, 3600 * 1000, T0, 0);

    assert_null(nango_queue_next(q, T0, &wait));
    assert_int_equal(wait, 3600 * 1000);

    e = next(q, T0 - DAY);
    assert_non_null(e);

    nango_queue_done(q, e, NANGO_SENT_OK, 200, 0, T0 - DAY, 0);
    nango_queue_free(q);
}


static void
room_is_bounded(void **unused)
{
    unsigned           i;
    nango_queue_t     *q;
    nango_delivery_t  *d;

    q = fresh(2);

    for (i = 1; i <= NANGO_QUEUE_EVENTS; i++) {
        assert_int_equal(nango_queue_room(q), NANGO_QUEUE_EVENTS - i + 1);
        feed(q, i, i % 250);
    }

    assert_int_equal(nango_queue_room(q), 0);

    nango_queue_reset(q, 0);
    assert_int_equal(nango_queue_room(q), NANGO_QUEUE_EVENTS);

    d = delivery(1, 1, T0);
    d->record.body.len = NANGO_QUEUE_BYTES;
    assert_int_equal(nango_queue_feed(q, 0, d, NULL, 0, 1), 0);
    assert_int_equal(nango_queue_room(q), 0);

    nango_queue_free(q);
    nango_queue_free(NULL);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(all_arrives),
        cmocka_unit_test(some_fails),
        cmocka_unit_test(a_backend_comes_and_goes),
        cmocka_unit_test(leaders_die),
        cmocka_unit_test(delays_double),
        cmocka_unit_test(retry_after_is_honoured),
        cmocka_unit_test(too_old_is_dead),
        cmocka_unit_test(what_is_down_expires),
        cmocka_unit_test(down_is_probed),
        cmocka_unit_test(failures_in_a_row),
        cmocka_unit_test(gone_is_parked),
        cmocka_unit_test(slow_ones_get_rows),
        cmocka_unit_test(a_stopped_one_sends_nothing),
        cmocka_unit_test(a_stopped_one_reports_what_was_delivered),
        cmocka_unit_test(a_lane_that_is_let_go_and_held_again),
        cmocka_unit_test(rows_of_a_closed_lane_come_once),
        cmocka_unit_test(a_clock_that_is_set_back_stops_nobody),
        cmocka_unit_test(room_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
