/*
 * Copyright (C) nginx-nango authors
 *
 * The queue with each of its allocations failing once: what it reports up to
 * then may be committed before anybody begins anew, so the cursor in it passes
 * nothing of which the report does not say what became of it; and nothing is
 * left behind.
 */

#include "memory_fault.h"

#include "nango_queue.h"


#define EVENTS  200
#define PIECE   10
#define T0      1700000000000ULL


typedef struct {
    nango_queue_t    *queue;
    nango_report_t    report;
    nango_queued_t   *slow;
    uint64_t          number;
} run_t;


/* The leader has memory. */

static nango_delivery_t *
delivery(uint64_t sequence)
{
    long               countdown;
    nango_delivery_t  *d;

    countdown = atomic_exchange(&memory_countdown, -1);
    d = calloc(1, sizeof(nango_delivery_t));
    atomic_store(&memory_countdown, countdown);

    assert_non_null(d);

    d->sequence = sequence;
    d->record.received_at = T0;
    d->lane[NANGO_KEY_LEN - 1] = (unsigned char) (sequence % 7);

    return d;
}


/* Ten events; each fourth of them waits behind rows.  0: it has failed. */

static int
feed(run_t *r, uint64_t from)
{
    uint64_t            i;
    nango_settled_t     settled[PIECE];
    size_t              nsettled;
    nango_delivery_t   *first, **last;

    first = NULL;
    last = &first;
    nsettled = 0;

    for (i = from; i < from + PIECE; i++) {

        if (i % 4 == 0) {
            memset(&settled[nsettled], 0, sizeof(nango_settled_t));
            settled[nsettled].sequence = i;
            settled[nsettled].kind = NANGO_SETTLED_WAITING;
            settled[nsettled++].lane[0] = (unsigned char) i;
            continue;
        }

        *last = delivery(i);
        last = &(*last)->next;
    }

    return nango_queue_feed(r->queue, 0, first, settled, nsettled,
                            from + PIECE - 1) == 0;
}


static int
report(run_t *r, uint64_t now)
{
    int       rc;
    size_t    i;
    uint64_t  wait;
    char      seen[EVENTS + 1];

    rc = nango_queue_report(r->queue, ++r->number, now, &r->report, &wait);

    assert_true(r->report.cursor <= EVENTS);
    memset(seen, 0, sizeof(seen));

    for (i = 0; i < r->report.nsettled; i++) {

        if (!r->report.settled[i].row) {
            assert_false(seen[r->report.settled[i].sequence]);
            seen[r->report.settled[i].sequence] = 1;
        }
    }

    for (i = 1; i <= EVENTS; i++) {
        assert_int_equal(seen[i], i <= r->report.cursor);
    }

    return rc == 0;
}


static int
work(run_t *r)
{
    int              good;
    uint64_t         i, wait;
    nango_queued_t  *e;

    r->queue = nango_queue_create(8, 1000000);

    if (r->queue == NULL) {
        return 0;
    }

    good = 1;

    /* On after a failure, as the loop does until it is told. */

    for (i = 1; i <= EVENTS; i += PIECE) {
        good &= feed(r, i);

        while ((e = nango_queue_next(r->queue, T0, &wait)) != NULL) {

            if (r->slow == NULL && i > EVENTS / 2) {
                r->slow = e;
                continue;
            }

            nango_queue_done(r->queue, e,
                             nango_queued_delivery(e)->sequence % 20 == 1
                             ? NANGO_SENT_FAILED : NANGO_SENT_OK,
                             200, 0, T0, 0);
        }

        good &= report(r, T0);
    }

    good &= report(r, T0 + NANGO_QUEUE_SLOW);

    if (r->slow) {
        nango_queue_done(r->queue, r->slow, NANGO_SENT_OK, 200, 0, T0, 0);
        r->slow = NULL;
    }

    good &= report(r, T0 + NANGO_QUEUE_SLOW);

    return good;
}


static void
without_memory_nothing_is_passed(void **state)
{
    int    good, refused;
    long   i, live;
    run_t  r;

    for (i = 0; ; i++) {
        live = atomic_load(&memory_live);

        memset(&r, 0, sizeof(r));

        atomic_store(&memory_countdown, i);
        good = work(&r);
        refused = (atomic_exchange(&memory_countdown, -1) < 0);

        if (!refused) {
            assert_true(good);
            assert_int_equal(r.report.cursor, EVENTS);
        }

        nango_queue_free(r.queue);
        free(r.report.settled);
        free(r.report.released);

        assert_int_equal(atomic_load(&memory_live), live);

        if (!refused) {
            break;
        }
    }

    assert_true(i > EVENTS);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(without_memory_nothing_is_passed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
