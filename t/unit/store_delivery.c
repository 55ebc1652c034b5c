/*
 * Copyright (C) nginx-nango authors
 */

#include "store_deliver.h"

#include "nango_queue.h"
#include "nango_rows.h"


static event_t
event(const char *id)
{
    event_t          e;
    static unsigned  hmac;

    memset(&e, 0, sizeof(e));

    e.type = NANGO_TYPE_SYNC;
    e.id = id;
    e.hmac = ++hmac;

    return e;
}


/* Of one connection, or (NULL) of none. */

static void
put(nango_store_t *store, const char *id, int n)
{
    event_t  e;

    while (n--) {
        e = event(id);
        append(store, &e);
    }
}


static uint64_t
tagged(nango_store_t *store, const char *id, nango_op_e op, const char *tags)
{
    event_t  e;

    e = event(id);
    e.type = NANGO_TYPE_AUTH;
    e.op = op;
    e.success = NANGO_SUCCESS_TRUE;
    e.tags = tags;

    return append(store, &e);
}


static size_t
entries(nango_store_t *store, MDB_dbi dbi)
{
    MDB_txn   *txn;
    MDB_stat   stat;

    assert_int_equal(mdb_txn_begin(store->state, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_stat(txn, dbi, &stat), 0);
    mdb_txn_abort(txn);

    return stat.ms_entries;
}


static void
no_rows(nango_store_t *store)
{
    assert_int_equal(entries(store, store->owed), 0);
    assert_int_equal(entries(store, store->rows), 0);
    assert_int_equal(entries(store, store->lanes), 0);
    assert_int_equal(entries(store, store->due), 0);
}


static void
what_is_applied_is_delivered(void **state)
{
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    put(store, "one", 2);
    put(store, NULL, 1);

    read_more(store, &s, &o, 10);
    assert_null(o.deliveries);
    assert_int_equal(o.more, 0);

    fold(store);

    assert_ledger(ledger(store, &s), 3, 0, 0, 0, 3, 0);

    read_more(store, &s, &o, 10);
    assert_int_equal(owing_count(&o), 3);
    assert_int_equal(o.more, 0);
    assert_sequence(o.position, 3);
    assert_sequence(o.deliveries->sequence, 1);
    assert_int_equal(o.deliveries->row, 0);
    assert_memory_equal(o.deliveries->lane, o.deliveries->next->lane,
                        NANGO_KEY_LEN);
    assert_memory_equal(o.deliveries->next->next->lane,
                        "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\3", NANGO_KEY_LEN);
    assert_true(nango_str_is(o.deliveries->record.connection_id, "one"));

    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    assert_int_equal(fold_settled(store, &s, 0, &o, 0), 0);
    assert_ledger(ledger(store, &s), 3, 3, 0, 0, 0, 0);
    no_rows(store);

    owing_free(&o);
    nango_store_close(store);
}


static void
a_failure_holds_up_its_lane_alone(void **state)
{
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_ledger_t      l;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    put(store, "one", 1);
    put(store, "two", 1);
    fold(store);

    read_more(store, &s, &o, 10);
    settle(&o, NANGO_SETTLED_WAITING, T0 + 1000);
    settle(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 0, &o, 0);

    l = ledger(store, &s);
    assert_ledger(l, 2, 1, 0, 0, 1, 0);
    assert_sequence(l.rows, 1);
    assert_sequence(l.oldest_at, T0);
    assert_int_equal(entries(store, store->due), 1);

    put(store, "one", 2);
    put(store, "two", 1);
    fold(store);

    read_more(store, &s, &o, 10);
    assert_int_equal(owing_count(&o), 1);
    assert_sequence(o.deliveries->sequence, 5);
    assert_int_equal(o.nsettled, 2);
    assert_int_equal(o.settled[0].kind, NANGO_SETTLED_WAITING);
    assert_sequence(o.settled[0].sequence, 3);

    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 2, &o, 0);
    assert_ledger(ledger(store, &s), 5, 2, 0, 0, 3, 0);
    assert_int_equal(entries(store, store->lanes), 3);
    assert_int_equal(entries(store, store->due), 1);

    /* Not before its time. */

    due(store, &s, &o, T0 + 999, 10);
    assert_null(o.deliveries);
    assert_sequence(o.next_at, T0 + 1000);

    due(store, &s, &o, T0 + 1000, 10);
    assert_int_equal(owing_count(&o), 3);
    assert_sequence(o.next_at, 0);
    assert_sequence(o.deliveries->sequence, 1);
    assert_int_equal(o.deliveries->attempts, 1);
    assert_int_equal(o.deliveries->row, 1);
    assert_sequence(o.deliveries->next->sequence, 3);

    /* The next one of the lane is due at once. */

    settle(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 5, &o, 0);
    owing_free(&o);
    o.position = 5;

    due(store, &s, &o, 0, 10);
    assert_int_equal(owing_count(&o), 2);
    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 5, &o, 0);

    assert_ledger(ledger(store, &s), 5, 5, 0, 0, 0, 0);
    no_rows(store);

    owing_free(&o);
    nango_store_close(store);
}


static void
a_stale_leader_is_refused(void **state)
{
    owing_t             o = { 0 }, other = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    put(store, "one", 2);
    fold(store);

    read_more(store, &s, &o, 10);
    read_more(store, &s, &other, 10);

    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    settle_all(&other, NANGO_SETTLED_DEAD, 0);

    assert_int_equal(fold_settled(store, &s, 0, &o, 0), 0);
    assert_int_equal(fold_settled(store, &s, 0, &other, 0), 1);
    assert_ledger(ledger(store, &s), 2, 2, 0, 0, 0, 0);
    no_rows(store);

    owing_free(&o);
    owing_free(&other);
    nango_store_close(store);
}


static void
skip_two(nango_store_t *store, const nango_subscriber_t *s, owing_t *o)
{
    event_t  e;

    put(store, "one", 2);

    e = event("one");
    e.type = NANGO_TYPE_FORWARD;
    append(store, &e);

    put(store, "one", 1);
    fold(store);

    read_more(store, s, o, 10);
}


static void
what_is_not_wanted_is_counted_together(void **state)
{
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    s.types = NANGO_DELIVERY_TYPE(NANGO_TYPE_FORWARD);
    subscribe(store, &s);

    skip_two(store, &s, &o);

    assert_int_equal(o.nsettled, 2);
    assert_int_equal(o.settled[0].kind, NANGO_SETTLED_SKIPPED);
    assert_sequence(o.settled[0].sequence, 2);
    assert_sequence(o.settled[0].count, 2);
    assert_sequence(o.settled[1].sequence, 4);
    assert_sequence(o.settled[1].count, 1);
    assert_int_equal(owing_count(&o), 1);
    assert_sequence(o.deliveries->sequence, 3);

    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 0, &o, 0);
    assert_ledger(ledger(store, &s), 4, 1, 3, 0, 0, 0);

    /* Those of another call are not added to. */

    put(store, "one", 1);
    fold(store);
    read_more(store, &s, &o, 10);
    put(store, "one", 1);
    fold(store);
    read_more(store, &s, &o, 10);
    assert_int_equal(o.nsettled, 2);

    owing_free(&o);
    nango_store_close(store);
}


static void
repairs_are_for_who_wants_them(void **state)
{
    event_t             e;
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    e = event("one");
    e.source = NANGO_SOURCE_REPAIR;
    append(store, &e);
    e.source = NANGO_SOURCE_EDGE;
    append(store, &e);
    fold(store);

    read_more(store, &s, &o, 10);
    assert_int_equal(owing_count(&o), 1);
    assert_sequence(o.deliveries->sequence, 2);
    owing_free(&o);

    s.repairs = 1;
    read_more(store, &s, &o, 10);
    assert_int_equal(owing_count(&o), 2);
    assert_int_equal(o.nsettled, 0);
    owing_free(&o);

    nango_store_close(store);
}


static void
types_that_are_not_known_are_other(void **state)
{
    event_t             e;
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    s.types = NANGO_DELIVERY_TYPE(NANGO_TYPE_OTHER);
    subscribe(store, &s);

    e = event("one");
    e.type = 200;
    append(store, &e);
    fold(store);

    read_more(store, &s, &o, 10);
    assert_int_equal(owing_count(&o), 1);

    owing_free(&o);
    nango_store_close(store);
}


static void
a_reading_has_its_limits(void **state)
{
    int                     i;
    event_t                 e;
    owing_t                 o = { 0 };
    nango_store_t          *store;
    nango_subscriber_t      s;
    nango_delivery_read_t   how;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    put(store, NULL, 5);

    e = event("one");
    e.pad = 50000;

    for (i = 0; i < 5; i++) {
        append(store, &e);
    }

    fold(store);

    read_more(store, &s, &o, 3);
    assert_int_equal(owing_count(&o), 3);
    assert_int_equal(o.more, 1);
    assert_sequence(o.position, 3);

    memset(&how, 0, sizeof(how));

    how.max_events = 100;
    how.max_bytes = 100000;

    assert_ok(nango_delivery_read(store, &s, &how, &o.position, &o.more,
                                  &o.deliveries, &o.settled, &o.nsettled,
                                  &o.size, &failure));
    assert_int_equal(owing_count(&o), 7);
    assert_int_equal(o.more, 1);

    /* One at least. */

    how.max_events = 0;
    how.max_bytes = 0;

    assert_ok(nango_delivery_read(store, &s, &how, &o.position, &o.more,
                                  &o.deliveries, &o.settled, &o.nsettled,
                                  &o.size, &failure));
    assert_sequence(o.position, 8);

    owing_free(&o);
    nango_store_close(store);
}


static void
what_is_too_old_dies(void **state)
{
    event_t             e;
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    s.types = NANGO_DELIVERY_TYPE(NANGO_TYPE_SYNC);
    subscribe(store, &s);

    put(store, "one", 2);
    e = event("one");
    e.type = NANGO_TYPE_FORWARD;
    append(store, &e);
    e = event("one");
    e.at = HOUR;
    append(store, &e);
    put(store, "one", 1);
    fold(store);

    assert_int_equal(expire(store, &s, &o, HOUR), 0);
    assert_int_equal(o.more, 1);
    assert_sequence(o.position, 0);

    assert_int_equal(expire(store, &s, &o, HOUR + 1), 3);
    assert_null(o.deliveries);
    assert_int_equal(o.more, 1);
    assert_sequence(o.position, 3);
    assert_int_equal(o.settled[0].kind, NANGO_SETTLED_DEAD);
    assert_int_equal(o.settled[2].kind, NANGO_SETTLED_SKIPPED);

    fold_settled(store, &s, 0, &o, 0);
    assert_ledger(ledger(store, &s), 5, 0, 1, 2, 2, 0);

    assert_int_equal(expire(store, &s, &o, 3 * HOUR), 2);
    assert_int_equal(o.more, 0);
    fold_settled(store, &s, 3, &o, 0);
    assert_ledger(ledger(store, &s), 5, 0, 1, 4, 0, 0);

    owing_free(&o);
    nango_store_close(store);
}


static void
a_new_one_starts_at_the_newest_or_at_the_oldest(void **state)
{
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s[3];

    store = store_open();
    s[0] = subscriber("prod", "newest");
    s[1] = subscriber("prod", "oldest");
    s[1].from_start = 1;
    s[2] = subscriber("prod", "newest");

    put(store, "one", 3);
    fold(store);
    put(store, "one", 1);

    assert_ok(nango_delivery_register(store, s, 3, T0 + 5, &failure));

    assert_ledger(ledger(store, &s[0]), 0, 0, 0, 0, 0, 0);
    assert_ledger(ledger(store, &s[1]), 3, 0, 0, 0, 3, 0);
    assert_sequence(ledger(store, &s[0]).cursor, 3);
    assert_sequence(ledger(store, &s[1]).cursor, 0);
    assert_sequence(ledger(store, &s[1]).created_at, T0 + 5);
    assert_sequence(ledger(store, &s[1]).oldest_at, T0);
    assert_sequence(ledger(store, &s[0]).oldest_at, 0);

    fold(store);
    o.position = 3;
    read_more(store, &s[0], &o, 10);
    assert_int_equal(owing_count(&o), 1);
    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s[0], 3, &o, 0);

    /* Who is known keeps what it has. */

    s[0].from_start = 1;
    assert_ok(nango_delivery_register(store, s, 3, T0 + 9, &failure));
    assert_ledger(ledger(store, &s[0]), 1, 1, 0, 0, 0, 0);
    assert_sequence(ledger(store, &s[0]).created_at, T0 + 5);

    owing_free(&o);
    nango_store_close(store);
}


static void
a_name_too_long_is_refused(void **state)
{
    nango_store_t       *store;
    nango_subscriber_t   s[2];
    static char          name[UINT16_MAX + 1];

    store = store_open();

    memset(name, 'n', sizeof(name));
    s[0] = subscriber("prod", "app");
    s[1] = subscriber("prod", "other");
    s[1].name = nango_str(name, sizeof(name));

    assert_int_equal(nango_delivery_register(store, s, 2, T0, &failure),
                     NANGO_EINVAL);
    assert_int_equal(entries(store, store->subscribers), 0);

    s[1].name.len--;
    assert_ok(nango_delivery_register(store, s, 2, T0, &failure));

    nango_store_close(store);
}


/* Four lanes, due at different times, the third one's first. */

static void
hold_up(nango_store_t *store, nango_subscriber_t *s, owing_t *o)
{
    *s = subscriber("prod", "app");
    subscribe(store, s);

    put(store, "one", 1);
    put(store, "two", 1);
    put(store, "three", 1);
    put(store, NULL, 1);
    fold(store);

    read_more(store, s, o, 10);
    settle(o, NANGO_SETTLED_WAITING, T0 + 300);
    settle(o, NANGO_SETTLED_WAITING, T0 + 200);
    settle(o, NANGO_SETTLED_WAITING, T0 + 100);
    settle(o, NANGO_SETTLED_WAITING, T0 + 400);
    fold_settled(store, s, 0, o, 0);
}


static int
skip_lane(void *data, const unsigned char lane[NANGO_KEY_LEN])
{
    return memcmp(data, lane, NANGO_KEY_LEN) == 0;
}


static size_t
expired(nango_store_t *store, const nango_subscriber_t *s, owing_t *o,
    uint64_t after, size_t max, unsigned char *skip)
{
    o->nsettled = 0;

    assert_ok(nango_delivery_expired(store, s, T0 + after, max,
                                     skip ? skip_lane : NULL, skip,
                                     &o->settled, &o->nsettled, &o->size,
                                     &failure));

    return o->nsettled;
}


/* Also for who takes none of its rows; but what was put back has its time. */

static void
rows_die_too(void **state)
{
    int                 more;
    size_t              i;
    owing_t             o = { 0 };
    uint64_t            n, put_back;
    nango_store_t      *store;
    nango_subscriber_t  s;
    unsigned char       lane[NANGO_KEY_LEN];

    store = store_open();
    s = subscriber("prod", "app");
    assert_int_equal(expired(store, &s, &o, 2 * HOUR, 10, NULL), 0);
    hold_up(store, &s, &o);

    assert_int_equal(expired(store, &s, &o, HOUR / 2, 10, NULL), 0);
    assert_int_equal(expired(store, &s, &o, 2 * HOUR, 2, NULL), 2);
    assert_int_equal(expired(store, &s, &o, 2 * HOUR, 10, NULL), 4);

    for (i = 0; i < 4; i++) {
        assert_sequence(o.settled[i].sequence, i + 1);
        assert_int_equal(o.settled[i].kind, NANGO_SETTLED_DEAD);
        assert_true(o.settled[i].row);
    }

    memcpy(lane, o.settled[1].lane, NANGO_KEY_LEN);
    assert_int_equal(expired(store, &s, &o, 2 * HOUR, 10, lane), 3);

    o.position = 4;
    fold_settled(store, &s, 4, &o, 0);
    assert_ledger(ledger(store, &s), 4, 0, 0, 3, 1, 0);

    put_back = 3 * HOUR;
    assert_ok(nango_delivery_redeliver(store, s.key, 1, 10, T0 + put_back, &n,
                                       &more, &failure));

    assert_int_equal(expired(store, &s, &o, put_back + HOUR, 10, NULL), 1);
    assert_sequence(o.settled[0].sequence, 2);
    assert_int_equal(expired(store, &s, &o, put_back + HOUR + 1, 10, NULL),
                     2);

    owing_free(&o);
    nango_store_close(store);
}


static void
what_is_due_first_comes_first(void **state)
{
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s;
    unsigned char       lane[NANGO_KEY_LEN];

    store = store_open();
    hold_up(store, &s, &o);

    due(store, &s, &o, T0 + 250, 10);
    assert_int_equal(owing_count(&o), 2);
    assert_sequence(o.deliveries->sequence, 3);
    assert_sequence(o.deliveries->next->sequence, 2);
    assert_sequence(o.next_at, T0 + 300);
    memcpy(lane, o.deliveries->next->lane, NANGO_KEY_LEN);
    owing_free(&o);

    due(store, &s, &o, T0 + 250, 1);
    assert_int_equal(owing_count(&o), 1);
    assert_sequence(o.next_at, T0 + 200);
    owing_free(&o);

    due(store, &s, &o, UINT64_MAX, 10);
    assert_int_equal(owing_count(&o), 4);
    assert_sequence(o.next_at, 0);
    owing_free(&o);

    assert_ok(nango_delivery_due(store, &s, T0 + 500, 2, 1024, skip_lane, lane,
                                 &o.next_at, &o.deliveries, &o.settled,
                                 &o.nsettled, &o.size, &failure));
    assert_sequence(o.deliveries->sequence, 3);
    assert_null(o.deliveries->next);
    assert_sequence(o.next_at, T0 + 300);
    owing_free(&o);

    nango_store_close(store);
}


static void
a_clock_that_is_set_back_holds_up_nothing(void **state)
{
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    put(store, "one", 1);
    put(store, "two", 1);
    put(store, "three", 1);
    put(store, "four", 1);
    fold(store);

    read_more(store, &s, &o, 10);
    settle(&o, NANGO_SETTLED_WAITING, T0 + NANGO_QUEUE_RETRY_MAX);
    settle(&o, NANGO_SETTLED_WAITING, T0 + 1000);
    settle(&o, NANGO_SETTLED_WAITING, T0 + NANGO_QUEUE_RETRY_MAX + 1);
    settle(&o, NANGO_SETTLED_WAITING, T0 + 24 * HOUR);
    fold_settled(store, &s, 0, &o, 0);

    due(store, &s, &o, T0, 10);
    assert_int_equal(owing_count(&o), 2);
    assert_sequence(o.deliveries->sequence, 3);
    assert_sequence(o.deliveries->next->sequence, 4);
    assert_sequence(o.next_at, T0 + 1000);
    owing_free(&o);

    /* There is another one already. */

    due(store, &s, &o, T0, 1);
    assert_int_equal(owing_count(&o), 1);
    assert_sequence(o.deliveries->sequence, 3);
    assert_sequence(o.next_at, T0);
    owing_free(&o);

    nango_store_close(store);
}


static void
a_lane_is_read_in_parts(void **state)
{
    event_t             e;
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    e = event("one");
    e.pad = 1000;
    append(store, &e);
    put(store, "one", NANGO_DELIVERY_LANE + 5);
    fold(store);

    read_more(store, &s, &o, 1000);
    settle_all(&o, NANGO_SETTLED_WAITING, T0 + 1);
    fold_settled(store, &s, 0, &o, 0);
    assert_int_equal(entries(store, store->due), 1);

    due(store, &s, &o, T0 + 1, 10);
    assert_int_equal(owing_count(&o), NANGO_DELIVERY_LANE);
    owing_free(&o);

    assert_ok(nango_delivery_due(store, &s, T0 + 500, 2, 10, NULL, NULL,
                                 &o.next_at, &o.deliveries, &o.settled,
                                 &o.nsettled, &o.size, &failure));
    assert_int_equal(owing_count(&o), 1);
    owing_free(&o);

    nango_store_close(store);
}


static void
a_letter_that_comes_back_is_first_in_its_lane(void **state)
{
    int                 more;
    owing_t             o = { 0 };
    uint64_t            n;
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    put(store, "one", 3);
    fold(store);

    read_more(store, &s, &o, 10);
    settle(&o, NANGO_SETTLED_DEAD, 0);
    settle(&o, NANGO_SETTLED_WAITING, T0 + 1000);
    settle(&o, NANGO_SETTLED_WAITING, 0);
    fold_settled(store, &s, 0, &o, 0);
    assert_ledger(ledger(store, &s), 3, 0, 0, 1, 2, 0);

    due(store, &s, &o, T0, 10);
    assert_null(o.deliveries);

    assert_int_equal(nango_delivery_redeliver(store, s.key, 2, 10, T0, &n,
                                              &more, &failure), NANGO_EINVAL);
    assert_ok(nango_delivery_redeliver(store, s.key, 1, 10, T0, &n, &more,
                                       &failure));
    assert_sequence(n, 1);
    assert_ledger(ledger(store, &s), 3, 0, 0, 0, 3, 0);
    assert_sequence(ledger(store, &s).redelivered, 1);
    assert_int_equal(entries(store, store->due), 1);

    due(store, &s, &o, T0, 10);
    assert_int_equal(owing_count(&o), 3);
    assert_sequence(o.deliveries->sequence, 1);
    assert_int_equal(o.deliveries->attempts, 0);

    /* And dies again: the other one waits for its own time. */

    settle(&o, NANGO_SETTLED_DEAD, 0);
    fold_settled(store, &s, 3, &o, 0);
    owing_free(&o);
    o.position = 3;

    due(store, &s, &o, T0, 10);
    assert_null(o.deliveries);
    assert_sequence(o.next_at, T0 + 1000);

    /* Delivered, it takes the others along. */

    assert_ok(nango_delivery_redeliver(store, s.key, 0, 10, T0, &n, &more,
                                       &failure));
    due(store, &s, &o, T0, 10);
    settle(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 3, &o, 0);
    owing_free(&o);
    o.position = 3;

    due(store, &s, &o, T0, 10);
    assert_int_equal(owing_count(&o), 2);
    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 3, &o, 0);
    assert_ledger(ledger(store, &s), 3, 3, 0, 0, 0, 0);
    no_rows(store);

    owing_free(&o);
    nango_store_close(store);
}


static void
rows_that_are_gone_are_passed_over(void **state)
{
    int                 more;
    owing_t             o = { 0 };
    uint64_t            n;
    nango_settled_t    *settled;
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    hold_up(store, &s, &o);

    /* Dead already, of another lane, and never there. */

    due(store, &s, &o, UINT64_MAX, 10);
    settle(&o, NANGO_SETTLED_DEAD, 0);
    fold_settled(store, &s, 4, &o, 0);
    settled = settled_add(&o);
    settled->sequence = 3;
    settled->row = 1;
    settled = settled_add(&o);
    settled->sequence = 77;
    settled->row = 1;
    assert_int_equal(fold_settled(store, &s, 4, &o, 0), 0);
    assert_ledger(ledger(store, &s), 4, 0, 0, 1, 3, 0);

    /* A row that is there already is not made again. */

    settled = settled_add(&o);
    settled->sequence = 2;
    settled->kind = NANGO_SETTLED_DEAD;
    settled = settled_add(&o);
    settled->sequence = 2;
    settled->kind = NANGO_SETTLED_WAITING;
    fold_settled(store, &s, 4, &o, 0);
    assert_ledger(ledger(store, &s), 4, 0, 0, 1, 3, 0);

    /* Forgotten meanwhile. */

    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    assert_ok(nango_delivery_forget(store, s.key, 100, &n, &more, &failure));
    assert_sequence(n, 4);
    no_rows(store);
    assert_int_equal(fold_settled(store, &s, 4, &o, 0), 1);
    no_rows(store);

    subscribe(store, &s);
    assert_ledger(ledger(store, &s), 0, 0, 0, 0, 0, 0);

    owing_free(&o);
    nango_store_close(store);
}


static void
a_cursor_goes_forwards_to_what_is_applied(void **state)
{
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);
    put(store, "one", 2);
    fold(store);
    put(store, "one", 1);

    o.position = 3;
    assert_int_equal(fold_settled(store, &s, 0, &o, 0), 1);

    read_more(store, &s, &o, 10);
    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    o.position = 2;
    assert_int_equal(fold_settled(store, &s, 0, &o, 0), 0);

    o.position = 1;
    assert_int_equal(fold_settled(store, &s, 2, &o, 0), 1);
    assert_sequence(ledger(store, &s).cursor, 2);

    owing_free(&o);
    nango_store_close(store);
}


static void
who_is_parked_is_resumed_by_hand(void **state)
{
    int                 more;
    owing_t             o = { 0 };
    uint64_t            n;
    nango_store_t      *store;
    nango_subscriber_t  s, other;

    store = store_open();
    hold_up(store, &s, &o);

    assert_int_equal(fold_settled(store, &s, 4, &o, 1), 0);
    assert_sequence(ledger(store, &s).parked_at, T0);

    assert_ok(nango_delivery_resume(store, s.key, T0 + 7, &failure));
    assert_sequence(ledger(store, &s).parked_at, 0);
    assert_int_equal(entries(store, store->due), 4);

    due(store, &s, &o, 0, 10);
    assert_int_equal(owing_count(&o), 4);
    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 4, &o, 0);
    no_rows(store);

    assert_int_equal(nango_delivery_resume(store, s.key, T0, &failure),
                     NANGO_EINVAL);
    assert_non_null(strstr(failure.text, "is not parked"));

    other = subscriber("prod", "other");
    assert_int_equal(nango_delivery_resume(store, other.key, T0, &failure),
                     NANGO_EINVAL);
    assert_int_equal(nango_delivery_forget(store, other.key, 1, &n, &more,
                                           &failure), NANGO_EINVAL);
    assert_int_equal(nango_delivery_redeliver(store, s.key, 0, 10, T0, &n,
                                              &more, NULL), NANGO_EINVAL);

    owing_free(&o);
    nango_store_close(store);
}


static void
a_settlement_that_says_nothing_is_no_transaction(void **state)
{
    owing_t             o = { 0 };
    uint64_t            txnid;
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    txnid = nango_store_state_txnid(store);
    assert_int_equal(fold_settled(store, &s, 0, &o, 0), 0);
    assert_int_equal(fold_settled(store, &s, 7, &o, 0), 1);
    assert_true(nango_store_state_txnid(store) == txnid);

    assert_int_equal(fold_settled(store, &s, 0, &o, 1), 0);
    assert_true(nango_store_state_txnid(store) > txnid);

    txnid = nango_store_state_txnid(store);
    assert_int_equal(fold_settled(store, &s, 0, &o, 1), 0);
    assert_true(nango_store_state_txnid(store) == txnid);

    nango_store_close(store);
}


static void
what_vanished_with_its_log_is_lost(void **state)
{
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s, late;

    store = store_open();
    hold_up(store, &s, &o);
    put(store, "four", 3);
    fold(store);

    nango_store_close(store);
    remove_below("log");
    store = store_open();

    assert_ledger(ledger(store, &s), 7, 0, 0, 0, 7, 0);

    read_more(store, &s, &o, 10);
    assert_null(o.deliveries);
    assert_int_equal(o.more, 0);
    assert_sequence(o.position, 7);
    fold_settled(store, &s, 4, &o, 0);
    assert_ledger(ledger(store, &s), 7, 0, 0, 0, 4, 3);

    /* Rows die, one by one. */

    due(store, &s, &o, T0 + 1000, 10);
    assert_null(o.deliveries);
    assert_int_equal(o.nsettled, 4);
    assert_int_equal(o.settled[0].row, 1);
    assert_int_equal(o.settled[0].attempts, 1);
    fold_settled(store, &s, 7, &o, 0);
    assert_ledger(ledger(store, &s), 7, 0, 0, 4, 0, 3);
    assert_int_equal(entries(store, store->lanes), 0);

    late = subscriber("prod", "late");
    late.from_start = 1;
    subscribe(store, &late);
    assert_ledger(ledger(store, &late), 0, 0, 0, 0, 0, 0);

    put(store, "one", 1);
    fold(store);
    read_more(store, &s, &o, 10);
    assert_sequence(o.deliveries->sequence, 8);
    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 7, &o, 0);
    assert_ledger(ledger(store, &s), 8, 1, 0, 4, 0, 3);

    owing_free(&o);
    nango_store_close(store);
}


static void
change(nango_store_t *store, MDB_dbi dbi, const void *k, size_t klen,
    const void *v, size_t vlen)
{
    MDB_val   key, val;
    MDB_txn  *txn;

    key = nango_val(k, klen);
    val = nango_val(v, vlen);

    assert_int_equal(mdb_txn_begin(store->state, NULL, 0, &txn), 0);
    assert_int_equal(v ? mdb_put(txn, dbi, &key, &val, 0)
                       : mdb_del(txn, dbi, &key, NULL), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
}


/* One that cannot be read, one that is missing, and times of no lane. */

static void
rows_that_are_damaged_are_still_rows(void **state)
{
    int                 more;
    owing_t             o = { 0 };
    uint64_t            n;
    nango_store_t      *store;
    nango_subscriber_t  s;
    unsigned char       key[64];

    store = store_open();
    hold_up(store, &s, &o);

    nango_owed_key(key, 1, s.key);
    change(store, store->owed, key, NANGO_OWED_KEY_LEN, "\377newer", 6);
    nango_owed_key(key, 2, s.key);
    change(store, store->owed, key, NANGO_OWED_KEY_LEN, NULL, 0);
    nango_due_key(key, s.key, 5, s.key);
    change(store, store->due, key, NANGO_DUE_KEY_LEN, "", 0);

    due(store, &s, &o, T0 + 1000, 10);
    assert_int_equal(owing_count(&o), 4);
    assert_sequence(o.deliveries->next->next->sequence, 1);
    assert_int_equal(o.deliveries->next->next->attempts, 0);

    settle(&o, NANGO_SETTLED_DEAD, 0);
    settle(&o, NANGO_SETTLED_DEAD, 0);
    settle(&o, NANGO_SETTLED_DELIVERED, 0);
    settle(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 4, &o, 0);
    assert_ledger(ledger(store, &s), 4, 2, 0, 2, 0, 0);
    assert_int_equal(entries(store, store->owed), 2);
    assert_int_equal(entries(store, store->lanes), 0);

    /* A dead letter that cannot be read comes back all the same. */

    nango_owed_key(key, 3, s.key);
    change(store, store->owed, key, NANGO_OWED_KEY_LEN, "\377newer", 6);
    assert_ok(nango_delivery_redeliver(store, s.key, 0, 10, T0, &n, &more,
                                       &failure));
    assert_sequence(n, 2);
    owing_free(&o);
    o.position = 4;
    due(store, &s, &o, T0, 10);
    assert_int_equal(owing_count(&o), 2);
    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 4, &o, 0);
    assert_ledger(ledger(store, &s), 4, 4, 0, 0, 0, 0);

    /* Resuming leaves no time without a lane, nor does forgetting. */

    assert_int_equal(fold_settled(store, &s, 4, &o, 1), 0);
    nango_due_key(key, s.key, 0, s.key);
    change(store, store->due, key, NANGO_DUE_KEY_LEN, "", 0);
    nango_lanes_key(key, s.key, s.key, 9);
    change(store, store->lanes, key, NANGO_LANES_KEY_LEN, "", 0);
    assert_ok(nango_delivery_resume(store, s.key, T0, &failure));
    assert_ok(nango_delivery_forget(store, s.key, 1, &n, &more, &failure));
    no_rows(store);

    owing_free(&o);
    nango_store_close(store);
}


static void
what_is_half_forgotten_adds_up(void **state)
{
    int                 more;
    owing_t             o = { 0 };
    uint64_t            n;
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    hold_up(store, &s, &o);
    put(store, "five", 1);
    fold(store);

    assert_ok(nango_delivery_forget(store, s.key, 3, &n, &more, &failure));
    assert_int_equal(more, 1);
    assert_ledger(ledger(store, &s), 2, 0, 0, 0, 2, 0);
    assert_sequence(ledger(store, &s).rows, 1);

    owing_free(&o);
    nango_store_close(store);
}


static void
a_delivery_is_its_owners_alone(void **state)
{
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_delivery_t   *d;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    tagged(store, "one", NANGO_OP_CREATION, "{\"user\":\"a\"}");
    fold(store);
    read_more(store, &s, &o, 10);

    /* Nothing of it is in the store. */

    nango_store_close(store);

    d = o.deliveries;
    assert_true(nango_str_is(d->record.environment, "prod"));
    assert_true(nango_str_is(d->record.connection_id, "one"));
    assert_non_null(memchr(d->record.body.data, 'a', d->record.body.len));
    assert_int_equal(d->nowner, 1);
    assert_true(nango_str_is(d->owner[0].name, "user"));
    assert_true(nango_str_is(d->owner[0].value, "a"));

    owing_free(&o);
}


/* No event makes one, and no sanitizer is to find a copy from nowhere. */

static void
an_owner_of_a_damaged_record_may_be_empty(void **state)
{
    owing_t              o = { 0 };
    MDB_txn             *txn;
    MDB_val              key, val;
    nango_store_t       *store;
    unsigned char        record[1024];
    nango_reader_t      *reader;
    nango_connection_t   c;
    nango_subscriber_t   s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    tagged(store, "one", NANGO_OP_CREATION, "{\"user\":\"a\"}");
    fold(store);

    reader = snapshot(store);
    assert_int_equal(find(reader, "one", &c), 1);
    c.tags[0].name.len = 0;
    c.tags[0].value.len = 0;
    assert_true(nango_connection_size(&c) <= sizeof(record));
    nango_connection_encode(&c, record);
    snapshot_end(reader);

    key = nango_val(c.key, NANGO_KEY_LEN);
    val = nango_val(record, nango_connection_size(&c));

    assert_int_equal(mdb_txn_begin(store->state, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, store->connections, &key, &val, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);

    read_more(store, &s, &o, 10);

    assert_int_equal(o.deliveries->nowner, 1);
    assert_int_equal(o.deliveries->owner[0].name.len, 0);
    assert_int_equal(o.deliveries->owner[0].value.len, 0);

    owing_free(&o);
    nango_store_close(store);
}


static void
count_ledgers(void *data, const nango_ledger_t *l)
{
    (*(int *) data)++;
}


static void
a_subscriber_that_is_damaged_can_be_forgotten(void **state)
{
    int                 i, n, more;
    owing_t             o = { 0 };
    uint64_t            forgotten;
    nango_store_t      *store;
    nango_ledger_t      l;
    nango_reader_t     *reader;
    nango_subscriber_t  s, other;

    static const char  *damages[] = { "", "\1", "\2newer" };

    for (i = 0; i < 3; i++) {
        store = store_open();
        hold_up(store, &s, &o);
        other = subscriber("prod", "other");
        subscribe(store, &other);

        change(store, store->subscribers, s.key, NANGO_KEY_LEN,
               damages[i], strlen(damages[i]));

        reader = snapshot(store);
        assert_int_equal(nango_reader_ledger(reader, s.key, &l, &failure), 0);
        n = 0;
        assert_int_equal(nango_reader_ledgers(reader, count_ledgers, &n,
                                              &failure), 0);
        assert_int_equal(n, 1);
        snapshot_end(reader);

        assert_int_equal(fold_settled(store, &s, 4, &o, 0), 1);
        assert_int_equal(nango_delivery_resume(store, s.key, T0, &failure),
                         NANGO_EINVAL);
        assert_non_null(strstr(failure.text, "cannot be read"));

        subscribe(store, &s);

        assert_ok(nango_delivery_forget(store, s.key, 3, &forgotten, &more,
                                        &failure));
        assert_sequence(forgotten, 3);
        assert_int_equal(more, 1);
        assert_ok(nango_delivery_forget(store, s.key, 3, &forgotten, &more,
                                        &failure));
        assert_sequence(forgotten, 1);
        assert_int_equal(more, 0);
        no_rows(store);

        subscribe(store, &s);
        assert_ledger(ledger(store, &s), 0, 0, 0, 0, 0, 0);

        owing_free(&o);
        nango_store_close(store);
        remove_below("log");
        remove_below("state");
    }
}


static void
a_ledger_closes_without_its_environment(void **state)
{
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s;
    unsigned char       key[NANGO_KEY_LEN];

    store = store_open();
    hold_up(store, &s, &o);

    assert_int_equal(nango_environment_key(key, S("prod")), 0);
    change(store, store->environments, key, NANGO_KEY_LEN, "\1damaged", 8);
    assert_ledger(ledger(store, &s), 4, 0, 0, 0, 4, 0);

    put(store, "two", 1);
    fold(store);
    assert_ledger(ledger(store, &s), 4, 0, 0, 0, 4, 0);

    owing_free(&o);
    nango_store_close(store);
}


/* Of a subscriber whose counts are too low: they are never less than none. */

static void
counts_do_not_go_below_nothing(void **state)
{
    size_t              size;
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscribed_t  d;
    nango_subscriber_t  s;
    unsigned char       record[256];

    store = store_open();
    hold_up(store, &s, &o);

    memset(&d, 0, sizeof(d));
    d.cursor = 4;
    d.environment = s.environment;
    d.name = s.name;
    size = nango_subscribed_size(&d);
    assert_true(size < sizeof(record));
    nango_subscribed_encode(&d, record);
    change(store, store->subscribers, s.key, NANGO_KEY_LEN, record, size);

    due(store, &s, &o, UINT64_MAX, 10);
    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 4, &o, 0);
    assert_ledger(ledger(store, &s), 4, 4, 0, 0, 0, 0);

    owing_free(&o);
    nango_store_close(store);
}


/* Whose the event of that sequence is, or "". */

static const char *
owner(nango_store_t *store, const nango_subscriber_t *s, uint64_t sequence)
{
    owing_t             o = { 0 };
    static char         buf[64];
    nango_delivery_t   *d;

    buf[0] = '\0';
    read_more(store, s, &o, 100);

    for (d = o.deliveries; d && d->sequence != sequence; d = d->next) { }

    assert_non_null(d);

    if (d->nowner) {
        snprintf(buf, sizeof(buf), "%.*s=%.*s", (int) d->owner[0].name.len,
                 d->owner[0].name.data, (int) d->owner[0].value.len,
                 d->owner[0].value.data);
    }

    owing_free(&o);

    return buf;
}


static void
whose_it_was_is_told_as_it_was_then(void **state)
{
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    put(store, "one", 1);
    tagged(store, "one", NANGO_OP_CREATION, "{\"user\":\"a\"}");
    put(store, "one", 1);
    tagged(store, "one", NANGO_OP_OVERRIDE, "{\"user\":\"b\"}");
    put(store, "one", 1);
    tagged(store, "one", NANGO_OP_OVERRIDE, "{\"user\":\"b\"}");
    tagged(store, "one", NANGO_OP_OVERRIDE, "{\"team\":\"b\"}");
    tagged(store, "one", NANGO_OP_DELETION, NULL);
    put(store, NULL, 1);
    tagged(store, "two", NANGO_OP_CREATION, "{\"user\":\"c\"}");
    tagged(store, "two", NANGO_OP_OVERRIDE, "{\"user\":\"c\",\"x\":\"y\"}");
    fold(store);

    assert_int_equal(entries(store, store->history), 3);

    assert_string_equal(owner(store, &s, 1), "");
    assert_string_equal(owner(store, &s, 2), "user=a");
    assert_string_equal(owner(store, &s, 3), "user=a");
    assert_string_equal(owner(store, &s, 4), "user=b");
    assert_string_equal(owner(store, &s, 6), "user=b");
    assert_string_equal(owner(store, &s, 7), "team=b");
    assert_string_equal(owner(store, &s, 8), "team=b");
    assert_string_equal(owner(store, &s, 9), "");
    assert_string_equal(owner(store, &s, 10), "user=c");

    nango_store_close(store);
}


static void
history_goes_with_the_events_before_it(void **state)
{
    int                    i;
    owing_t                o = { 0 };
    uint64_t               from;
    nango_store_t         *store;
    nango_pruned_t         pruned;
    nango_subscriber_t     s;
    nango_prune_options_t  options;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    tagged(store, "one", NANGO_OP_CREATION, "{\"user\":\"a\"}");
    tagged(store, "one", NANGO_OP_OVERRIDE, "{\"user\":\"b\"}");
    put(store, "one", 1);
    tagged(store, "one", NANGO_OP_OVERRIDE, "{\"user\":\"c\"}");
    put(store, "one", 1);
    fold(store);
    fold(store);
    assert_int_equal(entries(store, store->history), 2);

    memset(&options, 0, sizeof(options));
    options.now_ms = T0 + HOUR;
    options.max_events = 10;
    from = 0;

    /* What was before the log's first event is nobody's question. */

    read_more(store, &s, &o, 1);
    settle(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 0, &o, 0);
    assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
    assert_sequence(pruned.pruned, 1);
    fold(store);
    fold(store);
    assert_int_equal(entries(store, store->history), 1);

    /* The third one is owed. */

    read_more(store, &s, &o, 2);
    settle(&o, NANGO_SETTLED_DELIVERED, 0);
    settle(&o, NANGO_SETTLED_WAITING, 0);
    fold_settled(store, &s, 1, &o, 0);
    assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
    assert_sequence(pruned.pruned, 1);

    for (i = 0; i < 3; i++) {
        fold(store);
    }

    assert_int_equal(entries(store, store->history), 1);

    due(store, &s, &o, T0, 1);
    assert_true(nango_str_is(o.deliveries->owner[0].value, "b"));
    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 3, &o, 0);
    owing_free(&o);
    o.position = 3;
    read_more(store, &s, &o, 10);
    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 3, &o, 0);

    assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
    assert_sequence(pruned.pruned, 2);

    for (i = 0; i < 3; i++) {
        fold(store);
    }

    assert_int_equal(entries(store, store->history), 0);

    owing_free(&o);
    nango_store_close(store);
}


/* A state that was lost; whoever begins before it is made again. */

static void
what_was_pruned_before_it_came_is_not_lost(void **state)
{
    owing_t                o = { 0 };
    uint64_t               from;
    nango_store_t         *store;
    nango_pruned_t         pruned;
    nango_subscriber_t     s;
    nango_prune_options_t  options;

    store = store_open();
    put(store, "one", 3);
    fold(store);

    memset(&options, 0, sizeof(options));
    options.now_ms = T0 + HOUR;
    options.max_events = 10;
    from = 0;

    assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
    assert_sequence(pruned.pruned, 2);

    nango_store_close(store);
    remove_below("state");
    store = store_open();

    s = subscriber("prod", "app");
    subscribe(store, &s);
    fold(store);

    read_more(store, &s, &o, 10);
    settle_all(&o, NANGO_SETTLED_DELIVERED, 0);
    assert_int_equal(fold_settled(store, &s, 0, &o, 0), 0);
    assert_ledger(ledger(store, &s), 1, 1, 0, 0, 0, 0);

    owing_free(&o);
    nango_store_close(store);
}


static void
what_is_forgotten_of_a_connection_its_events_still_know(void **state)
{
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    tagged(store, "one", NANGO_OP_CREATION, "{\"user\":\"a\"}");
    tagged(store, "one", NANGO_OP_DELETION, NULL);
    fold(store);
    fold_at(store, 8 * 24 * HOUR, 7 * 24 * HOUR, 0);
    assert_int_equal(entries(store, store->connections), 0);

    assert_string_equal(owner(store, &s, 1), "user=a");
    assert_string_equal(owner(store, &s, 2), "user=a");

    tagged(store, "one", NANGO_OP_CREATION, "{\"user\":\"b\"}");
    fold(store);
    assert_string_equal(owner(store, &s, 2), "user=a");
    assert_string_equal(owner(store, &s, 3), "user=b");

    nango_store_close(store);
}


static void
a_state_that_is_full_applies_nothing(void **state)
{
    int                    i;
    char                   id[32];
    size_t                 size;
    owing_t                o = { 0 };
    MDB_envinfo            info;
    nango_store_t         *store;
    nango_folded_t         folded;
    nango_ledger_t         before, after;
    nango_subscriber_t     s;
    nango_settlement_t     settlement;
    nango_fold_options_t   options;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    for (i = 0; i < 300; i++) {
        snprintf(id, sizeof(id), "c-%d", i);
        put(store, id, 1);
    }

    fold(store);
    before = ledger(store, &s);

    read_more(store, &s, &o, 1000);
    settle_all(&o, NANGO_SETTLED_WAITING, T0 + 1);

    memset(&settlement, 0, sizeof(settlement));
    memset(&options, 0, sizeof(options));

    memcpy(settlement.key, s.key, NANGO_KEY_LEN);
    settlement.cursor = o.position;
    settlement.settled = o.settled;
    settlement.nsettled = o.nsettled;
    options.now_ms = T0;
    options.retain_ms = HOUR;
    options.settlements = &settlement;
    options.nsettlements = 1;

    assert_int_equal(mdb_env_info(store->state, &info), 0);
    size = info.me_mapsize;

    assert_int_equal(mdb_env_set_mapsize(store->state, 4096), 0);
    assert_int_equal(nango_fold(store, &options, &folded, &failure),
                     NANGO_EFULL);
    assert_int_equal(settlement.stale, 0);

    after = ledger(store, &s);
    assert_sequence(after.cursor, before.cursor);
    assert_sequence(after.rows, 0);

    assert_int_equal(mdb_env_set_mapsize(store->state, size), 0);
    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_int_equal(settlement.stale, 0);
    assert_ledger(ledger(store, &s), 300, 0, 0, 0, 300, 0);
    assert_sequence(ledger(store, &s).rows, 300);

    owing_free(&o);
    nango_store_close(store);
}


static void
sum_stored(void *data, const nango_stored_t *stored)
{
    uint64_t *sums = data;

    sums[nango_str_is(stored->name, "prod") ? 0
         : nango_str_is(stored->name, "other") ? 1 : 2] += stored->stored;
}


static void
each_environment_counts_its_own(void **state)
{
    int              i;
    char             name[100];
    event_t          e;
    uint64_t         sums[3] = { 0 };
    nango_store_t   *store;
    nango_reader_t  *reader;

    store = store_open();
    put(store, "one", 3);

    e = event("one");
    e.source = NANGO_SOURCE_EDGE;
    append(store, &e);

    e.environment = "other";
    append(store, &e);

    /* More than are counted at once, one of them with a long name. */

    for (i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "%0*d", i ? 5 : 80, i);
        e.environment = name;
        append(store, &e);
        append(store, &e);
    }

    put(store, "one", 1);
    fold(store);
    put(store, "one", 1);
    fold(store);

    reader = snapshot(store);
    assert_int_equal(nango_reader_stored(reader, sum_stored, sums, &failure),
                     0);
    snapshot_end(reader);

    assert_sequence(sums[0], 6);
    assert_sequence(sums[1], 1);
    assert_sequence(sums[2], 40);
    assert_int_equal(entries(store, store->environments), 22);

    nango_store_close(store);
}


static void
a_state_that_did_not_count_is_counted_once(void **state)
{
    MDB_txn             *txn;
    nango_store_t       *store;
    nango_subscriber_t   s;

    store = store_open();
    put(store, "one", 5);
    fold(store);

    assert_int_equal(mdb_txn_begin(store->state, NULL, 0, &txn), 0);
    assert_int_equal(mdb_drop(txn, store->environments, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);

    fold(store);

    s = subscriber("prod", "app");
    s.from_start = 1;
    subscribe(store, &s);
    assert_ledger(ledger(store, &s), 5, 0, 0, 0, 5, 0);

    put(store, "one", 1);
    fold(store);
    fold(store);
    assert_ledger(ledger(store, &s), 6, 0, 0, 0, 6, 0);

    nango_store_close(store);
}


static void
the_oldest_has_a_row_or_is_beyond_the_cursor(void **state)
{
    event_t             e;
    owing_t             o = { 0 };
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    e = event("one");
    e.at = HOUR;
    append(store, &e);
    e.at = 7;
    append(store, &e);
    fold(store);

    read_more(store, &s, &o, 1);
    settle(&o, NANGO_SETTLED_WAITING, 0);
    fold_settled(store, &s, 0, &o, 0);
    assert_sequence(ledger(store, &s).oldest_at, T0 + 7);

    read_more(store, &s, &o, 1);
    fold_settled(store, &s, 1, &o, 0);
    assert_sequence(ledger(store, &s).oldest_at, T0 + HOUR);

    owing_free(&o);
    nango_store_close(store);
}


static void
the_oldest_is_looked_for_so_far(void **state)
{
    int                 i;
    event_t             e;
    nango_store_t      *store;
    nango_write_t      *jobs[256];
    nango_writer_t     *writer;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    writer = nango_writer_create(store, 0);

    e = event("one");
    e.environment = "other";
    e.at = 5;

    for (i = 0; i < 1024; i++) {
        jobs[i % 256] = job_make(&e);

        if (i % 256 == 255) {
            int  n;

            assert_ok(nango_log_commit(writer, jobs, 256, &failure));

            for (n = 0; n < 256; n++) {
                job_free(jobs[n]);
            }
        }
    }

    e = event("one");
    e.at = 9;
    append(store, &e);
    fold(store);

    /* One before it, and it would be found. */

    assert_sequence(ledger(store, &s).oldest_at, T0 + 5);

    nango_writer_free(writer);
    nango_store_close(store);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(what_is_applied_is_delivered),
        store_unit(a_failure_holds_up_its_lane_alone),
        store_unit(a_stale_leader_is_refused),
        store_unit(what_is_not_wanted_is_counted_together),
        store_unit(repairs_are_for_who_wants_them),
        store_unit(types_that_are_not_known_are_other),
        store_unit(a_reading_has_its_limits),
        store_unit(what_is_too_old_dies),
        store_unit(a_new_one_starts_at_the_newest_or_at_the_oldest),
        store_unit(a_name_too_long_is_refused),
        store_unit(rows_die_too),
        store_unit(what_is_due_first_comes_first),
        store_unit(a_clock_that_is_set_back_holds_up_nothing),
        store_unit(a_lane_is_read_in_parts),
        store_unit(a_letter_that_comes_back_is_first_in_its_lane),
        store_unit(rows_that_are_gone_are_passed_over),
        store_unit(a_cursor_goes_forwards_to_what_is_applied),
        store_unit(who_is_parked_is_resumed_by_hand),
        store_unit(a_settlement_that_says_nothing_is_no_transaction),
        store_unit(what_vanished_with_its_log_is_lost),
        store_unit(rows_that_are_damaged_are_still_rows),
        store_unit(what_is_half_forgotten_adds_up),
        store_unit(a_delivery_is_its_owners_alone),
        store_unit(an_owner_of_a_damaged_record_may_be_empty),
        store_unit(a_subscriber_that_is_damaged_can_be_forgotten),
        store_unit(a_ledger_closes_without_its_environment),
        store_unit(counts_do_not_go_below_nothing),
        store_unit(whose_it_was_is_told_as_it_was_then),
        store_unit(history_goes_with_the_events_before_it),
        store_unit(what_was_pruned_before_it_came_is_not_lost),
        store_unit(what_is_forgotten_of_a_connection_its_events_still_know),
        store_unit(a_state_that_is_full_applies_nothing),
        store_unit(each_environment_counts_its_own),
        store_unit(a_state_that_did_not_count_is_counted_once),
        store_unit(the_oldest_has_a_row_or_is_beyond_the_cursor),
        store_unit(the_oldest_is_looked_for_so_far)
    };

    return cmocka_run_group_tests_name("delivery", tests, NULL, NULL);
}
