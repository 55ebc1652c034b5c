/*
 * Copyright (C) nginx-nango authors
 *
 * What the tests of deliveries share: subscribers of a few words, reading what
 * they are owed, and folds that settle it.
 */

#ifndef _STORE_DELIVER_H_INCLUDED_
#define _STORE_DELIVER_H_INCLUDED_


#include "store_test.h"


/* What a reading, or what was due, came to. */

typedef struct {
    nango_delivery_t     *deliveries;
    nango_settled_t      *settled;
    size_t                nsettled;
    size_t                size;
    uint64_t              position;
    uint64_t              next_at;
    int                   more;
} owing_t;


static inline nango_subscriber_t
subscriber(const char *environment, const char *name)
{
    nango_subscriber_t  s;

    memset(&s, 0, sizeof(s));

    s.environment = Z(environment);
    s.name = Z(name);
    s.max_age_ms = HOUR;

    assert_int_equal(nango_subscriber_key(s.key, s.environment, s.name), 0);

    return s;
}


static inline void
subscribe(nango_store_t *store, const nango_subscriber_t *s)
{
    assert_ok(nango_delivery_register(store, s, 1, T0, &failure));
}


static inline void
owing_free(owing_t *o)
{
    nango_delivery_t  *d;

    while (o->deliveries) {
        d = o->deliveries;
        o->deliveries = d->next;
        nango_delivery_free(d);
    }

    free(o->settled);
    memset(o, 0, sizeof(owing_t));
}


static inline size_t
owing_count(const owing_t *o)
{
    size_t             n;
    nango_delivery_t  *d;

    n = 0;

    for (d = o->deliveries; d; d = d->next) {
        n++;
    }

    return n;
}


/* From o->position on. */

static inline void
read_more(nango_store_t *store, const nango_subscriber_t *s, owing_t *o,
    size_t max)
{
    nango_delivery_read_t  how;

    memset(&how, 0, sizeof(how));

    how.now_ms = T0;
    how.max_events = max;
    how.max_bytes = 1024 * 1024;

    assert_ok(nango_delivery_read(store, s, &how, &o->position, &o->more,
                                  &o->deliveries, &o->settled, &o->nsettled,
                                  &o->size, &failure));
}


static inline int
expire(nango_store_t *store, const nango_subscriber_t *s, owing_t *o,
    uint64_t after)
{
    nango_delivery_read_t  how;

    memset(&how, 0, sizeof(how));

    how.now_ms = T0 + after;
    how.max_events = 1000;
    how.max_bytes = 1024 * 1024;
    how.expire = 1;

    assert_ok(nango_delivery_read(store, s, &how, &o->position, &o->more,
                                  &o->deliveries, &o->settled, &o->nsettled,
                                  &o->size, &failure));

    return (int) o->nsettled;
}


static inline void
due(nango_store_t *store, const nango_subscriber_t *s, owing_t *o,
    uint64_t now, size_t lanes)
{
    assert_ok(nango_delivery_due(store, s, now, lanes, 1024 * 1024, NULL,
                                 NULL, &o->next_at, &o->deliveries,
                                 &o->settled, &o->nsettled, &o->size,
                                 &failure));
}


static inline nango_settled_t *
settled_add(owing_t *o)
{
    if (o->nsettled == o->size) {
        o->size = o->size ? o->size * 2 : 8;
        o->settled = realloc(o->settled, o->size * sizeof(nango_settled_t));
        assert_non_null(o->settled);
    }

    memset(&o->settled[o->nsettled], 0, sizeof(nango_settled_t));

    return &o->settled[o->nsettled++];
}


/* Takes the first delivery from the list and settles it. */

static inline nango_settled_t *
settle(owing_t *o, nango_settled_e kind, uint64_t next_at)
{
    nango_settled_t   *s;
    nango_delivery_t  *d;

    d = o->deliveries;
    assert_non_null(d);
    o->deliveries = d->next;

    s = settled_add(o);

    s->sequence = d->sequence;
    memcpy(s->lane, d->lane, NANGO_KEY_LEN);
    s->kind = kind;
    s->row = d->row;
    s->attempts = d->attempts + (kind != NANGO_SETTLED_DELIVERED);
    s->status = (kind == NANGO_SETTLED_DELIVERED) ? 200 : 503;
    s->next_at = next_at;

    nango_delivery_free(d);

    return s;
}


static inline void
settle_all(owing_t *o, nango_settled_e kind, uint64_t next_at)
{
    while (o->deliveries) {
        (void) settle(o, kind, next_at);
    }
}


/* 1: it was stale. */

static inline int
fold_settled(nango_store_t *store, const nango_subscriber_t *s, uint64_t from,
    owing_t *o, int park)
{
    nango_folded_t        folded;
    nango_settlement_t    settlement;
    nango_fold_options_t  options;

    memset(&settlement, 0, sizeof(settlement));
    memset(&options, 0, sizeof(options));

    memcpy(settlement.key, s->key, NANGO_KEY_LEN);
    settlement.cursor_before = from;
    settlement.cursor = o->position;
    settlement.settled = o->settled;
    settlement.nsettled = o->nsettled;
    settlement.park = park;
    settlement.stale = 1;

    options.now_ms = T0;
    options.retain_ms = 7 * 24 * HOUR;
    options.settlements = &settlement;
    options.nsettlements = 1;

    assert_ok(nango_fold(store, &options, &folded, &failure));

    o->nsettled = 0;

    return settlement.stale;
}


static inline nango_ledger_t
ledger(nango_store_t *store, const nango_subscriber_t *s)
{
    int              rc;
    nango_ledger_t   l;
    nango_reader_t  *reader;

    reader = snapshot(store);
    rc = nango_reader_ledger(reader, s->key, &l, &failure);
    snapshot_end(reader);

    assert_int_equal(rc, 1);

    if (l.stored != l.delivered + l.skipped + l.dead + l.waiting + l.lost) {
        print_error("stored %llu: delivered %llu, skipped %llu, dead %llu, "
                    "waiting %llu, lost %llu\n",
                    (unsigned long long) l.stored,
                    (unsigned long long) l.delivered,
                    (unsigned long long) l.skipped,
                    (unsigned long long) l.dead,
                    (unsigned long long) l.waiting,
                    (unsigned long long) l.lost);
        fail();
    }

    return l;
}


#define assert_ledger(l, s, d, k, x, w, o)                                    \
    do {                                                                      \
        nango_ledger_t  _l = (l);                                             \
        assert_sequence(_l.stored, s);                                        \
        assert_sequence(_l.delivered, d);                                     \
        assert_sequence(_l.skipped, k);                                       \
        assert_sequence(_l.dead, x);                                          \
        assert_sequence(_l.waiting, w);                                       \
        assert_sequence(_l.lost, o);                                          \
    } while (0)


#endif /* _STORE_DELIVER_H_INCLUDED_ */
