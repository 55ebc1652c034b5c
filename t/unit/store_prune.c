/*
 * Copyright (C) nginx-nango authors
 */

#include "store_deliver.h"

#include "nango_events.h"


#define RETAIN  (7 * 24 * HOUR)


/* Received after T0, of an environment. */

static uint64_t
put(nango_store_t *store, const char *environment, uint64_t at)
{
    event_t          e;
    static unsigned  hmac;

    memset(&e, 0, sizeof(e));

    e.type = NANGO_TYPE_SYNC;
    e.environment = environment;
    e.id = "one";
    e.at = at;
    e.hmac = ++hmac;

    return append(store, &e);
}


static void
put_n(nango_store_t *store, const char *environment, uint64_t at, int n)
{
    while (n--) {
        put(store, environment, at);
    }
}


static nango_prune_options_t
pruning(uint64_t after)
{
    nango_prune_options_t  options;

    memset(&options, 0, sizeof(options));

    options.now_ms = T0 + after;
    options.retain_ms = RETAIN;
    options.max_events = 1000;

    return options;
}


static uint64_t
prune(nango_store_t *store, uint64_t after)
{
    uint64_t               n, from;
    nango_pruned_t         pruned;
    nango_prune_options_t  options;

    n = 0;
    from = 0;
    options = pruning(after);

    do {
        assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
        n += pruned.pruned;
    } while (pruned.more);

    assert_sequence(from, 0);

    return n;
}


static int
count(void *data, uint64_t sequence, const nango_record_t *record)
{
    (*(int *) data)++;

    return 0;
}


static int
left(nango_store_t *store)
{
    int  n;

    n = 0;
    assert_int_equal(nango_log_scan(store, 0, count, &n, &failure), 0);

    return n;
}


static int
there(nango_store_t *store, uint64_t sequence)
{
    int            rc;
    MDB_val        key, val;
    MDB_txn       *txn;
    unsigned char  buf[NANGO_SEQUENCE_LEN];

    nango_put_be64(buf, sequence);
    key = nango_val(buf, NANGO_SEQUENCE_LEN);

    assert_int_equal(mdb_txn_begin(store->log, NULL, MDB_RDONLY, &txn), 0);
    rc = mdb_get(txn, store->events, &key, &val);
    mdb_txn_abort(txn);

    return rc == 0;
}


static void
add_stored(void *data, const nango_stored_t *stored)
{
    nango_stored_t *sums = data;

    assert_true(stored->pruned <= stored->stored);

    sums->stored += stored->stored;
    sums->pruned += stored->pruned;
}


static nango_stored_t
stored(nango_store_t *store)
{
    nango_stored_t   sums;
    nango_reader_t  *reader;

    memset(&sums, 0, sizeof(sums));

    reader = snapshot(store);
    assert_int_equal(nango_reader_stored(reader, add_stored, &sums, &failure),
                     0);
    snapshot_end(reader);

    return sums;
}


static void
what_is_old_goes_but_for_the_newest(void **state)
{
    nango_store_t  *store;

    store = store_open();

    put_n(store, "prod", 0, 5);
    put_n(store, "prod", HOUR, 2);

    /* Not before it is applied. */

    assert_sequence(prune(store, RETAIN + 1), 0);

    fold(store);
    assert_sequence(prune(store, RETAIN), 0);
    assert_sequence(prune(store, RETAIN + 1), 5);
    assert_int_equal(left(store), 2);
    assert_int_equal(there(store, 6), 1);

    assert_sequence(prune(store, 10 * RETAIN), 1);
    assert_int_equal(there(store, 7), 1);
    assert_sequence(prune(store, 10 * RETAIN), 0);

    assert_sequence(stored(store).stored, 7);
    assert_sequence(stored(store).pruned, 6);

    assert_sequence(put(store, "prod", 0), 8);

    nango_store_close(store);
}


static void
what_is_owed_stays(void **state)
{
    owing_t             o = { 0 };
    uint64_t            n;
    int                 more;
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    put_n(store, "prod", 0, 10);
    put_n(store, "other", 0, 5);
    fold(store);

    /* Nobody subscribes to the other ones, the last of which is newest. */

    assert_sequence(prune(store, 10 * RETAIN), 4);
    assert_int_equal(left(store), 11);

    read_more(store, &s, &o, 3);
    assert_sequence(o.position, 3);
    settle(&o, NANGO_SETTLED_DELIVERED, 0);
    settle(&o, NANGO_SETTLED_WAITING, T0);
    settle(&o, NANGO_SETTLED_DEAD, 0);
    fold_settled(store, &s, 0, &o, 0);

    assert_sequence(prune(store, 10 * RETAIN), 1);
    assert_int_equal(there(store, 1), 0);
    assert_int_equal(there(store, 2), 1);
    assert_int_equal(there(store, 3), 1);

    /* A dead letter stays, a row that is delivered does not. */

    due(store, &s, &o, T0, 1);
    settle(&o, NANGO_SETTLED_DELIVERED, 0);
    assert_int_equal(fold_settled(store, &s, 3, &o, 0), 0);
    assert_sequence(prune(store, 10 * RETAIN), 1);
    assert_int_equal(there(store, 3), 1);

    assert_ok(nango_delivery_forget(store, s.key, 100, &n, &more, &failure));
    assert_sequence(n, 1);
    assert_int_equal(more, 0);
    assert_sequence(prune(store, 10 * RETAIN), 8);
    assert_int_equal(left(store), 1);

    owing_free(&o);
    nango_store_close(store);
}


static uint64_t
first(nango_store_t *store, const char *environment)
{
    uint64_t         sequence;
    nango_reader_t  *reader;

    reader = snapshot(store);
    assert_int_equal(nango_reader_first(reader,
                                        nango_str(environment,
                                                  strlen(environment)),
                                        &sequence, &failure), 0);
    snapshot_end(reader);

    return sequence;
}


/* Who reads an environment is told of what is gone between what is owed. */

static void
what_is_kept_begins_behind_what_was_pruned(void **state)
{
    owing_t             o = { 0 };
    uint64_t            n;
    int                 more;
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("prod", "app");
    subscribe(store, &s);

    put_n(store, "prod", 0, 5);
    put_n(store, "other", 0, 3);
    put(store, "prod", HOUR);
    put(store, "other", HOUR);
    fold(store);

    assert_sequence(first(store, "prod"), 1);
    assert_sequence(first(store, "none"), 1);

    read_more(store, &s, &o, 5);
    settle(&o, NANGO_SETTLED_DELIVERED, 0);
    settle(&o, NANGO_SETTLED_DEAD, 0);
    settle(&o, NANGO_SETTLED_DEAD, 0);
    settle(&o, NANGO_SETTLED_DELIVERED, 0);
    settle(&o, NANGO_SETTLED_DELIVERED, 0);
    fold_settled(store, &s, 0, &o, 0);

    assert_sequence(prune(store, RETAIN + 1), 6);
    assert_int_equal(there(store, 2), 1);
    assert_int_equal(there(store, 3), 1);

    assert_sequence(first(store, "prod"), 6);
    assert_sequence(first(store, "other"), 9);
    assert_sequence(first(store, "none"), 2);

    /* One that goes late takes nothing back. */

    assert_ok(nango_delivery_redeliver(store, s.key, 2, 1, T0, &n, &more,
                                       &failure));
    due(store, &s, &o, T0, 1);
    settle(&o, NANGO_SETTLED_DELIVERED, 0);
    assert_int_equal(fold_settled(store, &s, 5, &o, 0), 0);

    assert_sequence(prune(store, RETAIN + 1), 1);
    assert_int_equal(there(store, 2), 0);
    assert_sequence(first(store, "prod"), 6);
    assert_sequence(first(store, "other"), 9);

    owing_free(&o);
    nango_store_close(store);
}


static void
a_subscriber_that_cannot_be_read_is_owed_all(void **state)
{
    MDB_val             key, val;
    MDB_txn            *txn;
    nango_store_t      *store;
    nango_subscriber_t  s;

    store = store_open();
    s = subscriber("other", "app");
    subscribe(store, &s);
    put_n(store, "prod", 0, 3);
    fold(store);

    key = nango_val(s.key, NANGO_KEY_LEN);
    val = nango_val("\2newer", 6);
    assert_int_equal(mdb_txn_begin(store->state, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, store->subscribers, &key, &val, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);

    assert_sequence(prune(store, 10 * RETAIN), 0);

    nango_store_close(store);
}


static void
a_step_is_as_small_as_it_is_told(void **state)
{
    uint64_t               from;
    nango_store_t         *store;
    nango_pruned_t         pruned;
    nango_subscriber_t     s;
    nango_prune_options_t  options;

    store = store_open();
    s = subscriber("other", "app");
    subscribe(store, &s);

    put_n(store, "other", 0, 100);
    put_n(store, "prod", 0, 25);
    fold(store);

    from = 0;
    options = pruning(10 * RETAIN);
    options.max_events = 10;

    /* 80 are looked at, all of which are owed. */

    assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
    assert_sequence(pruned.pruned, 0);
    assert_int_equal(pruned.more, 1);
    assert_sequence(from, 81);

    assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
    assert_sequence(pruned.pruned, 10);
    assert_int_equal(pruned.more, 1);

    assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
    assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
    assert_sequence(pruned.pruned, 4);
    assert_int_equal(pruned.more, 0);
    assert_sequence(from, 0);

    options.max_events = 0;
    assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
    assert_sequence(pruned.pruned, 0);

    nango_store_close(store);
}


static void
overwrite(nango_store_t *store, uint64_t sequence, const char *data)
{
    MDB_txn        *txn;
    MDB_val         key, val;
    unsigned char   buf[NANGO_SEQUENCE_LEN];

    nango_put_be64(buf, sequence);
    key = nango_val(buf, NANGO_SEQUENCE_LEN);
    val = nango_val(data, strlen(data));

    assert_int_equal(mdb_txn_begin(store->log, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, store->events, &key, &val, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
}


static void
what_cannot_be_read_is_as_old_as_the_next(void **state)
{
    MDB_txn        *txn;
    MDB_stat        stat;
    nango_store_t  *store;

    store = store_open();

    put(store, "prod", 0);
    put(store, "prod", 100 * RETAIN);       /* from the future */
    put(store, "prod", 0);
    put(store, "prod", HOUR);
    put(store, "prod", HOUR);

    overwrite(store, 1, "\377newer");
    overwrite(store, 4, "\1damaged");
    fold(store);

    assert_sequence(prune(store, RETAIN + 1), 3);
    assert_int_equal(there(store, 4), 1);

    put(store, "prod", HOUR);
    fold(store);
    assert_sequence(prune(store, RETAIN + HOUR + 1), 2);

    /* Only what was counted is counted. */

    assert_int_equal(mdb_txn_begin(store->log, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_stat(txn, store->pruned, &stat), 0);
    assert_int_equal(stat.ms_entries, 1);
    mdb_txn_abort(txn);

    assert_sequence(stored(store).stored, 4);
    assert_sequence(stored(store).pruned, 3);
    assert_int_equal(left(store), 1);

    nango_store_close(store);
}


static void
many_that_cannot_be_read_are_a_step_of_their_own(void **state)
{
    int                    i;
    uint64_t               from;
    nango_store_t         *store;
    nango_pruned_t         pruned;
    nango_prune_options_t  options;

    store = store_open();

    put_n(store, "prod", 0, 20);

    for (i = 8; i <= 14; i++) {
        overwrite(store, i, "\1damaged");
    }

    fold(store);

    from = 0;
    options = pruning(RETAIN + 1);
    options.max_events = 10;

    assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
    assert_sequence(pruned.pruned, 7);
    assert_sequence(from, 8);
    assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
    assert_sequence(pruned.pruned, 10);
    assert_sequence(prune(store, RETAIN + 1), 2);

    nango_store_close(store);
}


static void
a_full_log_is_pruned_before_its_time(void **state)
{
    int                    i;
    event_t                e;
    uint64_t               from, early;
    nango_store_t         *store;
    nango_writer_t        *writer;
    nango_pruned_t         pruned;
    nango_subscriber_t     s;
    nango_prune_options_t  options;

    assert_ok(store_try(&store, 1024 * 1024));

    s = subscriber("other", "app");
    subscribe(store, &s);

    memset(&e, 0, sizeof(e));
    e.type = NANGO_TYPE_SYNC;
    e.pad = 8000;

    writer = nango_writer_create(store, 0);

    e.environment = "other";
    commit_one(writer, &e, NANGO_WRITE_STORED);
    e.environment = "prod";

    for (i = 0; i < 1000; i++) {
        nango_write_t  *job;

        e.hmac = i;
        job = job_make(&e);
        (void) nango_log_commit(writer, &job, 1, &failure);

        if (job->result == NANGO_WRITE_FULL) {
            job_free(job);
            break;
        }

        assert_int_equal(job->result, NANGO_WRITE_STORED);
        job_free(job);
    }

    assert_in_range(i, 50, 200);
    fold(store);

    from = 0;
    early = 0;
    options = pruning(0);
    options.full_percent = 80;

    do {
        assert_ok(nango_log_prune(store, &options, &from, &pruned, &failure));
        assert_sequence(pruned.pruned, pruned.early);
        early += pruned.early;
    } while (pruned.more);

    assert_in_range(early, i / 10, i / 3);
    assert_int_equal(there(store, 1), 1);
    assert_int_equal(there(store, i + 1), 1);

    /* There is room again. */

    commit_one(writer, &e, NANGO_WRITE_STORED);

    nango_writer_free(writer);
    nango_store_close(store);
}


/* 0: it is gone, 1: it is there, 2: the sweep looks at it. */

static int
body_there(nango_store_t *store, const unsigned char *name)
{
    char         path[PATH_MAX + 64];
    struct stat  sb;

    nango_body_path(store, nango_str(name, NANGO_BODY_NAME_LEN), path);

    if (stat(path, &sb) == -1) {
        return 0;
    }

    return (sb.st_mode & S_IWUSR) ? 2 : 1;
}


static void
body_files_go_with_their_events(void **state)
{
    event_t         e;
    nango_store_t  *store;
    unsigned char   name[2][NANGO_BODY_NAME_LEN + 1];

    store = store_open();

    memset(name, 0, sizeof(name));
    memset(&e, 0, sizeof(e));

    assert_ok(nango_body_copy(store, S("one"), name[0], NULL, &failure));
    assert_ok(nango_body_copy(store, S("two"), name[1], NULL, &failure));

    e.type = NANGO_TYPE_SYNC;
    e.body_file = (char *) name[0];
    e.body_len = 3;
    append(store, &e);

    e.at = HOUR;
    e.body_file = (char *) name[1];
    append(store, &e);
    put(store, "prod", HOUR);
    fold(store);

    assert_int_equal(body_there(store, name[0]), 1);
    assert_sequence(prune(store, RETAIN + 1), 1);
    assert_int_equal(body_there(store, name[0]), 0);
    assert_int_equal(body_there(store, name[1]), 1);

    nango_store_close(store);
}


/* Who ends between the commit and removing the file leaves it to the sweep. */

static void
body_files_are_left_to_the_sweep_before_they_are_orphans(void **state)
{
    event_t                e;
    uint64_t               from;
    nango_store_t         *store;
    nango_pruned_t         pruned;
    nango_prune_options_t  options;
    unsigned char          name[NANGO_BODY_NAME_LEN + 1];

    store = store_open();

    memset(name, 0, sizeof(name));
    memset(&e, 0, sizeof(e));

    assert_ok(nango_body_copy(store, S("one"), name, NULL, &failure));

    e.type = NANGO_TYPE_SYNC;
    e.body_file = (char *) name;
    e.body_len = 3;
    append(store, &e);
    put(store, "prod", HOUR);
    fold(store);

    rename_below("log/data.mdb", "log/gone");

    from = 0;
    options = pruning(10 * RETAIN);
    assert_int_equal(nango_log_prune(store, &options, &from, &pruned,
                                     &failure), NANGO_EBROKEN);
    rename_below("log/gone", "log/data.mdb");
    assert_ok(nango_store_recover(store, &failure));

    assert_int_equal(body_there(store, name), 2);

    /* But its event is still there. */

    assert_int_equal(nango_body_sweep(store, T0 * 2, 10, &failure), 0);
    assert_int_equal(body_there(store, name), 1);

    assert_sequence(prune(store, 10 * RETAIN), 1);
    assert_int_equal(body_there(store, name), 0);

    nango_store_close(store);
}


/* The size of the log's file, in pages that have been used. */

static size_t
pages(nango_store_t *store)
{
    MDB_envinfo  info;

    assert_int_equal(mdb_env_info(store->log, &info), 0);

    return info.me_last_pgno;
}


static void
the_log_levels_off(void **state)
{
    int                    round, i;
    event_t                e;
    size_t                 settled, size;
    uint64_t               from;
    struct stat            sb;
    char                   path[PATH_MAX + 64];
    nango_store_t         *store;
    nango_write_t         *jobs[64];
    nango_writer_t        *writer;
    nango_pruned_t         pruned;
    nango_prune_options_t  options;

    store = store_open();
    writer = nango_writer_create(store, 0);
    memset(&e, 0, sizeof(e));
    e.type = NANGO_TYPE_SYNC;

    from = 0;
    settled = 0;
    size = 0;

    options = pruning(0);
    options.retain_ms = HOUR;
    options.max_events = 256;

    snprintf(path, sizeof(path), "%s/log/data.mdb", directory);

    /* A tenth of the time that is kept in each round. */

    for (round = 0; round < 110; round++) {

        for (i = 0; i < 64; i++) {
            e.at = round * HOUR / 10;
            e.hmac = random_below(1000000);
            e.pad = random_below(3000) + (i == 0 ? 20000 : 0);
            jobs[i] = job_make(&e);
        }

        assert_ok(nango_log_commit(writer, jobs, 64, &failure));

        for (i = 0; i < 64; i++) {
            job_free(jobs[i]);
        }

        fold(store);

        options.now_ms = T0 + e.at;

        do {
            assert_ok(nango_log_prune(store, &options, &from, &pruned,
                                      &failure));
        } while (pruned.more);

        if (round == 20) {
            settled = pages(store);
            assert_int_equal(stat(path, &sb), 0);
            size = sb.st_size;
        }
    }

    assert_in_range(left(store), 64 * 10, 64 * 12);
    assert_in_range(pages(store), settled / 2, settled + settled / 4);
    assert_int_equal(stat(path, &sb), 0);
    assert_in_range(sb.st_size, size / 2, size + size / 4);

    nango_writer_free(writer);
    nango_store_close(store);

    /* What LMDB made of it is in order. */

    store = store_open();
    assert_in_range(left(store), 64 * 10, 64 * 12);
    nango_store_close(store);
}


static void
a_state_made_again_knows_what_was_pruned(void **state)
{
    nango_store_t       *store;
    nango_subscriber_t   s;

    store = store_open();

    put_n(store, "prod", 0, 5);
    put_n(store, "prod", HOUR, 3);
    fold(store);
    assert_sequence(prune(store, RETAIN + 1), 5);

    nango_store_close(store);
    remove_below("state");
    store = store_open();
    fold(store);

    assert_sequence(stored(store).stored, 8);
    assert_sequence(stored(store).pruned, 5);

    s = subscriber("prod", "late");
    s.from_start = 1;
    subscribe(store, &s);
    assert_ledger(ledger(store, &s), 3, 0, 0, 0, 3, 0);

    nango_store_close(store);
}


static void
a_log_that_cannot_be_written_is_not_pruned(void **state)
{
    uint64_t               from;
    nango_store_t         *store;
    nango_pruned_t         pruned;
    nango_prune_options_t  options;

    store = store_open();
    put_n(store, "prod", 0, 5);
    fold(store);

    rename_below("log/data.mdb", "log/gone");

    from = 0;
    options = pruning(10 * RETAIN);

    assert_int_equal(nango_log_prune(store, &options, &from, &pruned,
                                     &failure), NANGO_EBROKEN);
    assert_sequence(pruned.pruned, 0);
    assert_sequence(from, 0);

    rename_below("log/gone", "log/data.mdb");
    assert_ok(nango_store_recover(store, &failure));
    assert_int_equal(left(store), 5);

    nango_store_close(store);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(what_is_old_goes_but_for_the_newest),
        store_unit(what_is_owed_stays),
        store_unit(what_is_kept_begins_behind_what_was_pruned),
        store_unit(a_subscriber_that_cannot_be_read_is_owed_all),
        store_unit(a_step_is_as_small_as_it_is_told),
        store_unit(what_cannot_be_read_is_as_old_as_the_next),
        store_unit(many_that_cannot_be_read_are_a_step_of_their_own),
        store_unit(a_full_log_is_pruned_before_its_time),
        store_unit(body_files_go_with_their_events),
        store_unit(body_files_are_left_to_the_sweep_before_they_are_orphans),
        store_unit(the_log_levels_off),
        store_unit(a_state_made_again_knows_what_was_pruned),
        store_unit(a_log_that_cannot_be_written_is_not_pruned)
    };

    return cmocka_run_group_tests_name("prune", tests, NULL, NULL);
}
