/*
 * Copyright (C) nginx-nango authors
 *
 * A file that is cut off while it is open: what is read behind its end is a
 * SIGBUS, which is an error of the store and of nobody else.  Each in a child,
 * where whoever dies is seen.
 */

#include "store_deliver.h"


typedef struct {
    const char  *file;
    int        (*use)(nango_store_t *store);    /* 0: an error, in words */
    int          inside;            /* a snapshot has begun before */
} cut_t;


static nango_reader_t      *reader;
static nango_subscriber_t   app;


static int
cut(void *data)
{
    int             i, rc;
    char            id[32], path[PATH_MAX + 64];
    event_t         e = { .op = NANGO_OP_CREATION, .id = id, .pad = 1000,
                          .success = NANGO_SUCCESS_TRUE,
                          .tags = "{\"end_user_id\":\"42\"}" };
    const cut_t    *c = data;
    nango_store_t  *store;

    store = store_open();
    app = subscriber("prod", "app");
    subscribe(store, &app);

    for (i = 0; i < 100; i++) {
        snprintf(id, sizeof(id), "c-%d", i);
        e.hmac = i + 1;
        (void) append(store, &e);
    }

    (void) fold(store);

    if (c->inside) {
        reader = snapshot(store);
    }

    snprintf(path, sizeof(path), "%s/%s", directory, c->file);

    if (truncate(path, strstr(path, "lock") ? 0 : 8192) != 0) {
        return 100;
    }

    failure.code = NANGO_OK;
    failure.text[0] = '\0';

    rc = c->use(store);

    if (rc != 0) {
        return rc;
    }

    return nango_store_needs_recovery(store) ? 0 : 101;
}


static int
said(void)
{
    return (failure.code != NANGO_OK
            && strstr(failure.text, directory) != NULL) ? 0 : 102;
}


static int
nobody(void *data, uint64_t sequence, const nango_record_t *record)
{
    return 0;
}


static int
scan(nango_store_t *store)
{
    return nango_log_scan(store, 1, nobody, NULL, &failure) == -1 ? said() : 1;
}


static int
bounds(nango_store_t *store)
{
    uint64_t  first, last;

    return nango_log_bounds(store, &first, &last, &failure) != NANGO_OK
           ? said() : 1;
}


static int
begin(nango_store_t *store)
{
    reader = nango_reader_create(store);

    if (nango_reader_begin(reader, &failure) == NANGO_OK) {
        return 1;
    }

    nango_reader_free(reader);

    return said();
}


/* Inside of a snapshot that has begun, of a state whose pages are gone. */

static int
snapshots(int what)
{
    int                  rc;
    nango_tag_t          tag;
    nango_owned_t       *o;
    nango_counts_t       counts;
    unsigned char        key[NANGO_KEY_LEN];
    nango_connection_t   c;

    tag.name = S("end_user_id");
    tag.value = S("42");
    memset(key, 'k', sizeof(key));
    rc = 0;

    switch (what) {

    case 0:
        rc = nango_reader_connection(reader, key, &c, &failure);
        break;

    case 1:
        rc = nango_reader_changed(reader, S("prod"), &tag, 1, 0, &failure);
        break;

    case 2:
        rc = nango_reader_counts(reader, &counts, &failure) == NANGO_OK
             ? 0 : -1;
        break;

    case 3:
        o = nango_owned_open(reader, S("prod"), &tag, 1, 0, &failure);
        rc = -1;

        if (o != NULL) {
            while ((rc = nango_owned_next(o, &c, &failure)) == 1) {
                /* void */
            }

            nango_owned_close(o);
        }

        break;
    }

    snapshot_end(reader);

    return rc == -1 ? said() : 1;
}


static int
connection(nango_store_t *store)
{
    return snapshots(0);
}


static int
changed(nango_store_t *store)
{
    return snapshots(1);
}


static int
count(nango_store_t *store)
{
    return snapshots(2);
}


static int
owned_all(nango_store_t *store)
{
    return snapshots(3);
}


static int
commit(nango_store_t *store)
{
    nango_rc_e       rc;
    event_t          e = { .id = "c", .op = NANGO_OP_CREATION };
    nango_write_t   *job;
    nango_writer_t  *writer;

    e.hmac = 1000;
    job = job_make(&e);
    writer = nango_writer_create(store, REMEMBER);

    rc = nango_log_commit(writer, &job, 1, &failure);

    return (rc != NANGO_OK && job->result == NANGO_WRITE_FAILED) ? said() : 1;
}


static int
fold_more(nango_store_t *store)
{
    nango_folded_t        folded;
    nango_fold_options_t  options;

    memset(&options, 0, sizeof(options));
    options.now_ms = T0;
    options.retain_ms = HOUR;

    return nango_fold(store, &options, &folded, &failure) != NANGO_OK
           ? said() : 1;
}


static int
deliver(nango_store_t *store)
{
    owing_t                 o = { 0 };
    nango_rc_e              rc;
    nango_delivery_read_t   how = { .max_events = 100, .max_bytes = 65536 };

    rc = nango_delivery_read(store, &app, &how, &o.position, &o.more,
                             &o.deliveries, &o.settled, &o.nsettled, &o.size,
                             &failure);

    return (rc != NANGO_OK && o.deliveries == NULL && o.nsettled == 0)
           ? said() : 1;
}


static int
deliver_due(nango_store_t *store)
{
    owing_t  o = { 0 };

    return nango_delivery_due(store, &app, T0, 1, 1, NULL, NULL, &o.next_at,
                              &o.deliveries, &o.settled, &o.nsettled, &o.size,
                              &failure)
           != NANGO_OK ? said() : 1;
}


static int
settle_more(nango_store_t *store)
{
    nango_folded_t        folded;
    nango_settlement_t    s = { .cursor = 100 };
    nango_fold_options_t  options = { .now_ms = T0, .settlements = &s,
                                      .nsettlements = 1 };

    memcpy(s.key, app.key, NANGO_KEY_LEN);

    return nango_fold(store, &options, &folded, &failure) != NANGO_OK
           ? said() : 1;
}


static int
prune_all(nango_store_t *store)
{
    uint64_t               from;
    nango_pruned_t         pruned;
    nango_prune_options_t  options = { .now_ms = T0 + HOUR,
                                       .max_events = 1000 };
    from = 0;

    return nango_log_prune(store, &options, &from, &pruned, &failure)
           != NANGO_OK ? said() : 1;
}


/* Whoever acts by hand does not have to end. */

static int
forget_all(nango_store_t *store)
{
    int       more;
    uint64_t  n;

    return nango_delivery_forget(store, app.key, 10, &n, &more, &failure)
           == NANGO_EBROKEN ? said() : 1;
}


static void
no_ledger(void *data, const nango_ledger_t *l)
{
}


static void
no_stored(void *data, const nango_stored_t *s)
{
}


static int
ledgers(nango_store_t *store)
{
    int  rc;

    rc = nango_reader_ledgers(reader, no_ledger, NULL, &failure);
    snapshot_end(reader);

    return (rc == -1) ? said() : 1;
}


static int
all_stored(nango_store_t *store)
{
    int  rc;

    rc = nango_reader_stored(reader, no_stored, NULL, &failure);
    snapshot_end(reader);

    return (rc == -1) ? said() : 1;
}


static int
readers(nango_store_t *store)
{
    return nango_store_check_readers(store) == -1 ? 0 : 1;
}


static int
txnid(nango_store_t *store)
{
    return nango_store_log_txnid(store) == 0 ? 0 : 1;
}


static void
what_is_cut_is_an_error(void **state)
{
    int     i, code;

    static cut_t  cuts[] = {
        { "log/data.mdb", scan, 0 },
        { "log/data.mdb", bounds, 0 },
        { "log/data.mdb", begin, 0 },
        { "log/data.mdb", commit, 0 },
        { "state/data.mdb", connection, 1 },
        { "state/data.mdb", changed, 1 },
        { "state/data.mdb", count, 1 },
        { "state/data.mdb", owned_all, 1 },
        { "state/data.mdb", fold_more, 0 },
        { "state/data.mdb", settle_more, 0 },
        { "state/data.mdb", deliver, 0 },
        { "log/data.mdb", deliver, 0 },
        { "state/data.mdb", deliver_due, 0 },
        { "state/data.mdb", prune_all, 0 },
        { "log/data.mdb", prune_all, 0 },
        { "state/data.mdb", forget_all, 0 },
        { "state/data.mdb", ledgers, 1 },
        { "state/data.mdb", all_stored, 1 },
        { "log/lock.mdb", readers, 0 },
        { "log/lock.mdb", txnid, 0 }
    };

    for (i = 0; i < (int) (sizeof(cuts) / sizeof(cuts[0])); i++) {
        code = reap(spawn(cut, &cuts[i]));

        if (code != 0) {
            print_error("number %d, %s: %d\n", i, cuts[i].file, code);
            fail();
        }

        assert_int_equal(directory_remove(NULL), 0);
        assert_int_equal(mkdir(directory, 0700), 0);
    }
}


static volatile sig_atomic_t  handled;


static void
with_info(int signo, siginfo_t *info, void *context)
{
    handled = signo;
}


static void
without_info(int signo)
{
    handled = signo;
}


/* What is not about the store is for whom it was before. */

static int
sent(void *data)
{
    struct sigaction  sa;

    memset(&sa, 0, sizeof(sa));

    switch (*(int *) data) {

    case 0:
        sa.sa_flags = SA_SIGINFO;
        sa.sa_sigaction = with_info;
        break;

    case 1:
        sa.sa_handler = without_info;
        break;

    default:
        sa.sa_handler = SIG_DFL;
        break;
    }

    (void) sigaction(SIGBUS, &sa, NULL);

    (void) store_open();

    handled = 0;
    (void) kill(getpid(), SIGBUS);

    return handled == SIGBUS ? 0 : 1;
}


static void
a_signal_for_somebody_else_is_passed_on(void **state)
{
    static int  what[] = { 0, 1, 2 };

    assert_int_equal(reap(spawn(sent, &what[0])), 0);
    assert_int_equal(reap(spawn(sent, &what[1])), 0);
    assert_int_equal(reap(spawn(sent, &what[2])), -SIGBUS);
}


static void
put_event(nango_store_t *store, const char *name, size_t len)
{
    MDB_txn  *txn;
    MDB_val   key, val;

    key = nango_val(name, len);
    val = nango_val("x", 1);

    assert_int_equal(mdb_txn_begin(store->log, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, store->events, &key, &val, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
}


static void
refuse_events(nango_store_t *store, int last)
{
    uint64_t               a, b;
    event_t                e = { .id = "c", .op = NANGO_OP_CREATION };
    nango_write_t         *job;
    nango_writer_t        *writer;
    nango_folded_t         folded;
    nango_fold_options_t   options;

    memset(&options, 0, sizeof(options));
    options.now_ms = T0;
    options.retain_ms = HOUR;

    assert_int_equal(nango_log_bounds(store, &a, &b, &failure),
                     NANGO_EDAMAGED);
    assert_int_equal(nango_log_scan(store, 0, nobody, NULL, &failure), -1);
    assert_int_equal(failure.code, NANGO_EDAMAGED);

    if (!last) {
        return;
    }

    assert_int_equal(nango_fold(store, &options, &folded, &failure),
                     NANGO_EDAMAGED);

    e.hmac = 9;
    job = job_make(&e);
    writer = nango_writer_create(store, REMEMBER);
    assert_int_equal(nango_log_commit(writer, &job, 1, &failure),
                     NANGO_EDAMAGED);
    assert_int_equal(job->result, NANGO_WRITE_FAILED);
    nango_writer_free(writer);

    writer = nango_writer_create(store, 0);
    assert_int_equal(nango_log_commit(writer, &job, 1, &failure),
                     NANGO_EDAMAGED);
    assert_int_equal(job->result, NANGO_WRITE_FAILED);
    nango_writer_free(writer);
    job_free(job);
}


/* A key that is no sequence, at either end of the log. */

static void
what_is_no_sequence_is_damage(void **state)
{
    event_t         e = { .id = "c", .op = NANGO_OP_CREATION };
    nango_store_t  *store;

    store = store_open();
    e.hmac = 1;
    (void) append(store, &e);
    put_event(store, "\xff\xff", 2);
    refuse_events(store, 1);
    nango_store_close(store);

    assert_int_equal(directory_remove(NULL), 0);
    assert_int_equal(mkdir(directory, 0700), 0);

    store = store_open();
    e.hmac = 1;
    (void) append(store, &e);
    put_event(store, "\0\0\0\0\0\0\0\0", 9);
    refuse_events(store, 0);
    nango_store_close(store);
}


/* Another file of the same name, and whole. */

static void
a_file_in_place_of_another_is_seen(void **state)
{
    int             n;
    FILE           *from, *to;
    char            name[PATH_MAX + 64], other[PATH_MAX + 64], buf[4096];
    nango_store_t  *store;

    store = store_open();
    assert_ok(nango_store_look_after(store, &failure));

    snprintf(name, sizeof(name), "%s/log/data.mdb", directory);
    snprintf(other, sizeof(other), "%s/log/other", directory);

    from = fopen(name, "rb");
    to = fopen(other, "wb");
    assert_true(from != NULL && to != NULL);

    while ((n = (int) fread(buf, 1, sizeof(buf), from)) > 0) {
        assert_int_equal(fwrite(buf, 1, (size_t) n, to), n);
    }

    fclose(from);
    fclose(to);
    assert_int_equal(rename(other, name), 0);

    assert_int_equal(nango_store_look_after(store, &failure), NANGO_EBROKEN);
    assert_non_null(strstr(failure.text, "replaced"));
    assert_true(nango_store_needs_recovery(store));
    assert_ok(nango_store_recover(store, &failure));

    nango_store_close(store);
}


/* Who asks what went wrong decides by this whether to try again. */

static void
each_code_has_its_meaning(void **state)
{
    size_t          i;
    nango_store_t  *store;

    static const struct {
        int         rc;
        nango_rc_e  code;
        int         recover;
    } codes[] = {
        { 0, NANGO_OK, 0 },
        { ENOMEM, NANGO_ENOMEM, 0 },
        { ENOSPC, NANGO_EFULL, 0 },
        { EDQUOT, NANGO_EFULL, 0 },
        { EFBIG, NANGO_EFULL, 0 },
        { MDB_MAP_FULL, NANGO_EFULL, 0 },
        { MDB_CORRUPTED, NANGO_EDAMAGED, 0 },
        { MDB_PAGE_NOTFOUND, NANGO_EDAMAGED, 0 },
        { MDB_INVALID, NANGO_EDAMAGED, 0 },
        { MDB_NOTFOUND, NANGO_EDAMAGED, 0 },
        { MDB_VERSION_MISMATCH, NANGO_EVERSION, 0 },
        { MDB_BAD_VALSIZE, NANGO_EINVAL, 0 },
        { EIO, NANGO_EIO, 0 },
        { EROFS, NANGO_EIO, 0 },
        { MDB_READERS_FULL, NANGO_EIO, 0 },
        { MDB_PANIC, NANGO_EBROKEN, 1 },
        { MDB_BAD_TXN, NANGO_EBROKEN, 1 },
        { MDB_MAP_RESIZED, NANGO_ERESIZED, 1 }
    };

    store = store_open();

    for (i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        failure.code = NANGO_OK;

        assert_int_equal(nango_store_error(store, &failure, codes[i].rc, "f()",
                                           "log"),
                         codes[i].code);
        assert_int_equal(failure.code, codes[i].code);
        assert_int_equal(nango_store_needs_recovery(store), codes[i].recover);

        store->retry_at = 0;
        assert_ok(nango_store_recover(store, &failure));
    }

    nango_store_close(store);
}


/* Several threads meet the same fault, and go on looking. */

static void
faults_of_one_opening_count_once(void **state)
{
    int             i;
    uint64_t        retry_at;
    nango_guard_t   guard;
    nango_store_t  *store;

    store = store_open();

    memset(&guard, 0, sizeof(guard));
    guard.what = "its file cannot be read (SIGBUS)";

    assert_int_equal(nango_store_fault(store, &guard, -1, &failure),
                     NANGO_EBROKEN);
    retry_at = store->retry_at;

    for (i = 0; i < 20; i++) {
        assert_int_equal(nango_store_fault(store, &guard, -1, &failure),
                         NANGO_EBROKEN);
    }

    assert_sequence(store->retry_at, retry_at);
    assert_ok(nango_store_recover(store, &failure));
    assert_false(nango_store_needs_recovery(store));

    /* Once more, and opening it has not helped: not at once. */

    assert_int_equal(nango_store_fault(store, &guard, -1, &failure),
                     NANGO_EBROKEN);
    assert_true(store->retry_at > retry_at);
    assert_int_equal(nango_store_recover(store, &failure), NANGO_EBROKEN);

    store->retry_at = 0;
    assert_ok(nango_store_recover(store, &failure));

    nango_store_close(store);
}


/*
 * Thrown out of LMDB while it writes, a thread has the writer's lock until it
 * ends.  What it then wants to write has to be refused: it would wait for
 * itself.
 */

static nango_rc_e
thrown_out(void *data, nango_error_t *err)
{
    int             fd;
    MDB_txn        *txn;
    volatile char  *page;

    fd = memfd_create("no page", MFD_CLOEXEC);
    page = mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0);

    if (page == MAP_FAILED
        || nango_store_begin(data, 1, &txn, err) != NANGO_OK)
    {
        return NANGO_OK;
    }

    return (nango_rc_e) *page;
}


static int
writes_again(void *data)
{
    nango_rc_e             rc;
    nango_store_t         *store;
    nango_folded_t         folded;
    nango_fold_options_t   options;

    (void) alarm(10);

    store = store_open();

    rc = nango_store_within(store, 1, thrown_out, store, &failure);

    if (rc != NANGO_EWRECKED) {
        return 1;
    }

    memset(&options, 0, sizeof(options));
    failure.text[0] = '\0';

    rc = nango_fold(store, &options, &folded, &failure);

    return (rc == NANGO_EWRECKED) ? said() : 2;
}


static void
who_was_thrown_out_does_not_wait_for_itself(void **state)
{
    assert_int_equal(reap(spawn(writes_again, NULL)), 0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(what_is_cut_is_an_error),
        store_unit(what_is_no_sequence_is_damage),
        store_unit(a_file_in_place_of_another_is_seen),
        store_unit(each_code_has_its_meaning),
        store_unit(faults_of_one_opening_count_once),
        store_unit(who_was_thrown_out_does_not_wait_for_itself),
        store_unit(a_signal_for_somebody_else_is_passed_on)
    };

    return cmocka_run_group_tests_name("store guard", tests, NULL, NULL);
}
