/*
 * Copyright (C) nginx-nango authors
 */

#include "store_test.h"
#include "store_fault.h"

#include <poll.h>


#define STORED     NANGO_WRITE_STORED
#define DUPLICATE  NANGO_WRITE_DUPLICATE
#define OVERTAKEN  NANGO_WRITE_OVERTAKEN
#define FULL       NANGO_WRITE_FULL
#define FAILED     NANGO_WRITE_FAILED


static nango_writer_t *
writer_of(nango_store_t *store)
{
    nango_writer_t  *w;

    w = nango_writer_create(store, REMEMBER);
    assert_non_null(w);

    return w;
}


/* A webhook that is told from others by its HMAC. */

static event_t
webhook(unsigned hmac, uint64_t at)
{
    event_t  e;

    memset(&e, 0, sizeof(e));

    e.id = "one";
    e.op = NANGO_OP_REFRESH;
    e.success = NANGO_SUCCESS_FALSE;
    e.hmac = hmac;
    e.at = at;
    e.dedupe = REMEMBER;

    return e;
}


static uint64_t
commit(nango_writer_t *w, event_t e, nango_write_result_e expected)
{
    return commit_one(w, &e, expected);
}


static int
count_handler(void *data, uint64_t sequence, const nango_record_t *record)
{
    if (record == NULL) {
        return -2;
    }

    (*(uint64_t *) data)++;

    return 0;
}


static uint64_t
events(nango_store_t *store)
{
    uint64_t  n;

    n = 0;
    assert_int_equal(nango_log_scan(store, 0, count_handler, &n, &failure),
                     0);

    return n;
}


static void
sequences_grow_by_one(void **state)
{
    int              i;
    uint64_t         first, last;
    nango_store_t   *store;
    nango_write_t   *jobs[40];
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    assert_ok(nango_log_bounds(store, &first, &last, &failure));
    assert_sequence(first, 0);
    assert_sequence(last, 0);

    assert_sequence(commit(w, webhook(1, 0), STORED), 1);
    assert_sequence(commit(w, webhook(2, 0), STORED), 2);

    for (i = 0; i < 40; i++) {
        event_t  e = webhook(100 + i, 0);

        e.pad = i * 300;
        jobs[i] = job_make(&e);
    }

    assert_ok(nango_log_commit(w, jobs, 40, &failure));

    for (i = 0; i < 40; i++) {
        assert_int_equal(jobs[i]->result, STORED);
        assert_sequence(jobs[i]->sequence, 3 + i);
        job_free(jobs[i]);
    }

    assert_ok(nango_log_bounds(store, &first, &last, &failure));
    assert_sequence(first, 1);
    assert_sequence(last, 42);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
a_batch_of_nothing_is_fine(void **state)
{
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    assert_ok(nango_log_commit(w, NULL, 0, &failure));

    nango_writer_free(w);
    nango_store_close(store);
}


typedef struct {
    nango_write_t        *late[2];
    size_t                seen;
    int                   calls;
} latecomers_t;


static size_t
latecomers(void *data, nango_write_t **jobs, size_t n)
{
    latecomers_t *l = data;

    l->calls++;
    l->seen = n;

    /* what a job held before it was a job must not be taken for a result */
    l->late[0]->result = NANGO_WRITE_FAILED;
    l->late[1]->result = NANGO_WRITE_FULL;

    jobs[n] = l->late[0];
    jobs[n + 1] = l->late[1];

    return n + 2;
}


static void
a_batch_takes_in_what_comes_while_it_waits(void **state)
{
    int              i;
    size_t           n;
    event_t          e;
    latecomers_t     l;
    nango_store_t   *store;
    nango_write_t   *jobs[3];
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    memset(&l, 0, sizeof(l));

    for (i = 0; i < 3; i++) {
        e = webhook(i, 0);
        jobs[i] = job_make(&e);
    }

    l.late[0] = jobs[1];
    l.late[1] = jobs[2];
    n = 1;

    assert_ok(nango_log_commit_more(w, jobs, &n, latecomers, &l, &failure));

    assert_int_equal(n, 3);
    assert_int_equal(l.calls, 1);
    assert_int_equal(l.seen, 1);

    for (i = 0; i < 3; i++) {
        assert_int_equal(jobs[i]->result, STORED);
        assert_sequence(jobs[i]->sequence, i + 1);
    }

    assert_sequence(events(store), 3);

    n = 0;
    assert_ok(nango_log_commit_more(w, jobs, &n, latecomers, &l, &failure));
    assert_int_equal(l.calls, 1);

    for (i = 0; i < 3; i++) {
        job_free(jobs[i]);
    }

    nango_writer_free(w);
    nango_store_close(store);
}


typedef struct {
    nango_write_t       **jobs;
    size_t                n;
    uint64_t              stop;
} expected_t;


static int
expected_handler(void *data, uint64_t sequence, const nango_record_t *record)
{
    expected_t *x = data;

    nango_record_t  rec;

    if (nango_record_decode(&rec, nango_str(x->jobs[sequence - 1]->record,
                                            x->jobs[sequence - 1]->len))
        != 0
        || record == NULL
        || !nango_str_eq(rec.body, record->body)
        || !nango_str_eq(rec.headers, record->headers)
        || !nango_str_eq(rec.connection_id, record->connection_id)
        || rec.received_at != record->received_at)
    {
        return -2;
    }

    x->n++;

    return sequence == x->stop ? 7 : 0;
}


static void
a_scan_sees_what_was_committed(void **state)
{
    int              i;
    event_t          e;
    expected_t       x;
    nango_store_t   *store;
    nango_write_t   *jobs[30];
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    for (i = 0; i < 30; i++) {
        e = webhook(i, i);
        e.pad = random_below(10000);
        jobs[i] = job_make(&e);
    }

    assert_ok(nango_log_commit(w, jobs, 11, &failure));
    assert_ok(nango_log_commit(w, jobs + 11, 19, &failure));

    x.jobs = jobs;
    x.n = 0;
    x.stop = 0;
    assert_int_equal(nango_log_scan(store, 0, expected_handler, &x, &failure),
                     0);
    assert_int_equal(x.n, 30);

    x.n = 0;
    x.stop = 25;
    assert_int_equal(nango_log_scan(store, 12, expected_handler, &x, &failure),
                     7);
    assert_int_equal(x.n, 14);

    x.n = 0;
    assert_int_equal(nango_log_scan(store, 31, expected_handler, &x, &failure),
                     0);
    assert_int_equal(x.n, 0);

    for (i = 0; i < 30; i++) {
        job_free(jobs[i]);
    }

    nango_writer_free(w);
    nango_store_close(store);
}


typedef struct {
    int                   records;
    int                   damaged;
    uint64_t              last;
} odd_t;


static int
odd_handler(void *data, uint64_t sequence, const nango_record_t *record)
{
    odd_t *odd = data;

    odd->last = sequence;

    if (record != NULL) {
        odd->records++;

    } else {
        odd->damaged++;
    }

    return 0;
}


static void
put_raw(nango_store_t *store, uint64_t sequence, const char *bytes)
{
    MDB_txn        *txn;
    MDB_val         key, val;
    unsigned char   buf[8];

    nango_put_be64(buf, sequence);
    key = nango_val(buf, 8);
    val = nango_val((void *) bytes, strlen(bytes));

    assert_int_equal(mdb_txn_begin(store->log, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, store->events, &key, &val, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
}


static void
a_scan_passes_over_what_is_of_later(void **state)
{
    int              i;
    odd_t            odd;
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    for (i = 1; i <= 4; i++) {
        commit(w, webhook(i, 0), STORED);
    }

    put_raw(store, 2, "\x02later");
    put_raw(store, 3, "\x01torn");

    memset(&odd, 0, sizeof(odd));
    assert_int_equal(nango_log_scan(store, 0, odd_handler, &odd, &failure), 0);
    assert_int_equal(odd.records, 2);
    assert_int_equal(odd.damaged, 1);
    assert_sequence(odd.last, 4);

    /* and so does a writer that looks for duplicates */

    nango_writer_free(w);
    w = writer_of(store);
    commit(w, webhook(1, 0), DUPLICATE);
    commit(w, webhook(2, 0), STORED);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
a_repeat_is_a_duplicate(void **state)
{
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    assert_sequence(commit(w, webhook(1, 0), STORED), 1);
    assert_sequence(commit(w, webhook(2, 0), STORED), 2);
    assert_sequence(commit(w, webhook(1, 3000), DUPLICATE), 1);
    assert_sequence(commit(w, webhook(1, 9000), DUPLICATE), 1);
    assert_sequence(commit(w, webhook(2, 9000), DUPLICATE), 2);
    assert_sequence(commit(w, webhook(3, 9000), STORED), 3);
    assert_sequence(events(store), 3);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
a_repeat_in_the_same_batch_is_a_duplicate(void **state)
{
    int              i;
    nango_store_t   *store;
    nango_write_t   *jobs[6];
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    for (i = 0; i < 6; i++) {
        event_t  e = webhook(i % 3, i);
        jobs[i] = job_make(&e);
    }

    assert_ok(nango_log_commit(w, jobs, 6, &failure));

    for (i = 0; i < 6; i++) {
        assert_int_equal(jobs[i]->result, i < 3 ? STORED : DUPLICATE);
        assert_sequence(jobs[i]->sequence, i % 3 + 1);
        job_free(jobs[i]);
    }

    assert_sequence(events(store), 3);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
a_batch_of_duplicates_writes_nothing(void **state)
{
    uint64_t         txnid;
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    commit(w, webhook(1, 0), STORED);
    txnid = nango_store_log_txnid(store);

    /* but nobody knows whether the first one is there who cannot sync */

    atomic_store(&fault_sync, EIO);
    commit(w, webhook(1, 0), FAILED);
    assert_int_equal(atomic_exchange(&fault_sync, 0), 0);

    commit(w, webhook(1, 0), DUPLICATE);

    assert_true(nango_store_log_txnid(store) == txnid);

    nango_writer_free(w);
    nango_store_close(store);
}


/* What Nango said of a connection when the log went up to there. */

static event_t
repair(unsigned hmac, uint64_t known)
{
    event_t  e = webhook(hmac, 0);

    e.source = NANGO_SOURCE_REPAIR;
    e.dedupe = 0;
    e.unseen = known + 1;

    return e;
}


static void
what_rests_on_less_than_there_is_is_overtaken(void **state)
{
    event_t          e;
    nango_store_t   *store;
    nango_writer_t  *w, *other;

    store = store_open();
    w = writer_of(store);
    other = writer_of(store);

    assert_sequence(commit(w, repair(1, 0), STORED), 1);
    assert_sequence(commit(w, repair(2, 0), OVERTAKEN), 0);
    assert_sequence(commit(w, repair(2, 1), STORED), 2);

    /* other connections do not matter */

    e = webhook(3, 0);
    e.id = "two";
    commit(other, e, STORED);
    e.id = "one";
    e.integration = "slack";
    e.hmac = 4;
    commit(other, e, STORED);
    e.integration = "github";
    e.environment = "dev";
    e.hmac = 5;
    commit(other, e, STORED);

    /* nor what changes none */

    e = webhook(6, 0);
    e.type = NANGO_TYPE_SYNC;
    assert_sequence(commit(other, e, STORED), 6);

    assert_sequence(commit(w, repair(7, 2), STORED), 7);

    /* the same one does, wherever it stands */

    commit(other, webhook(8, 0), STORED);
    e.id = "two";
    e.hmac = 9;
    assert_sequence(commit(other, e, STORED), 9);

    assert_sequence(commit(w, repair(10, 7), OVERTAKEN), 0);
    assert_sequence(commit(w, repair(10, 8), STORED), 10);
    assert_sequence(events(store), 10);

    nango_writer_free(w);
    nango_writer_free(other);
    nango_store_close(store);
}


static void
what_comes_before_in_its_batch_overtakes(void **state)
{
    int              i;
    event_t          e;
    nango_store_t   *store;
    nango_write_t   *jobs[3];
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    e = webhook(1, 0);
    jobs[0] = job_make(&e);
    e = repair(2, 0);
    jobs[1] = job_make(&e);
    e.id = "two";
    jobs[2] = job_make(&e);

    assert_ok(nango_log_commit(w, jobs, 3, &failure));
    assert_int_equal(jobs[0]->result, STORED);
    assert_int_equal(jobs[1]->result, OVERTAKEN);
    assert_sequence(jobs[1]->sequence, 0);
    assert_int_equal(jobs[2]->result, STORED);
    assert_sequence(jobs[2]->sequence, 2);

    /* and if that is not written after all, nobody knows */

    for (i = 0; i < 3; i++) {
        jobs[i]->unseen = i ? 3 : 0;
        jobs[i]->dedupe_ms = 0;
    }

    atomic_store(&fault_sync, EIO);
    assert_int_not_equal(nango_log_commit(w, jobs, 3, &failure), NANGO_OK);

    for (i = 0; i < 3; i++) {
        assert_int_equal(jobs[i]->result, FAILED);
        job_free(jobs[i]);
    }

    nango_writer_free(w);
    nango_store_close(store);
}


static void
what_is_not_known_overtakes(void **state)
{
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    put_raw(store, 1, "\x02later");
    commit(w, repair(1, 0), OVERTAKEN);
    assert_sequence(commit(w, repair(1, 1), STORED), 2);

    put_raw(store, 3, "\x01torn");
    commit(w, repair(2, 2), OVERTAKEN);
    assert_sequence(commit(w, repair(2, 3), STORED), 4);

    /* sequences that were, and are not there any more */

    put_raw(store, 7, "\x01torn");
    commit(w, repair(3, 4), OVERTAKEN);
    commit(w, repair(3, 6), OVERTAKEN);
    assert_sequence(commit(w, repair(3, 7), STORED), 8);

    /* and a state that is ahead of the log */

    commit(w, repair(4, 9), OVERTAKEN);
    assert_sequence(commit(w, repair(4, 8), STORED), 9);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
what_is_too_far_behind_is_overtaken(void **state)
{
    size_t           i, n;
    event_t          e;
    nango_store_t   *store;
    nango_write_t   *jobs[128];
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    e = webhook(1, 0);
    e.id = "two";
    e.dedupe = 0;

    for (n = 0; n < NANGO_LOG_UNSEEN; n += 128) {

        for (i = 0; i < 128; i++) {
            jobs[i] = job_make(&e);
        }

        assert_ok(nango_log_commit(w, jobs, 128, &failure));

        for (i = 0; i < 128; i++) {
            job_free(jobs[i]);
        }
    }

    assert_sequence(commit(w, repair(2, 0), STORED), n + 1);

    e = repair(3, 0);
    e.id = "three";
    commit(w, e, OVERTAKEN);
    e.unseen++;
    assert_sequence(commit(w, e, STORED), n + 2);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
the_window_ends(void **state)
{
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    assert_sequence(commit(w, webhook(1, 0), STORED), 1);
    assert_sequence(commit(w, webhook(1, REMEMBER), DUPLICATE), 1);

    /* a duplicate does not prolong it, and the next first begins a new one */

    assert_sequence(commit(w, webhook(1, REMEMBER + 1), STORED), 2);
    assert_sequence(commit(w, webhook(1, REMEMBER + 2), DUPLICATE), 2);
    assert_sequence(commit(w, webhook(1, 2 * REMEMBER + 1), DUPLICATE), 2);
    assert_sequence(commit(w, webhook(1, 2 * REMEMBER + 2), STORED), 3);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
each_job_has_its_own_window(void **state)
{
    event_t          e;
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    commit(w, webhook(1, 0), STORED);

    e = webhook(1, 5000);
    e.dedupe = 4000;
    commit(w, e, STORED);

    e.dedupe = 0;
    commit(w, e, STORED);
    commit(w, e, STORED);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
a_clock_that_is_set_back_loses_no_webhook(void **state)
{
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    assert_sequence(commit(w, webhook(1, 50 * HOUR), STORED), 1);
    assert_sequence(commit(w, webhook(1, 50 * HOUR - 5), DUPLICATE), 1);

    /* the same bytes an hour earlier are another event */

    assert_sequence(commit(w, webhook(1, 49 * HOUR), STORED), 2);
    assert_sequence(commit(w, webhook(1, 49 * HOUR + 3), DUPLICATE), 2);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
environments_do_not_share_duplicates(void **state)
{
    event_t          e;
    nango_store_t   *store;
    nango_writer_t  *w, *other;

    store = store_open();
    w = writer_of(store);
    other = writer_of(store);

    e = webhook(1, 0);
    commit(w, e, STORED);
    e.environment = "dev";
    commit(w, e, STORED);
    commit(w, e, DUPLICATE);

    /* nor does one that reads them from the log */

    assert_sequence(commit(other, e, DUPLICATE), 2);
    e.environment = "prod";
    assert_sequence(commit(other, e, DUPLICATE), 1);
    e.environment = "test";
    commit(other, e, STORED);

    nango_writer_free(w);
    nango_writer_free(other);
    nango_store_close(store);
}


static void
environments_of_any_number_and_length_are_known(void **state)
{
    int              i;
    char             name[64 + 20 + 1];
    event_t          e;
    nango_store_t   *store;
    nango_writer_t  *w, *other;

    store = store_open();
    w = writer_of(store);
    other = writer_of(store);

    for (i = 0; i < 40; i++) {
        memset(name, 'e', sizeof(name));
        name[50 + i / 2] = "ab"[i % 2];
        name[50 + i / 2 + 1] = '\0';
        e = webhook(1, 0);
        e.environment = name;
        commit(w, e, STORED);
    }

    for (i = 0; i < 40; i++) {
        memset(name, 'e', sizeof(name));
        name[50 + i / 2] = "ab"[i % 2];
        name[50 + i / 2 + 1] = '\0';
        e = webhook(1, 0);
        e.environment = name;
        assert_sequence(commit(other, e, DUPLICATE), i + 1);
    }

    nango_writer_free(w);
    nango_writer_free(other);
    nango_store_close(store);
}


static void
forwards_and_unknown_types_are_never_duplicates(void **state)
{
    int              i;
    event_t          e;
    nango_store_t   *store;
    nango_writer_t  *w, *other;

    store = store_open();
    w = writer_of(store);

    for (i = 0; i < 2; i++) {
        e = webhook(1, 0);
        e.type = NANGO_TYPE_FORWARD;
        commit(w, e, STORED);
        e.type = NANGO_TYPE_OTHER;
        e.other = 1;
        commit(w, e, STORED);
    }

    other = writer_of(store);
    e = webhook(1, 0);
    e.type = NANGO_TYPE_FORWARD;
    commit(other, e, STORED);

    /* and none of them makes another a duplicate */

    e.type = NANGO_TYPE_SYNC;
    assert_sequence(commit(other, e, STORED), 6);
    e.type = NANGO_TYPE_ASYNC_ACTION;
    assert_sequence(commit(other, e, DUPLICATE), 6);
    e.type = NANGO_TYPE_FORWARD;
    commit(other, e, STORED);

    nango_writer_free(w);
    nango_writer_free(other);
    nango_store_close(store);
}


static void
writers_see_what_others_wrote(void **state)
{
    int              i;
    nango_store_t   *store;
    nango_writer_t  *a, *b;

    store = store_open();
    a = writer_of(store);
    b = writer_of(store);

    for (i = 1; i <= 20; i++) {
        assert_sequence(commit(i % 2 ? a : b, webhook(i, 0), STORED), i);
        assert_sequence(commit(i % 2 ? b : a, webhook(i, 0), DUPLICATE), i);
    }

    nango_writer_free(a);
    nango_writer_free(b);
    nango_store_close(store);
}


static int
commit_child(void *data)
{
    nango_store_t   *store;
    nango_write_t   *job;
    nango_writer_t  *w;

    if (store_try(&store, SIZE) != NANGO_OK) {
        return 100;
    }

    w = nango_writer_create(store, REMEMBER);
    job = job_make(data);

    (void) nango_log_commit(w, &job, 1, &failure);

    return job->result * 10 + (int) job->sequence;
}


static void
processes_see_what_others_wrote(void **state)
{
    event_t          e;
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    assert_sequence(commit(w, webhook(1, 0), STORED), 1);

    e = webhook(1, 5);
    assert_int_equal(reap(spawn(commit_child, &e)), DUPLICATE * 10 + 1);
    e = webhook(2, 5);
    assert_int_equal(reap(spawn(commit_child, &e)), STORED * 10 + 2);

    assert_sequence(commit(w, webhook(2, 7), DUPLICATE), 2);
    assert_sequence(commit(w, webhook(3, 7), STORED), 3);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
a_new_writer_knows_the_last_minutes(void **state)
{
    int              i;
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    for (i = 1; i <= 30; i++) {
        commit(w, webhook(i, i * 10000), STORED);
    }

    nango_writer_free(w);
    nango_store_close(store);

    store = store_open();
    w = writer_of(store);

    for (i = 30; i >= 1; i--) {
        commit(w, webhook(i, 300000), i >= 18 ? DUPLICATE : STORED);
    }

    nango_writer_free(w);
    nango_store_close(store);
}


static void
a_writer_that_remembers_nothing_has_no_duplicates(void **state)
{
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = nango_writer_create(store, 0);

    commit(w, webhook(1, 0), STORED);
    commit(w, webhook(1, 0), STORED);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
the_table_grows(void **state)
{
    int              i, j;
    event_t          e;
    nango_store_t   *store;
    nango_write_t   *jobs[500];
    nango_writer_t  *w, *other;

    store = store_open();
    w = writer_of(store);
    other = writer_of(store);

    for (i = 0; i < 10; i++) {

        for (j = 0; j < 500; j++) {
            e = webhook(i * 500 + j + 1, i);
            jobs[j] = job_make(&e);
        }

        assert_ok(nango_log_commit(w, jobs, 500, &failure));

        for (j = 0; j < 500; j++) {
            job_free(jobs[j]);
        }
    }

    for (i = 1; i <= 5000; i += 77) {
        assert_sequence(commit(w, webhook(i, 60), DUPLICATE), i);
        assert_sequence(commit(other, webhook(i, 60), DUPLICATE), i);
    }

    commit(w, webhook(5001, 60), STORED);

    nango_writer_free(w);
    nango_writer_free(other);
    nango_store_close(store);
}


static void
a_flood_of_the_same_bytes_is_survived(void **state)
{
    int              i, j;
    event_t          e;
    nango_store_t   *store;
    nango_write_t   *jobs[256];
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    e = webhook(1, 0);
    e.dedupe = 0;

    for (j = 0; j < 256; j++) {
        jobs[j] = job_make(&e);
    }

    for (i = 0; i < 80; i++) {
        assert_ok(nango_log_commit(w, jobs, 256, &failure));
    }

    for (j = 0; j < 256; j++) {
        job_free(jobs[j]);
    }

    commit(w, webhook(1, REMEMBER), DUPLICATE);
    commit(w, webhook(1, REMEMBER + 1), STORED);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
after_a_failed_sync_nothing_is_remembered(void **state)
{
    int              i;
    nango_store_t   *store;
    nango_write_t   *jobs[5];
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    commit(w, webhook(1, 0), STORED);

    /* a duplicate of before, two firsts, and a duplicate of one of them */

    for (i = 0; i < 4; i++) {
        static unsigned  hmacs[] = { 1, 2, 3, 2 };
        event_t          e = webhook(hmacs[i], 0);
        jobs[i] = job_make(&e);
    }

    atomic_store(&fault_sync, EIO);
    assert_int_equal(nango_log_commit(w, jobs, 4, &failure), NANGO_EIO);
    assert_int_equal(failure.code, NANGO_EIO);
    assert_non_null(strstr(failure.text, "mdb_txn_commit()"));
    assert_false(nango_store_needs_recovery(store));

    assert_int_equal(jobs[0]->result, DUPLICATE);
    assert_sequence(jobs[0]->sequence, 1);

    for (i = 1; i < 4; i++) {
        assert_int_equal(jobs[i]->result, FAILED);
        assert_sequence(jobs[i]->sequence, 0);
    }

    assert_sequence(events(store), 1);

    /* so that their repeats are stored */

    assert_ok(nango_log_commit(w, jobs, 4, &failure));
    assert_int_equal(jobs[1]->result, STORED);
    assert_int_equal(jobs[2]->result, STORED);
    assert_int_equal(jobs[3]->result, DUPLICATE);
    assert_sequence(jobs[3]->sequence, jobs[1]->sequence);
    assert_sequence(events(store), 3);

    for (i = 0; i < 4; i++) {
        job_free(jobs[i]);
    }

    nango_writer_free(w);
    nango_store_close(store);
}


static void
a_full_disk_is_full(void **state)
{
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    atomic_store(&fault_sync, ENOSPC);
    commit(w, webhook(1, 0), FAILED);
    assert_int_equal(failure.code, NANGO_EFULL);

    commit(w, webhook(1, 0), STORED);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
after_a_failed_commit_the_store_is_recovered(void **state)
{
    uint64_t         sequence;
    nango_store_t   *store;
    nango_reader_t  *reader;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);
    reader = snapshot(store);
    nango_reader_end(reader);

    commit(w, webhook(1, 0), STORED);

    atomic_store(&fault_meta, EIO);
    commit(w, webhook(2, 0), FAILED);
    assert_int_equal(failure.code, NANGO_EBROKEN);
    assert_true(nango_store_needs_recovery(store));

    commit(w, webhook(3, 0), FAILED);
    assert_int_equal(failure.code, NANGO_EBROKEN);
    assert_int_equal(nango_reader_begin(reader, &failure), NANGO_EBROKEN);

    assert_ok(nango_store_recover(store, &failure));
    assert_false(nango_store_needs_recovery(store));
    assert_ok(nango_store_recover(store, &failure));

    assert_ok(nango_reader_begin(reader, &failure));
    assert_sequence(nango_reader_last(reader), 1);
    nango_reader_end(reader);

    assert_sequence(commit(w, webhook(1, 0), DUPLICATE), 1);
    sequence = commit(w, webhook(2, 0), STORED);
    assert_sequence(commit(w, webhook(2, 0), DUPLICATE), sequence);

    nango_reader_free(reader);
    nango_writer_free(w);
    nango_store_close(store);
}


static void
a_store_that_cannot_be_opened_again_stays_closed(void **state)
{
    event_t                e;
    nango_store_t         *store;
    nango_reader_t        *reader;
    nango_writer_t        *w;
    nango_folded_t         folded;
    nango_fold_options_t   options;

    store = store_open();
    w = writer_of(store);
    reader = snapshot(store);
    nango_reader_end(reader);
    commit(w, webhook(1, 0), STORED);
    assert_int_equal(nango_store_lead(store, &failure), 1);

    atomic_store(&fault_meta, EIO);
    commit(w, webhook(2, 0), FAILED);

    rename_below("state", "away");
    rename_below("leader", "state");
    assert_int_equal(nango_store_recover(store, &failure), NANGO_EIO);
    assert_true(nango_store_needs_recovery(store));

    memset(&options, 0, sizeof(options));
    e = webhook(3, 0);

    assert_int_equal(nango_fold(store, &options, &folded, &failure),
                     NANGO_EBROKEN);
    assert_int_equal(nango_reader_begin(reader, &failure), NANGO_EBROKEN);
    assert_int_equal(nango_store_check_readers(store), -1);
    assert_true(nango_store_log_txnid(store) == 0);
    commit(w, e, FAILED);
    assert_int_equal(failure.code, NANGO_EBROKEN);

    rename_below("state", "leader");
    rename_below("away", "state");

    /* which nobody looks at in the second after it has failed */

    assert_int_equal(nango_store_recover(store, &failure), NANGO_EIO);
    assert_int_equal(nango_reader_begin(reader, &failure), NANGO_EBROKEN);

    store->retry_at = 0;

    assert_ok(nango_store_recover(store, &failure));
    assert_ok(nango_reader_begin(reader, &failure));
    nango_reader_end(reader);
    assert_sequence(commit(w, e, STORED), 2);

    nango_reader_free(reader);
    nango_writer_free(w);
    nango_store_close(store);
}


static void
nothing_is_written_before_the_first_pages_are_synced(void **state)
{
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);
    commit(w, webhook(1, 0), STORED);

    /* now the disk may have a newer meta page than the memory */

    atomic_store(&fault_meta, EIO);
    commit(w, webhook(2, 0), FAILED);

    atomic_store(&fault_sync, EIO);
    assert_int_equal(nango_store_recover(store, &failure), NANGO_EIO);
    assert_int_equal(atomic_exchange(&fault_sync, 0), 0);
    commit(w, webhook(2, 0), FAILED);

    store->retry_at = 0;

    assert_ok(nango_store_recover(store, &failure));
    assert_sequence(commit(w, webhook(2, 0), STORED), 2);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
a_log_that_is_gone_is_not_written_to(void **state)
{
    nango_store_t   *store;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);
    commit(w, webhook(1, 0), STORED);
    assert_ok(nango_store_look_after(store, &failure));

    rename_below("log", "gone");
    commit(w, webhook(2, 0), FAILED);
    assert_int_equal(failure.code, NANGO_EBROKEN);
    assert_int_equal(nango_store_look_after(store, &failure), NANGO_EBROKEN);

    /* its sequences are not given out again, and its events no duplicates */

    assert_ok(nango_store_recover(store, &failure));
    assert_sequence(commit(w, webhook(1, 0), STORED), 2);
    assert_ok(nango_store_look_after(store, &failure));

    nango_writer_free(w);
    nango_store_close(store);
}


static void
a_file_that_is_cut_is_an_error(void **state)
{
    char             path[PATH_MAX + 64];
    nango_store_t   *store;
    nango_reader_t  *reader;
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);
    commit(w, webhook(1, 0), STORED);

    reader = snapshot(store);
    nango_reader_end(reader);

    snprintf(path, sizeof(path), "%s/state/data.mdb", directory);
    assert_int_equal(truncate(path, 8192), 0);

    assert_int_equal(nango_reader_begin(reader, &failure), NANGO_EBROKEN);
    assert_true(nango_store_needs_recovery(store));
    assert_int_equal(nango_store_recover(store, &failure), NANGO_EDAMAGED);
    commit(w, webhook(2, 0), FAILED);

    /* without it there is a new one */

    store->retry_at = 0;
    remove_below("state");

    assert_ok(nango_store_recover(store, &failure));
    assert_ok(nango_reader_begin(reader, &failure));
    nango_reader_end(reader);
    commit(w, webhook(2, 0), STORED);

    nango_reader_free(reader);
    nango_writer_free(w);
    nango_store_close(store);
}


static void
a_log_of_its_size_is_full(void **state)
{
    int              i;
    uint64_t         last;
    event_t          e;
    nango_store_t   *store;
    nango_writer_t  *w;

    assert_ok(store_try(&store, 256 * 1024));
    w = writer_of(store);

    for (i = 1; i < 200; i++) {
        nango_write_t  *job;

        e = webhook(i, 0);
        e.pad = 3000;
        job = job_make(&e);

        if (nango_log_commit(w, &job, 1, &failure) != NANGO_OK) {
            assert_int_equal(job->result, FULL);
            assert_int_equal(failure.code, NANGO_EFULL);
            job_free(job);
            break;
        }

        job_free(job);
    }

    assert_in_range(i, 40, 70);
    last = i - 1;
    assert_false(nango_store_needs_recovery(store));

    /* what is there already is said to be there */

    e = webhook(1, 5);
    assert_sequence(commit(w, e, DUPLICATE), 1);
    assert_sequence(events(store), last);

    nango_writer_free(w);
    nango_store_close(store);

    /* a larger size is enough */

    assert_ok(store_try(&store, SIZE));
    w = writer_of(store);
    assert_sequence(commit(w, webhook(999, 0), STORED), last + 1);

    nango_writer_free(w);
    nango_store_close(store);
}


static void
what_does_not_fit_does_not_hold_up_the_rest(void **state)
{
    int              i;
    event_t          e;
    nango_store_t   *store;
    nango_write_t   *jobs[4];
    nango_writer_t  *w;

    assert_ok(store_try(&store, 64 * 1024));
    w = writer_of(store);

    for (i = 0; i < 4; i++) {
        e = webhook(i + 1, 0);
        e.pad = i == 1 ? 100000 : 100;
        jobs[i] = job_make(&e);
    }

    assert_int_equal(nango_log_commit(w, jobs, 4, &failure), NANGO_EFULL);
    assert_int_equal(jobs[0]->result, STORED);
    assert_int_equal(jobs[1]->result, FULL);
    assert_sequence(jobs[1]->sequence, 0);
    assert_int_equal(jobs[2]->result, STORED);
    assert_int_equal(jobs[3]->result, STORED);
    assert_sequence(jobs[3]->sequence, 3);

    for (i = 0; i < 4; i++) {
        job_free(jobs[i]);
    }

    nango_writer_free(w);
    nango_store_close(store);
}


/* Fills the log's map up to some pages, by LMDB itself. */

static int
fill_child(void *data)
{
    size_t        used, left;
    char          path[PATH_MAX + 16];
    MDB_env      *env;
    MDB_txn      *txn;
    MDB_dbi       dbi;
    MDB_val       key, val;
    MDB_envinfo   info;

    snprintf(path, sizeof(path), "%s/log", directory);

    if (mdb_env_create(&env) != 0
        || mdb_env_set_maxdbs(env, 16) != 0
        || mdb_env_set_maxreaders(env, NANGO_STORE_MAXREADERS) != 0
        || mdb_env_open(env, path, MDB_NOTLS|MDB_NOSYNC, 0600) != 0
        || mdb_env_info(env, &info) != 0
        || mdb_env_set_mapsize(env, *(size_t *) data) != 0
        || mdb_txn_begin(env, NULL, 0, &txn) != 0
        || mdb_dbi_open(txn, "filler", MDB_CREATE, &dbi) != 0)
    {
        return 1;
    }

    used = info.me_last_pgno + 1;
    left = 40;

    key = nango_val("x", 1);
    val = nango_val(NULL, *(size_t *) data - (used + left) * 4096);

    if (mdb_put(txn, dbi, &key, &val, MDB_RESERVE) != 0
        || mdb_txn_commit(txn) != 0)
    {
        return 1;
    }

    mdb_env_close(env);

    return 0;
}


static void
a_full_map_does_not_hold_up_what_fits(void **state)
{
    int              i;
    size_t           size;
    event_t          e;
    MDB_envinfo      info;
    nango_store_t   *store;
    nango_write_t   *jobs[5];
    nango_writer_t  *w;

    assert_ok(store_try(&store, 1024 * 1024));
    w = writer_of(store);
    commit(w, webhook(1, 0), STORED);

    assert_int_equal(mdb_env_info(store->log, &info), 0);
    size = info.me_mapsize;
    assert_int_equal(reap(spawn(fill_child, &size)), 0);

    for (i = 0; i < 5; i++) {
        e = webhook(i + 1, 0);
        e.pad = (i == 1 || i == 3) ? 120000 : 100;
        jobs[i] = job_make(&e);
    }

    assert_int_equal(nango_log_commit(w, jobs, 5, &failure), NANGO_EFULL);
    assert_int_equal(jobs[0]->result, DUPLICATE);
    assert_int_equal(jobs[1]->result + jobs[3]->result, STORED + FULL);
    assert_int_equal(jobs[2]->result, STORED);
    assert_int_equal(jobs[4]->result, STORED);
    assert_sequence(jobs[4]->sequence, 4);
    assert_false(nango_store_needs_recovery(store));

    /* what was left out is not remembered, the rest is */

    assert_int_equal(nango_log_commit(w, jobs, 5, &failure), NANGO_EFULL);
    assert_int_equal(jobs[1]->result + jobs[3]->result, DUPLICATE + FULL);
    assert_int_equal(jobs[2]->result, DUPLICATE);
    assert_sequence(events(store), 4);

    for (i = 0; i < 5; i++) {
        job_free(jobs[i]);
    }

    nango_writer_free(w);
    nango_store_close(store);
}


static void
what_is_no_record_is_not_stored(void **state)
{
    event_t          e;
    nango_store_t   *store;
    nango_write_t   *jobs[2];
    nango_writer_t  *w;

    store = store_open();
    w = writer_of(store);

    e = webhook(1, 0);
    jobs[0] = job_make(&e);
    e = webhook(2, 0);
    jobs[1] = job_make(&e);
    jobs[0]->len--;

    assert_int_equal(nango_log_commit(w, jobs, 2, &failure), NANGO_EINVAL);
    assert_int_equal(jobs[0]->result, FAILED);
    assert_int_equal(jobs[1]->result, STORED);
    assert_sequence(events(store), 1);

    job_free(jobs[0]);
    job_free(jobs[1]);
    nango_writer_free(w);
    nango_store_close(store);
}


static void
another_process_may_make_the_map_larger(void **state)
{
    size_t           size;
    nango_store_t   *store;
    nango_reader_t  *reader;
    nango_writer_t  *w;

    assert_ok(store_try(&store, 1024 * 1024));
    w = writer_of(store);
    reader = snapshot(store);
    nango_reader_end(reader);
    commit(w, webhook(1, 0), STORED);

    size = 128 * 1024 * 1024;
    assert_int_equal(reap(spawn(fill_child, &size)), 0);

    assert_int_equal(nango_reader_begin(reader, &failure), NANGO_ERESIZED);
    assert_true(nango_store_needs_recovery(store));
    commit(w, webhook(2, 0), FAILED);
    assert_int_equal(failure.code, NANGO_ERESIZED);

    assert_ok(nango_store_recover(store, &failure));
    assert_sequence(commit(w, webhook(2, 0), STORED), 2);
    assert_ok(nango_reader_begin(reader, &failure));
    assert_sequence(nango_reader_last(reader), 2);
    nango_reader_end(reader);

    nango_reader_free(reader);
    nango_writer_free(w);
    nango_store_close(store);
}


/*
 * A committer that is killed: what it said to be stored, in a pipe, after
 * each commit.
 */

typedef struct {
    int                   out;
    unsigned              first;        /* HMAC */
    unsigned              seed;
} killed_t;

typedef struct {
    unsigned              hmac;
    uint64_t              sequence;
} ack_t;


static int
killed_child(void *data)
{
    killed_t *k = data;

    int              i, n;
    ack_t            acks[64];
    event_t          e;
    unsigned         hmac;
    nango_store_t   *store;
    nango_write_t   *jobs[64];
    nango_writer_t  *w;

    /* Room for what the fastest disk takes until it is killed. */

    if (store_try(&store, 8 * SIZE) != NANGO_OK) {
        return 1;
    }

    w = nango_writer_create(store, REMEMBER);

    for (hmac = k->first; /* void */; hmac += n) {
        n = 1 + (hmac * 7 + k->seed) % 64;

        for (i = 0; i < n; i++) {
            e = webhook(hmac + i, 0);
            e.pad = (hmac + i) * 37 % 4000;
            jobs[i] = job_make(&e);
        }

        if (nango_log_commit(w, jobs, n, &failure) != NANGO_OK) {
            return 1;
        }

        for (i = 0; i < n; i++) {
            acks[i].hmac = hmac + i;
            acks[i].sequence = jobs[i]->sequence;
            job_free(jobs[i]);
        }

        if (write(k->out, acks, n * sizeof(ack_t))
            != (ssize_t) (n * sizeof(ack_t)))
        {
            return 1;
        }
    }
}


typedef struct {
    uint64_t             *sequences;    /* by HMAC */
    unsigned              size;
    uint64_t              last;
    unsigned              top;          /* the largest HMAC */
    int                   twice;
} seen_t;


static int
seen_handler(void *data, uint64_t sequence, const nango_record_t *record)
{
    seen_t *s = data;

    unsigned  hmac;

    if (record == NULL || sequence != s->last + 1) {
        return -2;
    }

    hmac = hmac_number(record->hmac);

    if (hmac >= s->size) {
        return -2;
    }

    if (s->sequences[hmac] != 0) {
        s->twice++;
    }

    s->sequences[hmac] = sequence;
    s->last = sequence;

    if (hmac > s->top) {
        s->top = hmac;
    }

    return 0;
}


static void
wait_readable(int fd)
{
    struct pollfd  p;

    p.fd = fd;
    p.events = POLLIN;

    assert_int_equal(poll(&p, 1, 60000), 1);
}


static void
what_was_acknowledged_survives_a_kill(void **state)
{
    int              i, round, fd[2], acked;
    ack_t            acks[64];
    pid_t            pid;
    ssize_t          n;
    seen_t           seen;
    unsigned         next;
    killed_t         k;
    uint64_t        *promised;
    nango_store_t   *store;

    seen.size = 1000000;
    seen.sequences = calloc(seen.size, sizeof(uint64_t));
    promised = calloc(seen.size, sizeof(uint64_t));
    assert_non_null(seen.sequences);
    assert_non_null(promised);

    next = 1;
    acked = 0;

    for (round = 0; round < 20; round++) {
        assert_int_equal(pipe(fd), 0);

        k.out = fd[1];
        k.first = next;
        k.seed = round;

        pid = spawn(killed_child, &k);
        close(fd[1]);

        /* some while they open the store, most while they commit */

        if (round % 4) {
            wait_readable(fd[0]);
        }

        sleep_us(random_below(30000));
        kill(pid, SIGKILL);
        assert_int_equal(reap(pid), -SIGKILL);

        while ((n = read(fd[0], acks, sizeof(acks))) > 0) {

            for (i = 0; i < n / (ssize_t) sizeof(ack_t); i++) {
                promised[acks[i].hmac] = acks[i].sequence;
                next = acks[i].hmac + 1;
                acked++;
            }
        }

        close(fd[0]);

        /* the next one begins by repeating what was not acknowledged */
    }

    store = store_open();

    memset(seen.sequences, 0, seen.size * sizeof(uint64_t));
    seen.last = 0;
    seen.top = 0;
    seen.twice = 0;

    assert_int_equal(nango_log_scan(store, 0, seen_handler, &seen, &failure),
                     0);
    assert_int_equal(seen.twice, 0);

    for (i = 0; i < (int) seen.size; i++) {
        if (promised[i]) {
            assert_sequence(seen.sequences[i], promised[i]);
        }
    }

    assert_true(acked > 15);
    assert_true(seen.top + 1 >= next);
    assert_int_equal(nango_store_check_readers(store), 0);

    nango_store_close(store);
    free(seen.sequences);
    free(promised);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(sequences_grow_by_one),
        store_unit(a_batch_of_nothing_is_fine),
        store_unit(a_batch_takes_in_what_comes_while_it_waits),
        store_unit(a_scan_sees_what_was_committed),
        store_unit(a_scan_passes_over_what_is_of_later),
        store_unit(a_repeat_is_a_duplicate),
        store_unit(a_repeat_in_the_same_batch_is_a_duplicate),
        store_unit(a_batch_of_duplicates_writes_nothing),
        store_unit(nothing_is_written_before_the_first_pages_are_synced),
        store_unit(a_log_that_is_gone_is_not_written_to),
        store_unit(a_file_that_is_cut_is_an_error),
        store_unit(what_rests_on_less_than_there_is_is_overtaken),
        store_unit(what_comes_before_in_its_batch_overtakes),
        store_unit(what_is_not_known_overtakes),
        store_unit(what_is_too_far_behind_is_overtaken),
        store_unit(the_window_ends),
        store_unit(each_job_has_its_own_window),
        store_unit(a_clock_that_is_set_back_loses_no_webhook),
        store_unit(environments_do_not_share_duplicates),
        store_unit(environments_of_any_number_and_length_are_known),
        store_unit(forwards_and_unknown_types_are_never_duplicates),
        store_unit(writers_see_what_others_wrote),
        store_unit(processes_see_what_others_wrote),
        store_unit(a_new_writer_knows_the_last_minutes),
        store_unit(a_writer_that_remembers_nothing_has_no_duplicates),
        store_unit(the_table_grows),
        store_unit(a_flood_of_the_same_bytes_is_survived),
        store_unit(after_a_failed_sync_nothing_is_remembered),
        store_unit(a_full_disk_is_full),
        store_unit(after_a_failed_commit_the_store_is_recovered),
        store_unit(a_store_that_cannot_be_opened_again_stays_closed),
        store_unit(a_log_of_its_size_is_full),
        store_unit(what_does_not_fit_does_not_hold_up_the_rest),
        store_unit(a_full_map_does_not_hold_up_what_fits),
        store_unit(what_is_no_record_is_not_stored),
        store_unit(another_process_may_make_the_map_larger),
        store_unit(what_was_acknowledged_survives_a_kill)
    };

    return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
