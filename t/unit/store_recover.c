/*
 * Copyright (C) nginx-nango authors
 *
 * The store is closed and opened again under the feet of everybody.
 */

#include "store_test.h"
#include "store_fault.h"

#include <pthread.h>


#define READERS  3
#define ROUNDS   25


static nango_store_t  *shared;
static atomic_int      done;
static atomic_int      broken;
static atomic_ulong    snapshots;
static atomic_ulong    stored;


static event_t
webhook(unsigned hmac)
{
    event_t  e;

    memset(&e, 0, sizeof(e));

    e.id = "one";
    e.tags = "{\"a\":\"1\"}";
    e.op = NANGO_OP_CREATION;
    e.success = NANGO_SUCCESS_TRUE;
    e.hmac = hmac;
    e.dedupe = REMEMBER;

    return e;
}


/* What a thread finds wrong: asserts are for the main one. */

static void
wrong(const char *what, nango_error_t *err)
{
    if (atomic_exchange(&broken, 1) == 0) {
        fprintf(stderr, "%s: %s\n", what, err->text);
    }
}


static void *
read_on(void *data)
{
    uint64_t             applied, before;
    nango_rc_e           rc;
    nango_tag_t          tag;
    nango_owned_t       *o;
    nango_error_t        err;
    nango_reader_t      *reader;
    nango_connection_t   c;

    err.text[0] = '\0';
    tag.name = S("a");
    tag.value = S("1");
    before = 0;
    reader = nango_reader_create(shared);

    while (!atomic_load(&done)) {
        rc = nango_reader_begin(reader, &err);

        if (rc == NANGO_EBUSY || rc == NANGO_EBROKEN) {
            sched_yield();
            continue;
        }

        if (rc != NANGO_OK) {
            wrong("begin", &err);
            break;
        }

        applied = nango_reader_applied(reader);

        if (applied < before) {
            wrong("a snapshot went backwards", &err);
        }

        before = applied;

        o = nango_owned_open(reader, S("prod"), &tag, 1, 0, &err);

        if (o == NULL) {
            wrong("open", &err);

        } else {
            if (nango_owned_next(o, &c, &err) != (applied != 0)
                || (applied != 0 && !nango_str_is(c.connection_id, "one")))
            {
                wrong("next", &err);
            }

            nango_owned_close(o);
        }

        nango_reader_end(reader);
        (void) nango_store_log_txnid(shared);
        atomic_fetch_add(&snapshots, 1);
    }

    nango_reader_free(reader);

    return NULL;
}


static void *
commit_on(void *data)
{
    unsigned         hmac;
    event_t          e;
    nango_rc_e       rc;
    nango_error_t    err;
    nango_write_t   *job;
    nango_writer_t  *w;

    err.text[0] = '\0';
    w = nango_writer_create(shared, REMEMBER);

    for (hmac = 1; !atomic_load(&done); hmac++) {
        e = webhook(hmac);
        job = job_make(&e);

        /* as Nango does: again until it is acknowledged */

        do {
            rc = nango_log_commit(w, &job, 1, &err);

            if (rc != NANGO_OK && rc != NANGO_EBROKEN) {
                wrong("commit", &err);
            }

        } while (rc != NANGO_OK && !atomic_load(&done));

        if (rc == NANGO_OK) {
            atomic_fetch_add(&stored, 1);
        }

        job_free(job);
    }

    nango_writer_free(w);

    return NULL;
}


static void *
fold_on(void *data)
{
    nango_rc_e             rc;
    nango_error_t          err;
    nango_folded_t         folded;
    nango_fold_options_t   options;

    memset(&options, 0, sizeof(options));
    options.now_ms = T0;
    options.retain_ms = HOUR;

    while (!atomic_load(&done)) {
        rc = nango_fold(shared, &options, &folded, &err);

        if (rc != NANGO_OK && rc != NANGO_EBROKEN) {
            wrong("fold", &err);
        }

        if (nango_store_check_readers(shared) > 0) {
            wrong("check_readers", &err);
        }

        sleep_us(300);
    }

    return NULL;
}


static int
count_handler(void *data, uint64_t sequence, const nango_record_t *record)
{
    unsigned   hmac;
    unsigned  *last = data;

    /* each once, and in their order */

    hmac = hmac_number(record->hmac);

    if (hmac != *last + 1 || sequence != hmac) {
        return -2;
    }

    *last = hmac;

    return 0;
}


static void
a_store_is_recovered_while_it_is_used(void **state)
{
    int         i, round;
    unsigned    last;
    pthread_t   threads[READERS + 2];

    shared = store_open();

    for (i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, read_on, NULL), 0);
    }

    assert_int_equal(pthread_create(&threads[i++], NULL, commit_on, NULL), 0);
    assert_int_equal(pthread_create(&threads[i++], NULL, fold_on, NULL), 0);

    for (round = 0; round < ROUNDS; round++) {
        sleep_us(3000);
        atomic_store(&fault_meta, EIO);

        for (i = 0; i < 10000 && !nango_store_needs_recovery(shared); i++) {
            sleep_us(200);
        }

        assert_true(nango_store_needs_recovery(shared));
        assert_ok(nango_store_recover(shared, &failure));
    }

    sleep_us(5000);
    atomic_store(&fault_meta, 0);
    atomic_store(&done, 1);

    for (i = 0; i < READERS + 2; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }

    assert_int_equal(atomic_load(&broken), 0);
    assert_true(atomic_load(&snapshots) > 100);

    last = 0;
    assert_int_equal(nango_log_scan(shared, 0, count_handler, &last, &failure),
                     0);
    assert_true(last >= atomic_load(&stored));
    assert_true(last <= atomic_load(&stored) + 1);

    fold(shared);
    assert_sequence(counts(shared).valid, 1);
    assert_sequence(counts(shared).events, last);

    nango_store_close(shared);
}


static atomic_int  entered;


static void *
stay_inside(void *data)
{
    nango_store_enter(shared);
    atomic_store(&entered, 1);

    while (!atomic_load(&done)) {
        sleep_us(100);
    }

    atomic_store(&entered, 0);
    nango_store_leave(shared);

    return NULL;
}


static void *
recover(void *data)
{
    *(int *) data = nango_store_recover(shared, NULL);

    return NULL;
}


static void
recovering_waits_and_nobody_waits_for_it(void **state)
{
    int              i, rc;
    pthread_t        inside, recovering;
    nango_reader_t  *reader;

    shared = store_open();
    reader = nango_reader_create(shared);
    atomic_store(&done, 0);
    rc = -1;

    assert_int_equal(pthread_create(&inside, NULL, stay_inside, NULL), 0);

    while (!atomic_load(&entered)) {
        sleep_us(100);
    }

    assert_int_equal(nango_store_try_enter(shared), 1);
    nango_store_leave(shared);

    atomic_store(&shared->trouble, NANGO_EBROKEN);
    assert_int_equal(pthread_create(&recovering, NULL, recover, &rc), 0);

    /* from here on an event loop is told to come again */

    for (i = 0; i < 10000; i++) {
        if (!nango_store_try_enter(shared)) {
            break;
        }

        nango_store_leave(shared);
        sleep_us(100);
    }

    assert_true(i < 10000);
    assert_int_equal(nango_reader_begin(reader, &failure), NANGO_EBUSY);
    assert_true(nango_store_log_txnid(shared) == 0);
    assert_int_equal(atomic_load(&entered), 1);

    atomic_store(&done, 1);
    assert_int_equal(pthread_join(inside, NULL), 0);
    assert_int_equal(pthread_join(recovering, NULL), 0);
    assert_int_equal(rc, NANGO_OK);

    assert_ok(nango_reader_begin(reader, &failure));
    nango_reader_end(reader);
    nango_reader_free(reader);
    nango_store_close(shared);
}


static void *
open_and_close(void *data)
{
    int             i;
    nango_rc_e      rc;
    nango_error_t   err;
    nango_store_t  *store;

    nango_store_options_t  options;

    memset(&options, 0, sizeof(options));
    options.path = directory;
    options.size = SIZE;

    for (i = 0; i < 30; i++) {
        rc = nango_store_open(&store, &options, &err);

        if (rc == NANGO_OK) {
            nango_store_close(store);
            (*(int *) data)++;

        } else if (rc != NANGO_EINVAL) {
            wrong("open", &err);
        }
    }

    return NULL;
}


static int
count_line(const char *line, void *data)
{
    ++*(int *) data;

    return 0;
}


/* Those who come back take no lock for it. */

static void
readers_have_their_places_after_recovering(void **state)
{
    int              before, after;
    nango_store_t   *store;
    nango_reader_t  *reader;

    store = store_open();
    reader = nango_reader_create(store);
    assert_ok(nango_reader_begin(reader, &failure));
    nango_reader_end(reader);

    atomic_store(&store->trouble, NANGO_EBROKEN);
    assert_ok(nango_store_recover(store, &failure));

    before = 0;
    assert_true(mdb_reader_list(store->log, count_line, &before) >= 0);
    assert_true(mdb_reader_list(store->state, count_line, &before) >= 0);

    assert_ok(nango_reader_begin(reader, &failure));

    after = 0;
    assert_true(mdb_reader_list(store->log, count_line, &after) >= 0);
    assert_true(mdb_reader_list(store->state, count_line, &after) >= 0);

    assert_int_equal(after, before);

    nango_reader_end(reader);
    nango_reader_free(reader);
    nango_store_close(store);
}


static void
removed(nango_store_t *store, const char *what)
{
    char  path[256];

    (void) snprintf(path, sizeof(path), "%s/%s/data.mdb",
                    nango_store_path(store), what);
    assert_int_equal(unlink(path), 0);

    (void) snprintf(path, sizeof(path), "%s/%s/lock.mdb",
                    nango_store_path(store), what);
    assert_int_equal(unlink(path), 0);
}


/* Others have it open too, and know what store it was. */

static void
what_is_made_anew_is_the_same_store(void **state)
{
    event_t         e;
    nango_store_t  *store;
    unsigned char   id[NANGO_STORE_ID_LEN];

    e = webhook(1);
    store = store_open();
    memcpy(id, nango_store_id(store), NANGO_STORE_ID_LEN);
    assert_sequence(append(store, &e), 1);

    removed(store, "log");
    removed(store, "state");

    assert_int_equal(nango_store_look_after(store, &failure), NANGO_EBROKEN);
    assert_ok(nango_store_recover(store, &failure));
    assert_memory_equal(nango_store_id(store), id, NANGO_STORE_ID_LEN);

    e = webhook(2);
    assert_sequence(append(store, &e), 2);

    nango_store_close(store);
}


/* A state that is new has to be told of its subscribers first. */

static void
nothing_is_folded_into_another_state(void **state)
{
    event_t               e;
    nango_store_t        *store;
    nango_folded_t        folded;
    nango_fold_options_t  options;

    e = webhook(1);
    store = store_open();
    append(store, &e);

    memset(&options, 0, sizeof(options));
    options.now_ms = T0;
    options.retain_ms = HOUR;
    options.generation = nango_store_generation(store);

    removed(store, "state");
    assert_int_equal(nango_store_look_after(store, &failure), NANGO_EBROKEN);
    assert_ok(nango_store_recover(store, &failure));

    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_int_equal(folded.reopened, 1);
    assert_sequence(folded.events, 0);
    assert_sequence(counts(store).events, 0);

    options.generation = nango_store_generation(store);
    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_int_equal(folded.reopened, 0);
    assert_sequence(folded.events, 1);

    nango_store_close(store);
}


static void
threads_do_not_open_a_store_twice(void **state)
{
    int        i, opened[3];
    pthread_t  threads[3];

    memset(opened, 0, sizeof(opened));
    atomic_store(&broken, 0);

    for (i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, open_and_close,
                                        &opened[i]),
                         0);
    }

    for (i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    }

    assert_int_equal(atomic_load(&broken), 0);
    assert_true(opened[0] + opened[1] + opened[2] > 0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(a_store_is_recovered_while_it_is_used),
        store_unit(recovering_waits_and_nobody_waits_for_it),
        store_unit(readers_have_their_places_after_recovering),
        store_unit(what_is_made_anew_is_the_same_store),
        store_unit(nothing_is_folded_into_another_state),
        store_unit(threads_do_not_open_a_store_twice)
    };

    return cmocka_run_group_tests_name("recover", tests, NULL, NULL);
}
