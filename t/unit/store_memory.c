/*
 * Copyright (C) nginx-nango authors
 *
 * Each allocation fails once, of ours and of LMDB's, and then each system call:
 * what is called must say so and leave nothing behind, the store is usable at
 * once, and what was said to be stored is there.
 */

#include "store_memory.h"

#include "nango_memo.h"
#include "nango_show.h"


#define KEPT  4096


/* Sequences that were told, and the numbers of their events. */

typedef struct {
    uint64_t              sequence;
    unsigned              number;
} told_t;

typedef struct {
    nango_store_t        *store;
    nango_writer_t       *writer;
    nango_reader_t       *reader;
    nango_owned_t        *owned;
    nango_write_t        *jobs[8];
    size_t                njobs;
    size_t                pad;
    unsigned              number;
    int                   fill;         /* a new writer each time */
    told_t                told[KEPT];
    size_t                ntold;
    size_t                found;
} world_t;


static world_t  world;


static void
world_open(void)
{
    memset(&world, 0, sizeof(world));
    world.store = store_open();
    world.writer = nango_writer_create(world.store, REMEMBER);
    assert_non_null(world.writer);
}


static void
world_close(void)
{
    nango_writer_free(world.writer);
    nango_store_close(world.store);
}


static int
look_for(void *data, uint64_t sequence, const nango_record_t *record)
{
    size_t  i;

    assert_non_null(record);

    for (i = 0; i < world.ntold; i++) {
        if (world.told[i].sequence == sequence) {
            assert_int_equal(hmac_number(record->hmac), world.told[i].number);
            world.found++;
        }
    }

    return 0;
}


/* What was acknowledged is in the log, and more can be written and folded. */

static void
nothing_lost(void)
{
    event_t  e = { .id = "after", .op = NANGO_OP_CREATION,
                   .success = NANGO_SUCCESS_TRUE, .tags = "{\"a\":\"b\"}" };

    e.hmac = ++world.number;
    (void) append(world.store, &e);

    world.found = 0;
    assert_int_equal(nango_log_scan(world.store, 1, look_for, NULL, &failure),
                     0);
    assert_int_equal(world.found, world.ntold);

    (void) fold(world.store);
}


static void
jobs_make(void *data)
{
    size_t   i;
    char     id[32];
    event_t  e = { .op = NANGO_OP_CREATION, .success = NANGO_SUCCESS_TRUE,
                   .tags = "{\"end_user_id\":\"42\",\"plan\":\"pro\"}",
                   .dedupe = REMEMBER };

    for (i = 0; i < world.njobs; i++) {
        e.hmac = ++world.number;
        e.pad = world.pad * i;
        e.id = id;
        snprintf(id, sizeof(id), "c-%u", e.hmac);
        world.jobs[i] = job_make(&e);
    }

    if (world.fill) {
        nango_writer_free(world.writer);
        world.writer = nango_writer_create(world.store, REMEMBER);
        assert_non_null(world.writer);
    }
}


static void
jobs_make_one(unsigned hmac)
{
    event_t  e = { .id = "one", .op = NANGO_OP_CREATION, .dedupe = REMEMBER };

    e.hmac = hmac;
    world.jobs[0] = job_make(&e);
}


static int
jobs_commit(void *data)
{
    return said(nango_log_commit(world.writer, world.jobs, world.njobs,
                                 &failure));
}


static void
jobs_told(void *data, int good)
{
    size_t          i;
    nango_write_t  *job, *again;

    for (i = 0; i < world.njobs; i++) {
        job = world.jobs[i];

        if (job->result == NANGO_WRITE_STORED) {
            assert_true(world.ntold < KEPT);
            world.told[world.ntold].number = hmac_number(job->hmac);
            world.told[world.ntold++].sequence = job->sequence;

        } else {
            assert_false(good);
            assert_int_equal(job->result, NANGO_WRITE_FAILED);
            assert_sequence(job->sequence, 0);
        }
    }

    world_recover(world.store);

    /* As Nango does: what has failed is sent again, and what has not, too. */

    for (i = 0; i < world.njobs; i++) {
        job = world.jobs[i];
        again = malloc(sizeof(nango_write_t));
        assert_non_null(again);
        *again = *job;

        assert_ok(nango_log_commit(world.writer, &again, 1, &failure));

        if (job->result == NANGO_WRITE_STORED) {
            assert_int_equal(again->result, NANGO_WRITE_DUPLICATE);
            assert_sequence(again->sequence, job->sequence);

        } else {

            /* Of a sync that has failed nobody knows what it has done. */

            if (!memory_calls || again->result != NANGO_WRITE_DUPLICATE) {
                assert_int_equal(again->result, NANGO_WRITE_STORED);
            }

            world.told[world.ntold].number = hmac_number(again->hmac);
            world.told[world.ntold++].sequence = again->sequence;
        }

        free(again);
        job_free(job);
    }
}


static void
fail_commits(size_t njobs, size_t pad, int fill)
{
    memory_test_t  test = { jobs_make, jobs_commit, jobs_told, NULL, 0, 0 };

    world_open();

    /*
     * What a writer remembers and LMDB's pages of a transaction are kept for
     * the next one, and the table grows by itself when it must.
     */

    test.may_do_without = 1;
    test.may_keep = 1;

    world.njobs = njobs;
    world.pad = pad;
    world.fill = fill;

    assert_true(world_fail_each(&test) > 0);

    nothing_lost();
    world_close();
}


static void
a_commit_fails_cleanly(void **state)
{
    fail_commits(1, 0, 0);
}


static void
a_batch_fails_cleanly(void **state)
{
    fail_commits(8, 3000, 0);
}


static void
a_batch_with_large_records_fails_cleanly(void **state)
{
    fail_commits(3, 100000, 0);
}


static void
the_first_commit_of_a_writer_fails_cleanly(void **state)
{
    fail_commits(2, 0, 1);
}


/* Without memory for a larger table the oldest are forgotten, and no others. */

static void
a_full_table_forgets_the_oldest(void **state)
{
    int            i;
    event_t        e = { .id = "c", .op = NANGO_OP_CREATION,
                         .dedupe = REMEMBER };
    uint64_t       first, second;

    world_open();

    e.hmac = 1;
    first = commit_one(world.writer, &e, NANGO_WRITE_STORED);
    e.hmac = 2;
    second = commit_one(world.writer, &e, NANGO_WRITE_STORED);

    for (i = 3; i <= 1024; i++) {
        e.hmac = i;
        (void) commit_one(world.writer, &e, NANGO_WRITE_STORED);
    }

    e.hmac = 1;
    assert_sequence(commit_one(world.writer, &e, NANGO_WRITE_DUPLICATE),
                    first);

    jobs_make_one(1025);

    /* LMDB needs some of its own first. */

    for (i = 0; i < 100; i++) {
        atomic_store(&memory_countdown, i);
        (void) nango_log_commit(world.writer, world.jobs, 1, &failure);
        atomic_store(&memory_countdown, -1);

        if (world.jobs[0]->result == NANGO_WRITE_STORED) {
            break;
        }

        assert_int_equal(world.jobs[0]->result, NANGO_WRITE_FAILED);
    }

    assert_true(i > 0 && i < 100);
    job_free(world.jobs[0]);

    e.hmac = 2;
    assert_sequence(commit_one(world.writer, &e, NANGO_WRITE_DUPLICATE),
                    second);

    e.hmac = 1;
    assert_true(commit_one(world.writer, &e, NANGO_WRITE_STORED) > second);

    world_close();
}


/* A whole life, from which nothing may be left. */

static int
live_once(void *data)
{
    int                   good;
    nango_write_t        *job;
    nango_store_t        *store;
    nango_writer_t       *writer;
    nango_folded_t        folded;
    nango_fold_options_t  options;

    if (!said(store_try(&store, SIZE))) {
        assert_null(store);
        return 0;
    }

    writer = nango_writer_create(store, REMEMBER);
    good = 0;

    if (writer != NULL) {
        job = world.jobs[0];
        good = said(nango_log_commit(writer, &job, 1, &failure));

        if (job->result == NANGO_WRITE_STORED) {
            world.told[world.ntold].number = hmac_number(job->hmac);
            world.told[world.ntold++].sequence = job->sequence;
        }
    }

    if (good) {
        memset(&options, 0, sizeof(options));
        options.now_ms = T0;
        options.retain_ms = HOUR;
        good = said(nango_fold(store, &options, &folded, &failure));
    }

    if (good) {
        good = nango_store_check_readers(store) >= 0;
    }

    if (good) {
        good = nango_store_lead(store, &failure) == 1;
    }

    nango_writer_free(writer);
    nango_store_close(store);

    return good;
}


/* The next life folds its own event, and not all that were left. */

static void
life_over(void *data, int good)
{
    nango_store_t  *store;

    job_free(world.jobs[0]);

    store = store_open();
    (void) fold(store);
    nango_store_close(store);
}


static void
a_life_leaves_nothing(void **state)
{
    memory_test_t  test = { jobs_make, live_once, life_over, NULL, 1, 0 };

    memset(&world, 0, sizeof(world));
    world.njobs = 1;

    /* That OpenSSL fetches what it needs is not part of it. */

    world_open();
    world.njobs = 1;
    nothing_lost();
    world_close();

    assert_true(world_fail_each(&test) > 20);

    memory_calls = 0;
    world.store = store_open();
    nothing_lost();
    nango_store_close(world.store);
}


/* The first opening makes everything. */

static void
directory_again(void *data)
{
    assert_int_equal(directory_remove(NULL), 0);
    assert_int_equal(mkdir(directory, 0700), 0);
}


static int
open_once(void *data)
{
    nango_store_t  *store;

    if (!said(store_try(&store, SIZE))) {
        assert_null(store);
        return 0;
    }

    nango_store_close(store);

    return 1;
}


static void
opened_after_all(void *data, int good)
{
    nango_store_t  *store;

    store = store_open();
    (void) fold(store);
    nango_store_close(store);
}


static void
making_a_store_fails_cleanly(void **state)
{
    memory_test_t  test = { directory_again, open_once, opened_after_all,
                            NULL, 1, 0 };

    assert_true(world_fail_each(&test) > 10);
}


static void
event_before(void *data)
{
    int      i;
    char     id[32];
    event_t  e = { .success = NANGO_SUCCESS_TRUE, .dedupe = 0,
                   .tags = "{\"end_user_id\":\"42\",\"plan\":\"pro\"}" };

    static const nango_op_e  ops[] = { NANGO_OP_CREATION, NANGO_OP_CREATION,
                                       NANGO_OP_REFRESH, NANGO_OP_DELETION };

    for (i = 0; i < 4; i++) {
        snprintf(id, sizeof(id), "c-%u", world.number + (i & 1));
        e.id = id;
        e.op = ops[i];
        e.hmac = ++world.number;
        (void) append(world.store, &e);
    }
}


static int
fold_once(void *data)
{
    nango_folded_t        folded;
    nango_fold_options_t  options;

    memset(&options, 0, sizeof(options));
    options.now_ms = T0 + (uint64_t) world.number * HOUR;
    options.retain_ms = HOUR;

    return said(nango_fold(world.store, &options, &folded, &failure));
}


/* What the fold that failed has not done, the next one does. */

static void
all_folded(void *data, int good)
{
    nango_counts_t  c;

    world_recover(world.store);

    (void) fold_at(world.store, (uint64_t) world.number * HOUR, HOUR, 0);

    c = counts(world.store);

    assert_sequence(c.applied, world.number);
    assert_sequence(c.events, world.number);
    assert_sequence(c.gaps, 0);
    assert_sequence(c.not_understood, 0);
}


static void
a_fold_fails_cleanly(void **state)
{
    memory_test_t  test = { event_before, fold_once, all_folded, NULL, 1, 1 };

    world_open();
    assert_true(world_fail_each(&test) > 3);
    world_close();
}


static void
some_connections(void)
{
    int  i;

    for (i = 0; i < 3; i++) {
        event_before(NULL);
    }

    (void) fold(world.store);
}


/* What it cannot follow it does not know: there is nothing to be said. */

static int
remember_once(nango_reader_t *reader)
{
    int                   rc;
    nango_memo_t         *memo;
    unsigned char         key[NANGO_KEY_LEN] = { 1 };
    nango_memo_answer_t   answer;

    memo = nango_memo_create(64);

    if (memo == NULL) {
        return -1;
    }

    assert_int_equal(nango_memo_find(memo, reader, S("q"), 1, &answer), 0);

    memset(&answer, 0, sizeof(answer));
    nango_memo_keep(memo, reader, S("q"), 1, key, &answer);

    rc = nango_memo_find(memo, reader, S("q"), 1, &answer);

    nango_memo_free(memo);

    return rc;
}


static int
read_once(void *data)
{
    int                  rc, n;
    nango_tag_t          tags[2];
    nango_owned_t       *o;
    nango_counts_t       c;
    nango_reader_t      *reader;
    unsigned char        key[NANGO_KEY_LEN];
    nango_connection_t   connection;

    reader = nango_reader_create(world.store);

    if (reader == NULL) {
        return 0;
    }

    if (!said(nango_reader_begin(reader, &failure))) {
        nango_reader_free(reader);
        return 0;
    }

    tags[0].name = S("end_user_id");
    tags[0].value = S("42");
    tags[1].name = S("plan");
    tags[1].value = S("pro");

    rc = said(nango_reader_counts(reader, &c, &failure)) ? 1 : -1;

    if (rc == 1) {
        assert_int_equal(nango_reader_last(reader), world.number);
        assert_int_equal(nango_reader_applied(reader), world.number);
        memset(key, 'k', sizeof(key));
        rc = nango_reader_connection(reader, key, &connection, &failure);
        rc = (rc == 0) ? 1 : rc;
    }

    if (rc == 1) {
        rc = nango_reader_changed(reader, S("prod"), tags, 2, 0, &failure);
    }

    if (rc == 1) {
        rc = remember_once(reader);
    }

    if (rc == 1) {
        o = nango_owned_open(reader, S("prod"), tags, 2, 0, &failure);
        rc = -1;

        if (o != NULL) {
            n = 0;

            while ((rc = nango_owned_next(o, &connection, &failure)) == 1) {
                n++;
            }

            /* Never fewer than there are. */

            if (rc == 0) {
                assert_int_equal(n, world.found);
                rc = 1;
            }

            nango_owned_close(o);
        }
    }

    nango_reader_end(reader);
    nango_reader_free(reader);

    return rc == 1;
}


static void
reading_fails_cleanly(void **state)
{
    memory_test_t  test = { NULL, read_once, NULL, NULL, 0, 0 };

    world_open();
    some_connections();

    world.reader = snapshot(world.store);
    world.found = (size_t) owned(world.reader, "end_user_id", "42");
    snapshot_end(world.reader);
    assert_true(world.found > 1);

    assert_true(world_fail_each(&test) > 3);

    nothing_lost();
    world_close();
}


static int
event_shown(void *data, const nango_logged_t *event)
{
    nango_text_t *t = data;

    nango_show_head(t, event, NANGO_SHOW_ID);
    nango_show_owner(t, event->connection ? event->connection->tags : NULL,
                     event->connection ? event->connection->ntags : 0);
    nango_show_body(t, event->record, NANGO_SHOW_ID);
    nango_text_base64(t, event->record->body);

    world.found++;

    return 0;
}


static int
events_once(void *data)
{
    int              rc;
    uint64_t         position;
    nango_tag_t      tag;
    nango_text_t     text;
    nango_wanted_t   wanted;
    nango_reader_t  *reader;

    memset(&wanted, 0, sizeof(wanted));
    memset(&text, 0, sizeof(text));

    tag.name = S("end_user_id");
    tag.value = S("42");

    wanted.environment = S("prod");
    wanted.owner = &tag;
    wanted.nowner = 1;
    wanted.max_events = 1000;
    wanted.max_bytes = 1 << 30;

    reader = nango_reader_create(world.store);

    if (reader == NULL) {
        return 0;
    }

    if (!said(nango_reader_begin(reader, &failure))) {
        nango_reader_free(reader);
        return 0;
    }

    world.found = 0;
    position = 0;

    rc = nango_reader_events(reader, &wanted, &position, event_shown, &text,
                             &failure);

    if (rc == -1) {
        assert_int_equal(said(failure.code), 0);

    } else {
        /* Never fewer than there are. */

        assert_int_equal(rc, 0);
        assert_int_equal(world.found, world.number);
        assert_sequence(position, world.number);
    }

    nango_reader_end(reader);
    nango_reader_free(reader);

    rc = (rc == 0 && !text.failed);

    nango_text_free(&text);

    return rc;
}


static void
events_fail_cleanly(void **state)
{
    memory_test_t  test = { NULL, events_once, NULL, NULL, 0, 0 };

    world_open();
    some_connections();

    assert_true(world_fail_each(&test) > 5);

    nothing_lost();
    world_close();
}


static int
scan_count(void *data, uint64_t sequence, const nango_record_t *record)
{
    ++*(unsigned *) data;
    return 0;
}


static int
scan_once(void *data)
{
    unsigned  n;
    uint64_t  first, last;

    if (!said(nango_log_bounds(world.store, &first, &last, &failure))) {
        return 0;
    }

    n = 0;

    if (nango_log_scan(world.store, 1, scan_count, &n, &failure) != 0) {
        return 0;
    }

    assert_int_equal(n, last);

    return 1;
}


static void
scanning_fails_cleanly(void **state)
{
    memory_test_t  test = { NULL, scan_once, NULL, NULL, 0, 0 };

    world_open();
    some_connections();
    assert_true(world_fail_each(&test) > 1);
    world_close();
}


static int
bodies_once(void *data)
{
    int            fd, good, kept;
    char           from[PATH_MAX + 64], path[PATH_MAX + 128];
    struct stat    sb;
    unsigned char  copied[NANGO_BODY_NAME_LEN], adopted[NANGO_BODY_NAME_LEN];

    good = said(nango_body_copy(world.store, S("copied"), copied, NULL,
                                &failure));

    if (good) {
        nango_body_path(world.store, nango_str(copied, sizeof(copied)), path);
        assert_int_equal(lstat(path, &sb), 0);
        assert_int_equal(sb.st_size, 6);
        nango_body_remove(world.store, nango_str(copied, sizeof(copied)));
    }

    snprintf(from, sizeof(from), "%s/temp/received", directory);

    fd = open(from, O_WRONLY|O_CREAT, 0600);

    if (fd == -1) {
        return 0;
    }

    kept = said(nango_body_adopt(world.store, fd, from, adopted, NULL,
                                 &failure));

    if (kept) {
        nango_body_path(world.store, nango_str(adopted, sizeof(adopted)),
                        path);
        assert_int_equal(lstat(path, &sb), 0);
        nango_body_remove(world.store, nango_str(adopted, sizeof(adopted)));
    }

    (void) unlink(from);
    close(fd);

    return good && kept;
}


/* What could not be kept is not there, nor is what was removed. */

static void
no_body_left(void *data, int good)
{
    int             n;
    DIR            *dir;
    char            path[PATH_MAX + 64];
    struct dirent  *de;

    snprintf(path, sizeof(path), "%s/bodies", directory);
    dir = opendir(path);
    assert_non_null(dir);

    for (n = 0; (de = readdir(dir)) != NULL; n += de->d_name[0] != '.') {
        /* void */
    }

    closedir(dir);

    assert_int_equal(n, 0);
}


static void
a_body_fails_cleanly(void **state)
{
    memory_test_t  test = { NULL, bodies_once, no_body_left, NULL, 1, 0 };

    world_open();
    assert_true(world_fail_each(&test) > 3);
    world_close();
}


/* Something of an earlier process that nobody names, and something named. */

static void
orphans_before(void *data)
{
    int              i;
    char             path[PATH_MAX + 128];
    event_t          e = { .id = "c", .op = NANGO_OP_CREATION };
    nango_str_t      name;
    unsigned char    raw[NANGO_BODY_NAME_LEN + 1];

    for (i = 0; i < 70; i++) {
        assert_ok(nango_body_copy(world.store, S("body"), raw, NULL, &failure));
        raw[NANGO_BODY_NAME_LEN] = '\0';

        if (i == 0) {
            e.body_file = (char *) raw;
            e.body_len = 4;
            e.hmac = ++world.number;
            (void) append(world.store, &e);
        }
    }

    name = nango_str(raw, NANGO_BODY_NAME_LEN);
    nango_body_path(world.store, name, path);
    assert_int_equal(access(path, F_OK), 0);
}


static int
sweep_once(void *data)
{
    int  n;

    n = nango_body_sweep(world.store,
                         (uint64_t) time(NULL) * 1000 + 2 * HOUR, 1024,
                         &failure);
    world.found = n;

    return n != -1;
}


static void
swept(void *data, int good)
{
    int  n;

    n = nango_body_sweep(world.store,
                         (uint64_t) time(NULL) * 1000 + 2 * HOUR, 1024,
                         &failure);

    /*
     * Each is removed once, and never one that a record names; one that could
     * not be looked at is left for the next time.
     */

    if (good) {
        assert_in_range(world.found, 68, 69);
        n += world.found;
    }

    assert_int_equal(n, 69);
}


static void
a_sweep_fails_cleanly(void **state)
{
    /* qsort() helps itself where it gets none. */

    memory_test_t  test = { orphans_before, sweep_once, swept, NULL, 1, 0 };

    world_open();
    assert_true(world_fail_each(&test) > 1);
    world_close();
}


/* Nor does it wait here until it tries again. */

static void
trouble_before(void *data)
{
    world.store->retry_at = 0;
    atomic_store(&world.store->trouble, NANGO_EBROKEN);
}


static int
recover_once(void *data)
{
    return said(nango_store_recover(world.store, &failure));
}


static void
recovered_after_all(void *data, int good)
{
    event_t  e = { .id = "recovered", .op = NANGO_OP_CREATION };

    world.store->retry_at = 0;
    assert_ok(nango_store_recover(world.store, &failure));
    assert_false(nango_store_needs_recovery(world.store));

    e.hmac = ++world.number;
    (void) append(world.store, &e);
}


static void
a_recovery_fails_cleanly(void **state)
{
    memory_test_t  test = { trouble_before, recover_once, recovered_after_all,
                            NULL, 1, 1 };

    world_open();
    world.reader = nango_reader_create(world.store);
    assert_ok(nango_reader_begin(world.reader, &failure));
    nango_reader_end(world.reader);

    assert_true(world_fail_each(&test) > 10);

    assert_ok(nango_reader_begin(world.reader, &failure));
    nango_reader_end(world.reader);
    nango_reader_free(world.reader);
    nothing_lost();
    world_close();
}


static int
lead_once(void *data)
{
    int  lead;

    nango_store_resign(world.store);

    lead = nango_store_lead(world.store, &failure);

    if (lead == -1) {
        return said(failure.code);
    }

    assert_int_equal(lead, 1);
    nango_store_resign(world.store);

    return 1;
}


static void
leading_fails_cleanly(void **state)
{
    memory_test_t  test = { NULL, lead_once, NULL, NULL, 0, 1 };

    world_open();
    assert_true(world_fail_each(&test) > 0);
    assert_int_equal(nango_store_lead(world.store, &failure), 1);
    world_close();
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(making_a_store_fails_cleanly),
        store_unit(a_life_leaves_nothing),
        store_unit(a_commit_fails_cleanly),
        store_unit(a_batch_fails_cleanly),
        store_unit(a_batch_with_large_records_fails_cleanly),
        store_unit(the_first_commit_of_a_writer_fails_cleanly),
        store_unit(a_full_table_forgets_the_oldest),
        store_unit(a_fold_fails_cleanly),
        store_unit(reading_fails_cleanly),
        store_unit(events_fail_cleanly),
        store_unit(scanning_fails_cleanly),
        store_unit(a_sweep_fails_cleanly),
        store_unit(a_recovery_fails_cleanly),
        store_unit(leading_fails_cleanly),

        calls_unit(making_a_store_fails_cleanly),
        calls_unit(a_life_leaves_nothing),
        calls_unit(a_commit_fails_cleanly),
        calls_unit(a_batch_fails_cleanly),
        calls_unit(a_batch_with_large_records_fails_cleanly),
        calls_unit(the_first_commit_of_a_writer_fails_cleanly),
        calls_unit(a_fold_fails_cleanly),
        calls_unit(a_body_fails_cleanly),
        calls_unit(a_sweep_fails_cleanly),
        calls_unit(a_recovery_fails_cleanly),
        calls_unit(leading_fails_cleanly)
    };

    if (memory_skipped()) {
        return 0;
    }

    return cmocka_run_group_tests_name("store memory", tests, NULL, NULL);
}
