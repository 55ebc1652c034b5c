/*
 * Copyright (C) nginx-nango authors
 */

#include "store_deliver.h"


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


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(what_is_applied_is_delivered),
        store_unit(a_failure_holds_up_its_lane_alone),
        store_unit(a_stale_leader_is_refused)
    };

    return cmocka_run_group_tests_name("delivery", tests, NULL, NULL);
}
