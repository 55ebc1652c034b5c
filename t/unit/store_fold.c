/*
 * Copyright (C) nginx-nango authors
 */

#include "store_test.h"


#define IDS  6


static event_t
auth(nango_op_e op, nango_success_e success, const char *id, const char *tags)
{
    event_t          e;
    static unsigned  hmac;

    memset(&e, 0, sizeof(e));

    e.op = op;
    e.success = success;
    e.id = id;
    e.tags = tags;
    e.hmac = ++hmac;

    return e;
}


#define created(id, tags)                                                     \
    auth(NANGO_OP_CREATION, NANGO_SUCCESS_TRUE, id, tags)
#define overridden(id, tags)                                                  \
    auth(NANGO_OP_OVERRIDE, NANGO_SUCCESS_TRUE, id, tags)
#define failed(id)  auth(NANGO_OP_REFRESH, NANGO_SUCCESS_FALSE, id, NULL)
#define deleted(id)  auth(NANGO_OP_DELETION, NANGO_SUCCESS_TRUE, id, NULL)


static uint64_t
put(nango_store_t *store, event_t e)
{
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


static int
changed(nango_store_t *store, const char *name, const char *value,
    uint64_t since)
{
    int              rc;
    nango_tag_t      tag;
    nango_reader_t  *reader;

    tag.name = Z(name);
    tag.value = Z(value);

    reader = snapshot(store);
    rc = nango_reader_changed(reader, S("prod"), &tag, 1, since, &failure);
    snapshot_end(reader);

    return rc;
}


static void
an_empty_log_is_nothing_to_do(void **state)
{
    uint64_t         txnid;
    nango_store_t   *store;
    nango_folded_t   folded;

    store = store_open();
    txnid = nango_store_state_txnid(store);

    folded = fold(store);
    assert_sequence(folded.events, 0);
    assert_sequence(folded.applied, 0);
    assert_int_equal(folded.more, 0);
    assert_true(nango_store_state_txnid(store) == txnid);

    nango_store_close(store);
}


static void
an_event_makes_a_connection(void **state)
{
    event_t              e;
    nango_store_t       *store;
    nango_folded_t       folded;
    nango_reader_t      *reader;
    nango_connection_t   c;

    store = store_open();
    e = created("one", "{\"end_user_id\":\"42\",\"team\":\"a b\"}");
    e.at = 12345;
    put(store, e);

    folded = fold(store);
    assert_sequence(folded.from, 1);
    assert_sequence(folded.applied, 1);
    assert_sequence(folded.events, 1);
    assert_sequence(folded.gap, 0);

    reader = snapshot(store);
    assert_sequence(nango_reader_last(reader), 1);
    assert_sequence(nango_reader_applied(reader), 1);
    assert_int_equal(find(reader, "one", &c), 1);
    assert_int_equal(c.status, NANGO_STATUS_VALID);
    assert_str(c.environment, "prod");
    assert_str(c.integration, "github");
    assert_str(c.connection_id, "one");
    assert_str(c.provider, "github");
    assert_sequence(c.created_sequence, 1);
    assert_true(c.created_at == T0 + 12345);
    assert_int_equal(c.ntags, 2);
    assert_str(nango_connection_tag(&c, S("team")), "a b");
    assert_int_equal(find(reader, "two", &c), 0);
    snapshot_end(reader);

    nango_store_close(store);
}


static void
nothing_is_applied_twice(void **state)
{
    nango_store_t  *store;

    store = store_open();
    put(store, failed("one"));
    put(store, created("one", "{\"a\":\"1\"}"));
    put(store, failed("one"));
    put(store, failed("one"));

    assert_sequence(fold(store).events, 4);
    assert_sequence(fold(store).events, 0);
    assert_sequence(counts(store).events, 4);
    assert_sequence(counts(store).effective, 2);
    assert_sequence(counts(store).ignored, 1);
    assert_sequence(counts(store).invalid, 1);

    nango_store_close(store);
}


static void
batches_end_where_they_are_told_to(void **state)
{
    int                    i;
    event_t                e;
    nango_store_t         *store;
    nango_folded_t         folded;
    nango_fold_options_t   options;

    store = store_open();

    for (i = 0; i < 10; i++) {
        e = created("one", "{\"a\":\"1\"}");
        e.pad = 1000;
        put(store, e);
    }

    memset(&options, 0, sizeof(options));
    options.now_ms = T0;
    options.max_events = 3;
    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_sequence(folded.from, 1);
    assert_sequence(folded.events, 3);
    assert_int_equal(folded.more, 1);

    /* the second one goes over the limit */

    options.max_events = 0;
    options.max_bytes = 1500;
    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_sequence(folded.from, 4);
    assert_sequence(folded.events, 2);
    assert_int_equal(folded.more, 1);

    options.max_bytes = 0;
    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_sequence(folded.events, 5);
    assert_sequence(folded.applied, 10);
    assert_int_equal(folded.more, 0);

    /* what the leader compares to see whether there is anything new */

    assert_sequence(folded.log_txnid, nango_store_log_txnid(store));
    put(store, e);
    assert_true(folded.log_txnid != nango_store_log_txnid(store));

    nango_store_close(store);
}


static void
a_replayed_creation_undoes_nothing(void **state)
{
    event_t         e;
    nango_store_t  *store;

    store = store_open();
    e = created("one", "{\"a\":\"1\"}");

    put(store, e);
    put(store, overridden("one", "{\"a\":\"2\"}"));
    put(store, failed("one"));
    put(store, e);
    fold(store);

    assert_sequence(counts(store).invalid, 1);
    assert_sequence(counts(store).ignored, 1);

    put(store, deleted("one"));
    put(store, e);
    fold(store);

    assert_sequence(counts(store).tombstones, 1);
    assert_sequence(counts(store).valid, 0);
    assert_sequence(counts(store).ignored, 2);

    nango_store_close(store);
}


static void
every_tag_is_in_the_index(void **state)
{
    nango_store_t   *store;
    nango_reader_t  *reader;

    store = store_open();
    put(store, created("one", "{\"a\":\"1\",\"b\":\"2\",\"c\":\"3\"}"));
    put(store, created("two", "{\"a\":\"1\",\"b\":\"3\"}"));
    fold(store);

    assert_int_equal(entries(store, store->owners), 5);

    reader = snapshot(store);
    assert_int_equal(owned(reader, "a", "1"), 2);
    assert_int_equal(owned(reader, "b", "2"), 1);
    assert_int_equal(owned(reader, "c", "3"), 1);
    assert_int_equal(owned(reader, "c", "1"), 0);
    assert_int_equal(owned(reader, "d", "3"), 0);
    snapshot_end(reader);

    nango_store_close(store);
}


static void
tags_are_replaced_in_the_index(void **state)
{
    nango_store_t   *store;
    nango_reader_t  *reader;

    store = store_open();
    put(store, created("one", "{\"a\":\"1\",\"b\":\"2\"}"));
    put(store, overridden("one", "{\"b\":\"2\",\"c\":\"3\"}"));
    fold(store);

    assert_int_equal(entries(store, store->owners), 2);

    reader = snapshot(store);
    assert_int_equal(owned(reader, "a", "1"), 0);
    assert_int_equal(owned(reader, "b", "2"), 1);
    assert_int_equal(owned(reader, "c", "3"), 1);
    snapshot_end(reader);

    /* a reconnect without tags */

    put(store, overridden("one", "{}"));
    put(store, failed("one"));
    fold(store);

    assert_int_equal(entries(store, store->owners), 2);

    nango_store_close(store);
}


static void
a_deleted_connection_is_not_in_the_index(void **state)
{
    event_t              e;
    nango_store_t       *store;
    nango_reader_t      *reader;
    nango_connection_t   c;

    store = store_open();
    put(store, created("one", "{\"a\":\"1\",\"b\":\"2\"}"));
    put(store, deleted("one"));
    put(store, deleted("never seen"));
    fold(store);

    assert_int_equal(entries(store, store->owners), 0);
    assert_sequence(counts(store).tombstones, 2);
    assert_sequence(counts(store).valid, 0);

    reader = snapshot(store);
    assert_int_equal(find(reader, "one", &c), 1);
    assert_int_equal(c.status, NANGO_STATUS_DELETED);
    snapshot_end(reader);

    /* a repair brings it back, with the tags that it had */

    e = overridden("one", NULL);
    e.source = NANGO_SOURCE_REPAIR;
    put(store, e);
    e = created("never seen", "{\"a\":\"1\"}");
    e.source = NANGO_SOURCE_REPAIR;
    put(store, e);
    fold(store);

    assert_int_equal(entries(store, store->owners), 3);
    assert_int_equal(entries(store, store->tombstones), 0);
    assert_sequence(counts(store).tombstones, 0);
    assert_sequence(counts(store).valid, 2);

    reader = snapshot(store);
    assert_int_equal(owned(reader, "a", "1"), 2);
    snapshot_end(reader);

    nango_store_close(store);
}


static void
a_change_is_told_to_its_owner(void **state)
{
    nango_store_t  *store;

    store = store_open();
    put(store, created("one", "{\"a\":\"1\"}"));                      /* 1 */
    put(store, created("two", "{\"a\":\"2\"}"));                      /* 2 */
    put(store, overridden("one", "{\"a\":\"3\"}"));                   /* 3 */
    fold(store);

    assert_int_equal(changed(store, "a", "1", 0), 1);
    assert_int_equal(changed(store, "a", "1", 2), 1);
    assert_int_equal(changed(store, "a", "1", 3), 0);
    assert_int_equal(changed(store, "a", "2", 1), 1);
    assert_int_equal(changed(store, "a", "2", 2), 0);
    assert_int_equal(changed(store, "a", "3", 0), 1);
    assert_int_equal(changed(store, "a", "4", 0), 0);
    assert_int_equal(changed(store, "a", "3", UINT64_MAX), 0);

    nango_store_close(store);
}


static void
what_changes_nothing_is_no_change(void **state)
{
    nango_store_t  *store;

    store = store_open();
    put(store, created("one", "{\"a\":\"1\"}"));
    put(store, overridden("one", NULL));
    put(store, failed("two"));
    fold(store);

    assert_int_equal(entries(store, store->changes), 1);
    assert_int_equal(changed(store, "a", "1", 1), 0);

    /* a deletion is one, and is told to who had it */

    put(store, deleted("one"));
    fold(store);
    assert_int_equal(changed(store, "a", "1", 3), 1);

    nango_store_close(store);
}


static void
a_change_concerns_who_has_all_its_tags(void **state)
{
    nango_tag_t      tags[2];
    nango_store_t   *store;
    nango_reader_t  *reader;

    store = store_open();
    put(store, created("one", "{\"a\":\"1\",\"b\":\"2\"}"));
    fold(store);

    tags[0].name = S("a");
    tags[0].value = S("1");
    tags[1].name = S("b");
    tags[1].value = S("2");

    reader = snapshot(store);
    assert_int_equal(nango_reader_changed(reader, S("prod"), tags, 2, 0,
                                          &failure),
                     1);
    assert_int_equal(nango_reader_changed(reader, S("dev"), tags, 2, 0,
                                          &failure),
                     0);
    tags[1].value = S("3");
    assert_int_equal(nango_reader_changed(reader, S("prod"), tags, 2, 0,
                                          &failure),
                     0);
    assert_int_equal(nango_reader_changed(reader, S("prod"), tags, 0, 0,
                                          &failure),
                     -1);
    snapshot_end(reader);

    nango_store_close(store);
}


typedef struct {
    size_t         n;
    unsigned char  keys[16][NANGO_KEY_LEN];
} visited_t;


static void
visit(void *data, const unsigned char key[NANGO_KEY_LEN])
{
    visited_t  *v = data;

    if (v->n < 16) {
        memcpy(v->keys[v->n], key, NANGO_KEY_LEN);
    }

    v->n++;
}


static int
changes(nango_store_t *store, uint64_t since, visited_t *v)
{
    int              rc;
    nango_reader_t  *reader;

    v->n = 0;

    reader = snapshot(store);
    rc = nango_reader_changes(reader, since, visit, v, &failure);
    snapshot_end(reader);

    return rc;
}


/* Between the i-th and the last of them. */

static void
assert_visited(const visited_t *v, size_t i, size_t last, const char *name,
    const char *value)
{
    unsigned char  key[NANGO_KEY_LEN];

    assert_true(last < v->n);
    assert_int_equal(nango_owner_key(key, S("prod"), Z(name), Z(value)), 0);

    while (memcmp(v->keys[i], key, NANGO_KEY_LEN) != 0) {
        assert_true(i++ < last);
    }
}


static void
changes_name_their_owners(void **state)
{
    visited_t       v;
    nango_store_t  *store;

    store = store_open();

    assert_int_equal(changes(store, 0, &v), 1);
    assert_int_equal(v.n, 0);

    put(store, created("one", "{\"a\":\"1\"}"));                      /* 1 */
    put(store, overridden("one", "{\"a\":\"2\"}"));                   /* 2 */
    put(store, failed("none"));                                       /* 3 */
    put(store, deleted("one"));                                       /* 4 */
    put(store, created("two", NULL));                                 /* 5 */
    fold(store);

    /* one that changes: of whom it was, and whose it is */

    assert_int_equal(changes(store, 0, &v), 1);
    assert_int_equal(v.n, 4);
    assert_visited(&v, 0, 0, "a", "1");
    assert_visited(&v, 1, 2, "a", "1");
    assert_visited(&v, 1, 2, "a", "2");
    assert_visited(&v, 3, 3, "a", "2");

    assert_int_equal(changes(store, 2, &v), 1);
    assert_int_equal(v.n, 1);
    assert_visited(&v, 0, 0, "a", "2");

    assert_int_equal(changes(store, 4, &v), 1);
    assert_int_equal(v.n, 0);

    /* nothing is known of what comes, or of another log */

    assert_int_equal(changes(store, 5, &v), 1);
    assert_int_equal(changes(store, 1000, &v), 1);
    assert_int_equal(changes(store, UINT64_MAX, &v), 1);
    assert_int_equal(v.n, 0);

    nango_store_close(store);
}


static void
forgotten_changes_are_said_to_be(void **state)
{
    visited_t       v;
    nango_store_t  *store;

    store = store_open();
    put(store, created("one", "{\"a\":\"1\"}"));
    fold_at(store, 0, 100 * HOUR, 0);
    put(store, created("two", "{\"a\":\"2\"}"));
    fold_at(store, HOUR / 2, 100 * HOUR, 0);
    fold_at(store, HOUR + 1, 100 * HOUR, 0);

    assert_int_equal(changes(store, 0, &v), 0);
    assert_int_equal(v.n, 0);

    assert_int_equal(changes(store, 1, &v), 1);
    assert_int_equal(v.n, 1);
    assert_visited(&v, 0, 0, "a", "2");

    nango_store_close(store);
}


/* So many, each as make says. */

static void
put_many(nango_store_t *store, int n, event_t (*make)(int i))
{
    int              i, k;
    event_t          e;
    nango_write_t   *jobs[256];
    nango_writer_t  *writer;

    writer = nango_writer_create(store, 0);
    assert_non_null(writer);

    for (i = 0; i < n; i++) {
        e = make(i);
        jobs[i % 256] = job_make(&e);

        if (i % 256 == 255 || i == n - 1) {
            assert_ok(nango_log_commit(writer, jobs, (size_t) i % 256 + 1,
                                       &failure));

            for (k = 0; k <= i % 256; k++) {
                job_free(jobs[k]);
            }
        }
    }

    nango_writer_free(writer);
}


static event_t
to_and_fro(int i)
{
    return overridden("one", i % 2 ? "{\"a\":\"1\"}" : "{\"a\":\"2\"}");
}


static void
so_are_too_many(void **state)
{
    visited_t       v;
    nango_store_t  *store;

    store = store_open();
    put_many(store, NANGO_CHANGES_MAX + 256, to_and_fro);
    fold(store);

    /* one row more than are looked at, and just as many */

    assert_int_equal(changes(store, 255, &v), 0);
    assert_int_equal(v.n, 2 * NANGO_CHANGES_MAX);
    assert_int_equal(changed(store, "b", "1", 255), 2);
    assert_int_equal(changed(store, "a", "1", 255), 1);

    assert_int_equal(changes(store, 257, &v), 1);
    assert_int_equal(v.n, 2 * (NANGO_CHANGES_MAX - 1));
    assert_int_equal(changed(store, "b", "1", 257), 0);

    nango_store_close(store);
}


static void
changes_are_forgotten_after_an_hour(void **state)
{
    uint64_t        txnid;
    nango_store_t  *store;

    store = store_open();
    put(store, created("one", "{\"a\":\"1\"}"));
    fold_at(store, 0, 100 * HOUR, 0);
    put(store, created("two", "{\"a\":\"1\"}"));
    fold_at(store, HOUR / 2, 100 * HOUR, 0);
    fold_at(store, HOUR, 100 * HOUR, 0);

    assert_int_equal(entries(store, store->changes), 2);
    assert_int_equal(changed(store, "a", "1", 0), 1);

    fold_at(store, HOUR + 1, 100 * HOUR, 0);
    assert_int_equal(entries(store, store->changes), 1);
    assert_int_equal(changed(store, "a", "1", 0), 2);
    assert_int_equal(changed(store, "a", "1", 1), 1);
    assert_int_equal(changed(store, "a", "1", 2), 0);

    txnid = nango_store_state_txnid(store);
    fold_at(store, HOUR + 2, 100 * HOUR, 0);
    assert_true(nango_store_state_txnid(store) == txnid);

    fold_at(store, 2 * HOUR, 100 * HOUR, 0);
    assert_int_equal(changed(store, "a", "1", 1), 2);
    assert_int_equal(changed(store, "a", "1", 2), 0);

    nango_store_close(store);
}


static const char *
some(int i)
{
    static char  id[16];

    (void) snprintf(id, sizeof(id), "c-%d", i);

    return id;
}


static event_t
created_some(int i)
{
    return created(some(i), "{\"a\":\"1\"}");
}


static event_t
deleted_some(int i)
{
    return deleted(some(i));
}


static int
fold_once(nango_store_t *store, uint64_t after, uint64_t retain)
{
    nango_folded_t        folded;
    nango_fold_options_t  options;

    memset(&options, 0, sizeof(options));

    options.now_ms = T0 + after;
    options.retain_ms = retain;

    assert_ok(nango_fold(store, &options, &folded, &failure));

    return folded.old;
}


static void
as_many_are_dropped_as_are_added(void **state)
{
    nango_store_t  *store;

    store = store_open();
    put_many(store, 3000, created_some);
    fold_at(store, 0, 100 * HOUR, 0);

    put_many(store, 3000, deleted_some);
    assert_int_equal(fold_once(store, HOUR + 1, 100 * HOUR), 0);
    assert_int_equal(entries(store, store->changes), 3000);

    put_many(store, 3000, created_some);
    assert_int_equal(fold_once(store, HOUR + 1, HOUR), 0);
    assert_int_equal(entries(store, store->tombstones), 0);

    nango_store_close(store);
}


static event_t
overridden_some(int i)
{
    return overridden(some(i), "{\"a\":\"2\"}");
}


static void
so_is_history(void **state)
{
    uint64_t               from;
    nango_store_t         *store;
    nango_pruned_t         pruned;
    nango_prune_options_t  options;

    store = store_open();
    put_many(store, 3000, created_some);
    put_many(store, 3000, overridden_some);
    fold(store);
    assert_int_equal(entries(store, store->history), 3000);

    memset(&options, 0, sizeof(options));
    options.now_ms = T0 + HOUR;
    options.max_events = 6000;
    from = 0;

    assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
    assert_sequence(pruned.pruned, 5999);

    put_many(store, 3000, created_some);
    (void) fold_once(store, HOUR, 100 * HOUR);
    assert_int_equal(entries(store, store->history), 3000);

    nango_store_close(store);
}


static void
it_is_told_that_there_is_more_to_drop(void **state)
{
    nango_store_t  *store;

    store = store_open();
    put_many(store, 1500, created_some);
    put_many(store, 1500, deleted_some);
    fold_at(store, 0, 100 * HOUR, 0);

    assert_int_equal(entries(store, store->changes), 3000);
    assert_int_equal(entries(store, store->tombstones), 1500);

    assert_int_equal(fold_once(store, 2 * HOUR, 100 * HOUR), 1);
    assert_int_equal(fold_once(store, 2 * HOUR, 100 * HOUR), 1);
    assert_int_equal(fold_once(store, 2 * HOUR, 100 * HOUR), 0);
    assert_int_equal(entries(store, store->changes), 0);

    assert_int_equal(fold_once(store, 2 * HOUR, HOUR), 1);
    assert_int_equal(fold_once(store, 2 * HOUR, HOUR), 0);
    assert_int_equal(entries(store, store->tombstones), 0);

    nango_store_close(store);
}


static void
changes_of_a_wrong_clock_go_too(void **state)
{
    nango_store_t  *store;

    store = store_open();
    put(store, created("one", "{\"a\":\"1\"}"));
    fold_at(store, 1000 * HOUR, 100 * HOUR, 0);
    fold_at(store, 0, 100 * HOUR, 0);
    assert_int_equal(entries(store, store->changes), 0);

    nango_store_close(store);
}


static void
a_tombstone_is_dropped_after_its_time(void **state)
{
    nango_store_t       *store;
    nango_reader_t      *reader;
    nango_connection_t   c;

    store = store_open();
    put(store, created("one", "{\"a\":\"1\"}"));
    put(store, deleted("one"));
    put(store, deleted("two"));
    fold(store);

    fold_at(store, 10 * HOUR, 10 * HOUR, 0);
    assert_sequence(counts(store).tombstones, 2);

    fold_at(store, 10 * HOUR + 1, 10 * HOUR, 0);
    assert_sequence(counts(store).tombstones, 0);
    assert_int_equal(entries(store, store->tombstones), 0);
    assert_int_equal(entries(store, store->connections), 0);

    reader = snapshot(store);
    assert_int_equal(find(reader, "one", &c), 0);
    snapshot_end(reader);

    nango_store_close(store);
}


static void
a_tombstone_that_was_lifted_takes_nothing_along(void **state)
{
    event_t         e;
    nango_store_t  *store;

    store = store_open();
    put(store, created("one", "{\"a\":\"1\"}"));
    put(store, deleted("one"));
    e = overridden("one", NULL);
    e.source = NANGO_SOURCE_REPAIR;
    put(store, e);
    e = deleted("one");
    e.at = 5 * HOUR;
    put(store, e);
    fold(store);

    assert_int_equal(entries(store, store->tombstones), 1);

    fold_at(store, 12 * HOUR, 10 * HOUR, 0);
    assert_sequence(counts(store).tombstones, 1);

    fold_at(store, 16 * HOUR, 10 * HOUR, 0);
    assert_sequence(counts(store).tombstones, 0);
    assert_int_equal(entries(store, store->connections), 0);

    nango_store_close(store);
}


static void
dropping_goes_in_steps(void **state)
{
    int                    i;
    char                   id[32];
    event_t                e;
    nango_store_t         *store;
    nango_write_t         *jobs[1500];
    nango_writer_t        *w;
    nango_folded_t         folded;
    nango_fold_options_t   options;

    store = store_open();
    w = nango_writer_create(store, 0);

    for (i = 0; i < 1500; i++) {
        snprintf(id, sizeof(id), "c%d", i);
        e = deleted(id);
        jobs[i] = job_make(&e);
    }

    assert_ok(nango_log_commit(w, jobs, 1500, &failure));

    for (i = 0; i < 1500; i++) {
        job_free(jobs[i]);
    }

    fold(store);
    assert_sequence(counts(store).tombstones, 1500);

    memset(&options, 0, sizeof(options));
    options.now_ms = T0 + 2 * HOUR;
    options.retain_ms = HOUR;

    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_sequence(folded.events, 0);
    assert_sequence(counts(store).tombstones, 476);
    assert_int_equal(entries(store, store->changes), 476);

    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_sequence(counts(store).tombstones, 0);
    assert_int_equal(entries(store, store->connections), 0);
    assert_int_equal(entries(store, store->changes), 0);

    nango_writer_free(w);
    nango_store_close(store);
}


/* Something in a table that was not put there by the store. */

static void
plant(MDB_env *env, MDB_dbi dbi, const void *k, size_t klen, const void *v,
    size_t vlen)
{
    MDB_txn  *txn;
    MDB_val   key, val;

    key = nango_val(k, klen);
    val = nango_val(v, vlen);

    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(v ? mdb_put(txn, dbi, &key, &val, 0)
                       : mdb_del(txn, dbi, &key, NULL),
                     0);
    assert_int_equal(mdb_txn_commit(txn), 0);
}


static void
plant_event(nango_store_t *store, uint64_t sequence, const char *bytes)
{
    unsigned char  key[8];

    nango_put_be64(key, sequence);
    plant(store->log, store->events, key, 8, bytes,
          bytes ? strlen(bytes) : 0);
}


static void
what_cannot_be_read_is_passed_over(void **state)
{
    nango_store_t   *store;
    nango_folded_t   folded;

    store = store_open();
    put(store, created("one", NULL));
    put(store, created("two", NULL));
    put(store, created("three", NULL));
    put(store, created("four", NULL));

    plant_event(store, 1, "\x01garbage");
    plant_event(store, 3, "\x09 of a later version");

    folded = fold(store);
    assert_sequence(folded.events, 4);
    assert_sequence(folded.not_understood, 2);
    assert_sequence(folded.gap, 0);
    assert_sequence(counts(store).valid, 2);
    assert_sequence(counts(store).not_understood, 2);

    nango_store_close(store);
}


static void
gaps_are_counted(void **state)
{
    nango_store_t   *store;
    nango_folded_t   folded;

    store = store_open();

    while (put(store, created("one", NULL)) < 9) { /* void */ }

    plant_event(store, 1, NULL);
    plant_event(store, 2, NULL);
    plant_event(store, 6, NULL);

    folded = fold(store);
    assert_sequence(folded.from, 3);
    assert_sequence(folded.gap, 3);
    assert_sequence(folded.events, 6);
    assert_sequence(counts(store).gaps, 3);
    assert_sequence(counts(store).events, 6);

    nango_store_close(store);
}


static void
a_damaged_connection_is_left_alone(void **state)
{
    nango_store_t       *store;
    unsigned char        key[NANGO_KEY_LEN];
    nango_reader_t      *reader;
    nango_connection_t   c;

    store = store_open();
    put(store, created("one", "{\"a\":\"1\"}"));
    put(store, created("two", "{\"a\":\"1\"}"));
    put(store, created("three", "{\"a\":\"1\"}"));
    fold(store);

    assert_int_equal(nango_connection_key(key, S("prod"), S("github"),
                                          S("one")),
                     0);
    plant(store->state, store->connections, key, sizeof(key), "\x01", 1);

    assert_int_equal(nango_connection_key(key, S("prod"), S("github"),
                                          S("two")),
                     0);
    plant(store->state, store->connections, key, sizeof(key), "\x07", 1);

    put(store, failed("one"));
    put(store, failed("two"));
    put(store, failed("three"));
    assert_sequence(fold(store).not_understood, 2);
    assert_sequence(counts(store).invalid, 1);

    reader = snapshot(store);
    assert_int_equal(find(reader, "one", &c), -1);
    assert_int_equal(failure.code, NANGO_EDAMAGED);
    assert_int_equal(find(reader, "two", &c), 0);
    assert_int_equal(find(reader, "three", &c), 1);
    assert_int_equal(owned(reader, "a", "1"), 1);
    snapshot_end(reader);

    nango_store_close(store);
}


/*
 * A model that knows the documented table and nothing of the code: a few
 * connections of an owner each, and what each event does to one.
 */

typedef struct {
    char                  status;       /* '-', 'v', 'i', 'd' */
    unsigned              creation;     /* HMAC */
    uint64_t              created;
    uint64_t              updated;
    unsigned              repeats;
    int                   owner;        /* -1: no tags */
    int                   error;
} model_t;

typedef struct {
    model_t               c[IDS];
    uint64_t              events;
    uint64_t              effective;
    uint64_t              ignored;
} world_t;


static void
model_apply(world_t *w, int i, const event_t *e, uint64_t sequence, int owner,
    int error)
{
    int       differs, to;
    model_t  *m;

    m = &w->c[i];
    w->events++;
    to = 0;

    switch (e->op) {

    case NANGO_OP_CREATION:

        if (e->success != NANGO_SUCCESS_TRUE) {
            return;
        }

        to = 'v';

        if (m->status == 'd' ? e->source != NANGO_SOURCE_REPAIR
                             : (m->status != '-' && m->creation == e->hmac))
        {
            w->ignored++;
            return;
        }

        break;

    case NANGO_OP_OVERRIDE:
    case NANGO_OP_REFRESH:

        if (e->success == NANGO_SUCCESS_NONE) {
            return;
        }

        to = e->success == NANGO_SUCCESS_TRUE ? 'v' : 'i';

        if (m->status == '-' && !(to == 'v' && e->op == NANGO_OP_OVERRIDE)) {
            w->ignored++;
            return;
        }

        if (m->status == 'd'
            && !(to == 'v' && e->source == NANGO_SOURCE_REPAIR))
        {
            w->ignored++;
            return;
        }

        break;

    case NANGO_OP_DELETION:

        if (e->success == NANGO_SUCCESS_FALSE) {
            return;
        }

        to = 'd';
        break;

    default:
        return;
    }

    differs = (e->op == NANGO_OP_CREATION || m->status != to);

    if (m->status == to) {
        m->repeats += (e->op != NANGO_OP_CREATION);

    } else {
        m->repeats = 0;
        m->error = -1;
    }

    if (to == 'i' && error != -1 && m->error != error) {
        m->error = error;
        differs = 1;
    }

    if (owner != -1 && owner != m->owner
        && !(to == 'd' && m->status == 'd'))
    {
        m->owner = owner;
        differs = 1;
    }

    if (to == 'v' && m->created == 0) {
        m->created = sequence;
    }

    if (e->op == NANGO_OP_CREATION) {
        m->creation = e->hmac;
    }

    m->status = to;

    if (differs) {
        m->updated = sequence;
        w->effective++;
    }
}


static void
assert_model(nango_store_t *store, const world_t *w)
{
    int                  i, j, n, rc;
    char                 id[16], value[16];
    unsigned             statuses[128];
    nango_tag_t          tag;
    nango_owned_t       *o;
    nango_counts_t       sum;
    nango_reader_t      *reader;
    const model_t       *m;
    nango_connection_t   c;

    static const char  *letters = "-vid";

    memset(statuses, 0, sizeof(statuses));
    reader = snapshot(store);

    for (i = 0; i < IDS; i++) {
        m = &w->c[i];
        statuses[(int) m->status]++;

        snprintf(id, sizeof(id), "c%d", i);
        rc = find(reader, id, &c);

        if (m->status == '-') {
            assert_int_equal(rc, 0);
            continue;
        }

        assert_int_equal(rc, 1);
        assert_int_equal(letters[c.status], m->status);
        assert_sequence(c.created_sequence, m->created);
        assert_sequence(c.updated_sequence, m->updated);
        assert_int_equal(c.repeats, m->repeats);
        assert_int_equal(hmac_number(c.creation_hmac), m->creation);

        assert_int_equal(c.ntags, m->owner == -1 ? 0 : 2);

        if (m->owner != -1) {
            snprintf(value, sizeof(value), "u%d", m->owner);
            assert_true(nango_str_is(nango_connection_tag(&c, S("user")),
                                     value));
        }

        if (m->status != 'i' || m->error == -1) {
            assert_absent(c.error_type);

        } else {
            snprintf(value, sizeof(value), "e%d", m->error);
            assert_true(nango_str_is(c.error_type, value));
        }
    }

    for (j = 0; j < 4; j++) {
        uint64_t  before = 0;

        snprintf(value, sizeof(value), "u%d", j);
        tag.name = S("user");
        tag.value = Z(value);

        o = nango_owned_open(reader, S("prod"), &tag, 1, 0, &failure);
        assert_non_null(o);

        for (n = 0; nango_owned_next(o, &c, &failure) == 1; n++) {
            assert_true(before == 0 || c.created_sequence < before);
            before = c.created_sequence;
        }

        nango_owned_close(o);

        for (i = 0; i < IDS; i++) {
            n -= (w->c[i].owner == j
                  && (w->c[i].status == 'v' || w->c[i].status == 'i'));
        }

        assert_int_equal(n, 0);
    }

    assert_ok(nango_reader_counts(reader, &sum, &failure));
    assert_sequence(sum.events, w->events);
    assert_sequence(sum.effective, w->effective);
    assert_sequence(sum.ignored, w->ignored);
    assert_sequence(sum.not_understood, 0);
    assert_sequence(sum.gaps, 0);
    assert_sequence(sum.valid, statuses['v']);
    assert_sequence(sum.invalid, statuses['i']);
    assert_sequence(sum.tombstones, statuses['d']);

    snapshot_end(reader);

    assert_int_equal(entries(store, store->connections),
                     IDS - statuses['-']);
    assert_int_equal(entries(store, store->tombstones), statuses['d']);
}


static void
random_events_give_what_the_model_gives(void **state)
{
    int              i, round, k, owner, error;
    char             id[16], tags[64], type[16];
    event_t          e, old[IDS];
    world_t          w;
    uint64_t         sequence;
    nango_store_t   *store;

    memset(&w, 0, sizeof(w));
    memset(old, 0, sizeof(old));

    for (i = 0; i < IDS; i++) {
        w.c[i].status = '-';
        w.c[i].owner = -1;
        w.c[i].error = -1;
    }

    store = store_open();

    for (round = 0; round < 40; round++) {

        for (k = 0; k < 25; k++) {
            i = random_below(IDS);
            snprintf(id, sizeof(id), "c%d", i);

            owner = (int) random_below(6) - 2;
            owner = owner < 0 ? -1 : owner;
            error = (int) random_below(4) - 1;

            e = auth(random_below(6), random_below(8) ? 1 + random_below(2) : 0,
                     id, NULL);
            e.source = random_below(5) ? NANGO_SOURCE_NANGO
                                       : NANGO_SOURCE_REPAIR;

            /* a creation of before, sometimes */

            if (e.op == NANGO_OP_CREATION
                && e.success == NANGO_SUCCESS_TRUE)
            {
                if (old[i].id && random_below(3) == 0) {
                    e.hmac = old[i].hmac;

                } else {
                    old[i] = e;
                    old[i].id = "";
                }
            }

            if (owner != -1) {
                snprintf(tags, sizeof(tags),
                         "{\"user\":\"u%d\",\"all\":\"x\"}", owner);
                e.tags = tags;
            }

            if (error != -1 && e.success == NANGO_SUCCESS_FALSE) {
                snprintf(type, sizeof(type), "e%d", error);
                e.error = type;

            } else {
                error = -1;
            }

            sequence = append(store, &e);
            model_apply(&w, i, &e, sequence, owner, error);
        }

        fold_at(store, 0, 7 * 24 * HOUR, 1 + random_below(30));

        if (random_below(4) == 0) {
            nango_store_close(store);
            store = store_open();
        }

        assert_model(store, &w);
    }

    nango_store_close(store);

    /* and the same again from the log alone */

    remove_below("state");
    store = store_open();
    fold(store);
    assert_model(store, &w);
    nango_store_close(store);
}


static int
fold_child(void *data)
{
    int                     i;
    uint64_t                events;
    nango_store_t          *store;
    nango_folded_t          folded;
    nango_fold_options_t    options;

    if (store_try(&store, SIZE) != NANGO_OK) {
        return 1;
    }

    memset(&options, 0, sizeof(options));
    options.now_ms = T0;
    options.retain_ms = HOUR;
    options.max_events = 7;
    events = 0;

    for (i = 0; i < 60; i++) {

        if (nango_fold(store, &options, &folded, &failure) != NANGO_OK) {
            return 1;
        }

        events += folded.events;
    }

    return write(*(int *) data, &events, sizeof(events)) != sizeof(events);
}


static void
two_leaders_do_no_harm(void **state)
{
    int              i, out[2];
    char             id[16];
    pid_t            pids[2];
    uint64_t         events, sum;
    nango_store_t   *store;

    store = store_open();

    for (i = 0; i < 300; i++) {
        snprintf(id, sizeof(id), "c%d", i % 50);
        put(store, i % 3 ? failed(id) : created(id, "{\"a\":\"1\"}"));
    }

    assert_int_equal(pipe(out), 0);
    sum = 0;

    pids[0] = spawn(fold_child, &out[1]);
    pids[1] = spawn(fold_child, &out[1]);

    for (i = 0; i < 2; i++) {
        assert_int_equal(reap(pids[i]), 0);
        assert_int_equal(read(out[0], &events, sizeof(events)),
                         sizeof(events));
        sum += events;
    }

    close(out[0]);
    close(out[1]);

    assert_sequence(sum, 300);
    assert_sequence(counts(store).events, 300);
    assert_sequence(counts(store).applied, 300);

    nango_store_close(store);
}


static void
a_killed_fold_has_happened_or_not(void **state)
{
    int              i, round, out[2];
    char             id[16];
    pid_t            pid;
    event_t          e;
    nango_store_t   *store;
    nango_write_t   *jobs[300];
    nango_writer_t  *w;

    assert_int_equal(pipe(out), 0);

    for (round = 0; round < 10; round++) {
        store = store_open();
        w = nango_writer_create(store, 0);

        for (i = 0; i < 300; i++) {
            snprintf(id, sizeof(id), "c%d", i % 50);
            e = i % 3 ? failed(id) : created(id, "{\"a\":\"1\"}");
            jobs[i] = job_make(&e);
        }

        assert_ok(nango_log_commit(w, jobs, 300, &failure));

        for (i = 0; i < 300; i++) {
            job_free(jobs[i]);
        }

        nango_writer_free(w);
        nango_store_close(store);

        pid = spawn(fold_child, &out[1]);
        sleep_us(2000 + random_below(15000));
        kill(pid, SIGKILL);
        reap(pid);
    }

    close(out[0]);
    close(out[1]);

    store = store_open();
    fold(store);
    assert_sequence(counts(store).events, 3000);
    assert_sequence(counts(store).valid + counts(store).invalid, 50);
    assert_sequence(counts(store).applied, 3000);
    nango_store_close(store);
}


static void
connections_with_many_tags_end_a_batch_early(void **state)
{
    int                    i, j, n;
    char                   id[16], tags[4096];
    event_t                e;
    nango_store_t         *store;
    nango_write_t         *jobs[500];
    nango_writer_t        *w;
    nango_folded_t         folded;
    nango_fold_options_t   options;

    store = store_open();
    w = nango_writer_create(store, 0);

    for (n = 0; n < 3; n++) {

        for (i = 0; i < 500; i++) {
            snprintf(id, sizeof(id), "c%d", n * 500 + i);
            strcpy(tags, "{\"t\":\"1\"");

            for (j = 0; j < 62; j++) {
                sprintf(tags + strlen(tags), ",\"t%d\":\"%d\"", j,
                        n * 500 + i);
            }

            strcat(tags, "}");
            e = created(id, tags);
            jobs[i] = job_make(&e);
        }

        assert_ok(nango_log_commit(w, jobs, 500, &failure));

        for (i = 0; i < 500; i++) {
            job_free(jobs[i]);
        }
    }

    memset(&options, 0, sizeof(options));
    options.now_ms = T0;
    options.retain_ms = HOUR;

    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_in_range(folded.events, 900, 1100);
    assert_int_equal(folded.more, 1);

    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_int_equal(folded.more, 0);
    assert_int_equal(entries(store, store->owners), 1500 * 63);

    nango_writer_free(w);
    nango_store_close(store);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(an_empty_log_is_nothing_to_do),
        store_unit(an_event_makes_a_connection),
        store_unit(nothing_is_applied_twice),
        store_unit(batches_end_where_they_are_told_to),
        store_unit(a_replayed_creation_undoes_nothing),
        store_unit(every_tag_is_in_the_index),
        store_unit(tags_are_replaced_in_the_index),
        store_unit(a_deleted_connection_is_not_in_the_index),
        store_unit(a_change_is_told_to_its_owner),
        store_unit(what_changes_nothing_is_no_change),
        store_unit(a_change_concerns_who_has_all_its_tags),
        store_unit(changes_name_their_owners),
        store_unit(forgotten_changes_are_said_to_be),
        store_unit(so_are_too_many),
        store_unit(changes_are_forgotten_after_an_hour),
        store_unit(as_many_are_dropped_as_are_added),
        store_unit(so_is_history),
        store_unit(it_is_told_that_there_is_more_to_drop),
        store_unit(changes_of_a_wrong_clock_go_too),
        store_unit(a_tombstone_is_dropped_after_its_time),
        store_unit(a_tombstone_that_was_lifted_takes_nothing_along),
        store_unit(dropping_goes_in_steps),
        store_unit(what_cannot_be_read_is_passed_over),
        store_unit(gaps_are_counted),
        store_unit(a_damaged_connection_is_left_alone),
        store_unit(random_events_give_what_the_model_gives),
        store_unit(two_leaders_do_no_harm),
        store_unit(a_killed_fold_has_happened_or_not),
        store_unit(connections_with_many_tags_end_a_batch_early)
    };

    return cmocka_run_group_tests_name("fold", tests, NULL, NULL);
}
