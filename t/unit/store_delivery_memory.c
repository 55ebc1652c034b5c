/*
 * Copyright (C) nginx-nango authors
 *
 * Deliveries, pruning and acts by hand, with each allocation failing once, of
 * ours and of LMDB's, and then each system call: what is called says so, has
 * done all of it or nothing, and the ledger closes.
 */

#include "store_memory.h"
#include "store_deliver.h"


typedef struct {
    nango_store_t        *store;
    nango_subscriber_t    s;
    owing_t               owing;
    uint64_t              cursor;       /* as it is on disk */
    uint64_t              sequence;
    uint64_t              from;
    unsigned              number;
    size_t                known;
    char                  name[32];
    int                 (*act)(void);
} life_t;


static life_t  life;


static void
life_open(void)
{
    memset(&life, 0, sizeof(life));

    life.store = store_open();
    life.s = subscriber("prod", "app");
    subscribe(life.store, &life.s);
}


static void
life_close(void)
{
    owing_free(&life.owing);
    nango_store_close(life.store);
}


static uint64_t
life_append(const char *id, const char *tags)
{
    event_t  e = { .success = NANGO_SUCCESS_TRUE, .op = NANGO_OP_CREATION };

    e.id = id;
    e.tags = tags;
    e.hmac = ++life.number;

    return append(life.store, &e);
}


/* Some that are applied, and read. */

static void
life_events(void)
{
    life_append("one", "{\"user\":\"a\"}");
    life_append("one", "{\"user\":\"b\"}");
    life_append("two", "{\"user\":\"c\"}");
    (void) fold(life.store);
}


static void
life_read(void)
{
    owing_free(&life.owing);

    life.cursor = ledger(life.store, &life.s).cursor;
    life.owing.position = life.cursor;

    read_more(life.store, &life.s, &life.owing, 100);
}


static void
name_before(void *data)
{
    snprintf(life.name, sizeof(life.name), "app%zu", life.known);
    life.s = subscriber("prod", life.name);
    life.known++;
}


static int
register_once(void *data)
{
    return said(nango_delivery_register(life.store, &life.s, 1, T0, &failure));
}


static void
registered(void *data, int good)
{
    world_recover(life.store);
    subscribe(life.store, &life.s);
    assert_ledger(ledger(life.store, &life.s), 0, 0, 0, 0, 0, 0);
}


static void
registering_fails_cleanly(void **state)
{
    memory_test_t  test = { name_before, register_once, registered, NULL, 1,
                            1 };

    life_open();
    assert_true(world_fail_each(&test) > 1);
    life_close();
}


static int
read_once(void *data)
{
    int                     good;
    owing_t                 o;
    nango_delivery_read_t   how;

    memset(&o, 0, sizeof(o));
    memset(&how, 0, sizeof(how));

    o.position = 1;
    how.now_ms = T0;
    how.max_events = 100;
    how.max_bytes = 1024 * 1024;

    good = said(nango_delivery_read(life.store, &life.s, &how, &o.position,
                                    &o.more, &o.deliveries, &o.settled,
                                    &o.nsettled, &o.size, &failure));

    if (good) {
        assert_sequence(o.position, life.sequence);
        assert_int_equal(owing_count(&o), 2);
        assert_int_equal(o.nsettled, 2);

    } else {
        assert_sequence(o.position, 1);
        assert_null(o.deliveries);
        assert_int_equal(o.nsettled, 0);
    }

    owing_free(&o);

    return good;
}


static int
due_once(void *data)
{
    int      good;
    owing_t  o;

    memset(&o, 0, sizeof(o));

    good = said(nango_delivery_due(life.store, &life.s, UINT64_MAX, 10, 1024,
                                   NULL, NULL, &o.next_at, &o.deliveries,
                                   &o.settled, &o.nsettled, &o.size,
                                   &failure));

    assert_int_equal(owing_count(&o), good ? 1 : 0);

    owing_free(&o);

    return good;
}


static void
delivering_fails_cleanly(void **state)
{
    event_t        e = { .type = NANGO_TYPE_SYNC, .id = "three" };
    memory_test_t  test = { NULL, read_once, NULL, NULL, 0, 0 };

    life_open();

    life.s.types = NANGO_DELIVERY_TYPE(NANGO_TYPE_AUTH);
    life_events();

    life_read();
    settle(&life.owing, NANGO_SETTLED_WAITING, T0);
    life.owing.position = 1;
    fold_settled(life.store, &life.s, 0, &life.owing, 0);

    append(life.store, &e);
    life_append("four", "{\"user\":\"d\"}");
    (void) fold(life.store);
    life.sequence = 5;

    assert_true(world_fail_each(&test) > 3);

    test.run = due_once;
    assert_true(world_fail_each(&test) > 3);

    life_close();
}


static void
settle_before(void *data)
{
    life_append("one", "{\"user\":\"a\"}");
    (void) fold(life.store);
    life_read();

    while (life.owing.deliveries) {
        settle(&life.owing, life.number % 3 == 0 ? NANGO_SETTLED_DELIVERED
                            : life.number % 3 == 1 ? NANGO_SETTLED_WAITING
                                                   : NANGO_SETTLED_DEAD, T0);
    }

    life_append("two", "{\"user\":\"b\"}");
    life.sequence = ledger(life.store, &life.s).cursor;
}


static int
settle_once(void *data)
{
    nango_folded_t        folded;
    nango_settlement_t    settlement;
    nango_fold_options_t  options;

    memset(&settlement, 0, sizeof(settlement));
    memset(&options, 0, sizeof(options));

    memcpy(settlement.key, life.s.key, NANGO_KEY_LEN);
    settlement.cursor_before = life.cursor;
    settlement.cursor = life.owing.position;
    settlement.settled = life.owing.settled;
    settlement.nsettled = life.owing.nsettled;

    options.now_ms = T0;
    options.retain_ms = HOUR;
    options.settlements = &settlement;
    options.nsettlements = 1;

    return said(nango_fold(life.store, &options, &folded, &failure));
}


/* Once again is stale if it was done; nobody knows of a failed sync. */

static void
settled_once(void *data, int good)
{
    int             stale;
    nango_ledger_t  l;

    world_recover(life.store);

    l = ledger(life.store, &life.s);

    if (good) {
        assert_sequence(l.cursor, life.owing.position);
    }

    assert_true(l.cursor == life.owing.position || l.cursor == life.cursor);

    stale = fold_settled(life.store, &life.s, life.cursor, &life.owing, 0);
    assert_int_equal(stale, l.cursor == life.owing.position);

    (void) fold(life.store);
    (void) ledger(life.store, &life.s);

    /* What has rows now is out of the way. */

    owing_free(&life.owing);
    life.owing.position = ledger(life.store, &life.s).cursor;
    due(life.store, &life.s, &life.owing, UINT64_MAX, 100);
    settle_all(&life.owing, NANGO_SETTLED_DELIVERED, 0);
    life.sequence = life.owing.position;
    (void) fold_settled(life.store, &life.s, life.sequence, &life.owing, 0);
}


static void
a_settlement_fails_cleanly(void **state)
{
    memory_test_t  test = { settle_before, settle_once, settled_once, NULL, 1,
                            1 };

    life_open();
    assert_true(world_fail_each(&test) > 3);
    assert_sequence(ledger(life.store, &life.s).lost, 0);
    life_close();
}


static void
prune_before(void *data)
{
    life_append("one", NULL);
    life_append("two", NULL);
    (void) fold(life.store);

    life_read();
    settle_all(&life.owing, NANGO_SETTLED_DELIVERED, 0);
    (void) fold_settled(life.store, &life.s, life.cursor, &life.owing, 0);
}


static int
prune_once(void *data)
{
    int                    good;
    nango_pruned_t         pruned;
    nango_prune_options_t  options;

    memset(&options, 0, sizeof(options));

    options.now_ms = T0 + HOUR;
    options.max_events = 100;

    life.from = 0;
    good = said(nango_log_prune(life.store, &options, &life.from, &pruned,
                                &failure));

    if (!good) {
        assert_sequence(pruned.pruned, 0);
    }

    return good;
}


static int
count_left(void *data, uint64_t sequence, const nango_record_t *record)
{
    ++*(uint64_t *) data;
    return 0;
}


static void
count_stored(void *data, const nango_stored_t *stored)
{
    *(uint64_t *) data += stored->stored - stored->pruned;
}


/* What is left, and what the counts say is left. */

static void
pruned_once(void *data, int good)
{
    uint64_t         left, stored;
    nango_reader_t  *reader;

    world_recover(life.store);

    left = 0;
    assert_int_equal(nango_log_scan(life.store, 1, count_left, &left,
                                    &failure), 0);
    stored = 0;
    reader = snapshot(life.store);
    assert_int_equal(nango_reader_stored(reader, count_stored, &stored,
                                         &failure), 0);
    snapshot_end(reader);

    assert_sequence(left, stored);

    if (good) {
        assert_sequence(left, 1);
    }
}


static void
pruning_fails_cleanly(void **state)
{
    memory_test_t  test = { prune_before, prune_once, pruned_once, NULL, 1,
                            1 };

    life_open();
    assert_true(world_fail_each(&test) > 3);
    life_close();
}


static void
hand_before(void *data)
{
    life_append(NULL, NULL);
    (void) fold(life.store);

    life_read();
    settle_all(&life.owing, NANGO_SETTLED_DEAD, 0);
    (void) fold_settled(life.store, &life.s, life.cursor, &life.owing, 1);
}


static int
redeliver_once(void)
{
    int       more;
    uint64_t  n;

    return said(nango_delivery_redeliver(life.store, life.s.key, 0, 10000, T0,
                                         &n, &more, &failure));
}


static int
resume_once(void)
{
    return said(nango_delivery_resume(life.store, life.s.key, T0, &failure));
}


static int
forget_once(void)
{
    int       more;
    uint64_t  n;

    return said(nango_delivery_forget(life.store, life.s.key, 10000, &n, &more,
                                      &failure));
}


static int
hand_once(void *data)
{
    return life.act();
}


static void
handed(void *data, int good)
{
    nango_ledger_t  l;

    world_recover(life.store);

    if (!good) {
        (void) life.act();
    }

    if (life.act == forget_once) {
        subscribe(life.store, &life.s);
    }

    l = ledger(life.store, &life.s);

    if (good) {
        assert_sequence(l.dead, life.act == resume_once ? l.dead : 0);
        assert_sequence(l.parked_at, life.act == redeliver_once ? T0 : 0);
    }
}


static void
acts_by_hand_fail_cleanly(void **state)
{
    size_t         i;
    memory_test_t  test = { hand_before, hand_once, handed, NULL, 1, 1 };

    static int   (*acts[])(void) = { redeliver_once, resume_once,
                                     forget_once };

    for (i = 0; i < 3; i++) {
        life_open();
        life.act = acts[i];
        assert_true(world_fail_each(&test) > 1);
        life_close();
        remove_below("log");
        remove_below("state");
    }
}


static void
seen_ledger(void *data, const nango_ledger_t *l)
{
    ++*(int *) data;
}


static void
seen_stored(void *data, const nango_stored_t *stored)
{
    ++*(int *) data;
}


static void
seen_owed(void *data, const nango_owed_t *owed)
{
    ++*(int *) data;
}


static int
ledgers_once(void *data)
{
    int              n, rc;
    nango_ledger_t   l;
    nango_reader_t  *reader;

    reader = nango_reader_create(life.store);

    if (reader == NULL) {
        return 0;
    }

    if (!said(nango_reader_begin(reader, &failure))) {
        nango_reader_free(reader);
        return 0;
    }

    n = 0;
    rc = nango_reader_ledgers(reader, seen_ledger, &n, &failure);

    if (rc == 0) {
        assert_int_equal(n, 1);
        rc = nango_reader_stored(reader, seen_stored, &n, &failure);
    }

    if (rc == 0) {
        assert_int_equal(n, 2);
        rc = nango_reader_owed(reader, life.s.key, 0, 0, 10, seen_owed, &n,
                               &failure);
    }

    if (rc == 0) {
        assert_int_equal(n, 3);
        rc = nango_reader_ledger(reader, life.s.key, &l, &failure) - 1;
    }

    if (rc == 0) {
        assert_sequence(l.rows, 1);
    }

    nango_reader_end(reader);
    nango_reader_free(reader);

    return rc == 0;
}


static void
ledgers_fail_cleanly(void **state)
{
    memory_test_t  test = { NULL, ledgers_once, NULL, NULL, 0, 0 };

    life_open();
    life_append("one", NULL);
    (void) fold(life.store);
    life_read();
    settle_all(&life.owing, NANGO_SETTLED_WAITING, T0);
    (void) fold_settled(life.store, &life.s, 0, &life.owing, 0);

    assert_true(world_fail_each(&test) > 3);
    life_close();
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(registering_fails_cleanly),
        store_unit(delivering_fails_cleanly),
        store_unit(a_settlement_fails_cleanly),
        store_unit(pruning_fails_cleanly),
        store_unit(acts_by_hand_fail_cleanly),
        store_unit(ledgers_fail_cleanly),

        calls_unit(registering_fails_cleanly),
        calls_unit(a_settlement_fails_cleanly),
        calls_unit(pruning_fails_cleanly),
        calls_unit(acts_by_hand_fail_cleanly)
    };

    if (memory_skipped()) {
        return 0;
    }

    return cmocka_run_group_tests_name("delivery memory", tests, NULL, NULL);
}
