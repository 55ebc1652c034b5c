/*
 * Copyright (C) nginx-nango authors
 */

#include "store_test.h"


/* LMDB itself, in a process of its own, on what the store is not open. */

typedef struct {
    const char           *file;
    const char           *name;
    const void           *data;         /* NULL: delete */
    size_t                len;
} meta_t;


static int
meta_child(void *data)
{
    meta_t  *m = data;

    char      path[PATH_MAX + 16];
    MDB_env  *env;
    MDB_txn  *txn;
    MDB_dbi   dbi;
    MDB_val   key, val;

    snprintf(path, sizeof(path), "%s/%s", directory, m->file);

    key = nango_val(m->name, strlen(m->name));
    val = nango_val(m->data, m->len);

    if (mdb_env_create(&env) != 0
        || mdb_env_set_maxdbs(env, 16) != 0
        || mdb_env_set_maxreaders(env, NANGO_STORE_MAXREADERS) != 0
        || mdb_env_open(env, path, MDB_NOTLS, 0600) != 0
        || mdb_txn_begin(env, NULL, 0, &txn) != 0
        || mdb_dbi_open(txn, "meta", 0, &dbi) != 0)
    {
        return 1;
    }

    if (m->data ? mdb_put(txn, dbi, &key, &val, 0)
                : mdb_del(txn, dbi, &key, NULL))
    {
        return 1;
    }

    if (mdb_txn_commit(txn) != 0) {
        return 1;
    }

    mdb_env_close(env);

    return 0;
}


static void
meta_set(const char *file, const char *name, const void *data, size_t len)
{
    meta_t  m = { file, name, data, len };

    assert_int_equal(reap(spawn(meta_child, &m)), 0);
}


static uint64_t
last(nango_store_t *store)
{
    uint64_t  first, n;

    assert_ok(nango_log_bounds(store, &first, &n, &failure));

    return n;
}


static event_t
creation(const char *id)
{
    event_t          e;
    static unsigned  hmac;

    memset(&e, 0, sizeof(e));
    e.id = id;
    e.op = NANGO_OP_CREATION;
    e.success = NANGO_SUCCESS_TRUE;
    e.tags = "{\"end_user_id\":\"1\"}";
    e.hmac = ++hmac;

    return e;
}


static mode_t
mode_of(const char *name)
{
    char         path[PATH_MAX + 64];
    struct stat  sb;

    snprintf(path, sizeof(path), "%s/%s", directory, name);
    assert_int_equal(stat(path, &sb), 0);

    return sb.st_mode & 07777;
}


static void
a_fresh_directory_becomes_a_store(void **state)
{
    int             i;
    mode_t          mask;
    nango_store_t  *store;

    mask = umask(0);
    store = store_open();
    assert_int_equal(nango_store_lead(store, &failure), 1);
    umask(mask);

    assert_string_equal(nango_store_path(store), directory);

    for (i = 0; nango_store_id(store)[i] == 0; i++) {
        assert_true(i < NANGO_STORE_ID_LEN);
    }

    assert_int_equal(mode_of("log"), 0700);
    assert_int_equal(mode_of("state"), 0700);
    assert_int_equal(mode_of("bodies"), 0700);
    assert_int_equal(mode_of("temp"), 0700);
    assert_int_equal(mode_of("log/data.mdb"), 0600);
    assert_int_equal(mode_of("state/data.mdb"), 0600);
    assert_int_equal(mode_of("state/lock.mdb"), 0600);
    assert_int_equal(mode_of("leader"), 0600);

    assert_sequence(last(store), 0);
    assert_sequence(fold(store).events, 0);

    nango_store_close(store);
}


static void
a_store_is_found_again(void **state)
{
    event_t         e;
    nango_store_t  *store;
    unsigned char   id[NANGO_STORE_ID_LEN];

    store = store_open();
    memcpy(id, nango_store_id(store), sizeof(id));
    e = creation("one");
    assert_sequence(append(store, &e), 1);
    fold(store);
    nango_store_close(store);

    store = store_open();
    assert_memory_equal(nango_store_id(store), id, sizeof(id));
    assert_sequence(last(store), 1);
    assert_sequence(counts(store).valid, 1);
    e = creation("two");
    assert_sequence(append(store, &e), 2);
    nango_store_close(store);
}


static void
two_stores_have_different_ids(void **state)
{
    nango_store_t  *store;
    unsigned char   id[NANGO_STORE_ID_LEN];

    store = store_open();
    memcpy(id, nango_store_id(store), sizeof(id));
    nango_store_close(store);

    remove_below("log");
    remove_below("state");

    store = store_open();
    assert_memory_not_equal(nango_store_id(store), id, sizeof(id));
    nango_store_close(store);
}


static void
a_path_that_is_not_there_is_an_error(void **state)
{
    nango_store_t          *store;
    nango_store_options_t   options;

    memset(&options, 0, sizeof(options));
    options.path = "/nonexistent/nango";
    options.size = SIZE;

    assert_int_equal(nango_store_open(&store, &options, &failure), NANGO_EIO);
    assert_null(store);
    assert_non_null(strstr(failure.text, "/nonexistent/nango"));
    assert_non_null(strstr(failure.text, "No such file"));

    options.path = "/dev/null";
    assert_int_equal(nango_store_open(&store, &options, &failure), NANGO_EIO);
}


static void
a_process_opens_a_store_once(void **state)
{
    nango_store_t  *store, *again;

    store = store_open();

    assert_int_equal(store_try(&again, SIZE), NANGO_EINVAL);
    assert_null(again);

    nango_store_close(store);

    store = store_open();
    nango_store_close(store);
}


static int
open_child(void *data)
{
    nango_store_t  *store;

    if (store_try(&store, SIZE) != NANGO_OK) {
        return 1;
    }

    nango_store_close(store);

    return 0;
}


static void
a_child_opens_what_its_parent_has_open(void **state)
{
    event_t         e;
    nango_store_t  *store;

    store = store_open();
    assert_int_equal(reap(spawn(open_child, NULL)), 0);

    e = creation("one");
    assert_sequence(append(store, &e), 1);

    nango_store_close(store);
}


static void
a_missing_state_is_made_from_the_log(void **state)
{
    event_t         e;
    nango_store_t  *store;
    unsigned char   id[NANGO_STORE_ID_LEN];

    store = store_open();
    memcpy(id, nango_store_id(store), sizeof(id));
    e = creation("one");
    append(store, &e);
    e = creation("two");
    append(store, &e);
    fold(store);
    nango_store_close(store);

    remove_below("state");

    store = store_open();
    assert_memory_equal(nango_store_id(store), id, sizeof(id));
    assert_sequence(counts(store).valid, 0);
    assert_sequence(fold(store).events, 2);
    assert_sequence(counts(store).valid, 2);
    nango_store_close(store);
}


static void
a_missing_log_goes_on_above_the_state(void **state)
{
    int             i;
    event_t         e;
    nango_store_t  *store;
    unsigned char   id[NANGO_STORE_ID_LEN];

    store = store_open();
    memcpy(id, nango_store_id(store), sizeof(id));

    for (i = 0; i < 7; i++) {
        e = creation("one");
        append(store, &e);
    }

    fold(store);
    nango_store_close(store);

    remove_below("log");

    store = store_open();
    assert_memory_equal(nango_store_id(store), id, sizeof(id));
    assert_sequence(last(store), 7);
    e = creation("two");
    assert_sequence(append(store, &e), 8);
    assert_sequence(fold(store).gap, 0);
    nango_store_close(store);
}


static void
an_older_log_goes_on_above_the_state(void **state)
{
    int             i;
    event_t         e;
    nango_store_t  *store;

    store = store_open();
    e = creation("one");
    append(store, &e);
    nango_store_close(store);

    rename_below("log", "old");

    /* the copy that is to come back, and a log that went on */

    store = store_open();

    for (i = 0; i < 5; i++) {
        e = creation("two");
        append(store, &e);
    }

    fold(store);
    nango_store_close(store);

    remove_below("log");
    rename_below("old", "log");

    store = store_open();
    assert_sequence(last(store), 5);
    e = creation("three");
    assert_sequence(append(store, &e), 6);
    assert_sequence(fold(store).gap, 0);
    nango_store_close(store);

    /* the floor stays where it is, also when nothing raises it */

    store = store_open();
    e = creation("four");
    assert_sequence(append(store, &e), 7);
    nango_store_close(store);
}


static void
a_log_made_anew_has_lost_what_is_below_its_floor(void **state)
{
    int                    i;
    event_t                e;
    nango_store_t         *store;
    nango_folded_t         folded;
    nango_reader_t        *reader;
    nango_fold_options_t   options;

    store = store_open();

    for (i = 0; i < 3; i++) {
        e = creation("one");
        append(store, &e);
    }

    nango_store_close(store);

    meta_set("log", "floor", "\x09\0\0\0\0\0\0\0", 8);

    store = store_open();

    /* after what it has, and only when all of that is applied */

    memset(&options, 0, sizeof(options));
    options.now_ms = T0;
    options.max_events = 2;

    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_sequence(folded.applied, 2);
    assert_sequence(folded.gap, 0);

    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_sequence(folded.from, 10);
    assert_sequence(folded.events, 1);
    assert_sequence(folded.applied, 9);
    assert_sequence(folded.gap, 6);
    assert_int_equal(folded.more, 0);

    reader = snapshot(store);
    assert_sequence(nango_reader_applied(reader), nango_reader_last(reader));
    snapshot_end(reader);

    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_sequence(folded.gap, 0);
    assert_int_equal(folded.committed, 0);

    e = creation("two");
    assert_sequence(append(store, &e), 10);
    assert_sequence(fold(store).gap, 0);
    nango_store_close(store);

    /* nothing at all */

    remove_below("log");
    remove_below("state");
    store = store_open();
    nango_store_close(store);

    meta_set("log", "floor", "\x09\0\0\0\0\0\0\0", 8);

    store = store_open();
    assert_ok(nango_fold(store, &options, &folded, &failure));
    assert_sequence(folded.from, 10);
    assert_sequence(folded.events, 0);
    assert_sequence(folded.applied, 9);
    assert_sequence(folded.gap, 9);
    assert_int_equal(folded.committed, 1);
    nango_store_close(store);

    store = store_open();
    folded = fold(store);
    assert_sequence(folded.applied, 9);
    assert_sequence(folded.gap, 0);
    nango_store_close(store);
}


static void
a_foreign_state_is_refused(void **state)
{
    event_t         e;
    nango_store_t  *store;

    store = store_open();
    e = creation("one");
    append(store, &e);
    nango_store_close(store);

    rename_below("log", "mine");
    remove_below("state");

    store = store_open();
    nango_store_close(store);

    remove_below("log");
    rename_below("mine", "log");

    assert_int_equal(store_try(&store, SIZE), NANGO_EFOREIGN);
    assert_null(store);

    /* and left as it is */

    assert_int_equal(store_try(&store, SIZE), NANGO_EFOREIGN);

    remove_below("state");
    store = store_open();
    assert_sequence(last(store), 1);
    nango_store_close(store);
}


static void
a_newer_schema_is_refused(void **state)
{
    nango_store_t  *store;

    store = store_open();
    nango_store_close(store);

    meta_set("log", "schema", "\x02\0\0\0", 4);
    assert_int_equal(store_try(&store, SIZE), NANGO_EVERSION);
    assert_non_null(strstr(failure.text, "/log"));

    meta_set("log", "schema", "\x01\0\0\0", 4);
    meta_set("state", "schema", "\0\0\0\x01", 4);
    assert_int_equal(store_try(&store, SIZE), NANGO_EVERSION);
    assert_non_null(strstr(failure.text, "/state"));

    meta_set("state", "schema", "\x01\0\0\0", 4);
    store = store_open();
    nango_store_close(store);
}


static void
a_newer_state_is_not_given_a_log(void **state)
{
    nango_store_t  *store;

    store = store_open();
    nango_store_close(store);

    meta_set("state", "schema", "\x02\0\0\0", 4);
    remove_below("log");

    assert_int_equal(store_try(&store, SIZE), NANGO_EVERSION);

    meta_set("state", "schema", "\x01\0\0\0", 4);
    store = store_open();
    nango_store_close(store);
}


/* LMDB would divide by it. */

static void
a_short_file_without_a_size_of_a_page_is_damage(void **state)
{
    int             fd;
    char            path[PATH_MAX + 64];
    uint32_t        none;
    nango_store_t  *store;

    store = store_open();
    nango_store_close(store);

    snprintf(path, sizeof(path), "%s/log/data.mdb", directory);

    fd = open(path, O_RDWR);
    assert_true(fd != -1);

    none = 0;

    assert_int_equal(pwrite(fd, &none, sizeof(none), 40), sizeof(none));
    assert_int_equal(ftruncate(fd, 4200), 0);
    assert_int_equal(store_try(&store, SIZE), NANGO_EDAMAGED);

    assert_int_equal(ftruncate(fd, 100), 0);
    assert_int_equal(store_try(&store, SIZE), NANGO_EDAMAGED);

    close(fd);
}


static void
meta_of_the_wrong_size_is_damage(void **state)
{
    nango_store_t  *store;

    store = store_open();
    nango_store_close(store);

    meta_set("log", "store", "short", 5);
    assert_int_equal(store_try(&store, SIZE), NANGO_EDAMAGED);
    meta_set("log", "store", NULL, 0);

    meta_set("state", "applied", "\x01", 1);
    assert_int_equal(store_try(&store, SIZE), NANGO_EDAMAGED);
    meta_set("state", "applied", NULL, 0);

    meta_set("log", "floor", "\x01", 1);
    assert_int_equal(store_try(&store, SIZE), NANGO_EDAMAGED);
    meta_set("log", "floor", NULL, 0);

    /* what had no id was given the state's */

    store = store_open();
    nango_store_close(store);
}


/* The sequence after the last one there can be would be 0. */

static void
a_sequence_that_cannot_be_is_damage(void **state)
{
    event_t          e;
    nango_store_t   *store;
    nango_write_t   *job;
    nango_writer_t  *writer;

    store = store_open();
    nango_store_close(store);

    meta_set("log", "floor", "\xff\xff\xff\xff\xff\xff\xff\xff", 8);

    store = store_open();
    writer = nango_writer_create(store, REMEMBER);
    assert_non_null(writer);

    e = creation("one");
    job = job_make(&e);

    assert_int_equal(nango_log_commit(writer, &job, 1, &failure),
                     NANGO_EDAMAGED);
    assert_int_equal(job->result, NANGO_WRITE_FAILED);
    assert_sequence(job->sequence, 0);

    job_free(job);
    nango_writer_free(writer);
    nango_store_close(store);

    /* the last one that can be said in JSON is none too many */

    meta_set("log", "floor", "\xfe\xff\xff\xff\xff\xff\xff\x7f", 8);

    store = store_open();
    assert_sequence(append(store, &e), INT64_MAX);
    nango_store_close(store);
}


static void
a_file_that_is_no_database_is_damage(void **state)
{
    int             fd;
    char            path[PATH_MAX + 64];
    nango_store_t  *store;

    store = store_open();
    nango_store_close(store);

    snprintf(path, sizeof(path), "%s/log/data.mdb", directory);
    fd = open(path, O_WRONLY);
    memset(path, 'x', sizeof(path));
    assert_int_equal(pwrite(fd, path, 200, 0), 200);
    assert_int_equal(pwrite(fd, path, 200, 4096), 200);
    close(fd);

    assert_int_equal(store_try(&store, SIZE), NANGO_EDAMAGED);
    assert_non_null(strstr(failure.text, "/log"));
}


typedef struct {
    int                   go;
    int                   going;
    int                   out;
} starter_t;


static int
starter_child(void *data)
{
    starter_t *s = data;

    char             c;
    event_t          e;
    uint64_t         sequence;
    nango_store_t   *store;

    close(s->going);

    if (read(s->go, &c, 1) != 0 || store_try(&store, SIZE) != NANGO_OK) {
        return 1;
    }

    e = creation("one");
    sequence = append(store, &e);

    if (write(s->out, nango_store_id(store), NANGO_STORE_ID_LEN)
        != NANGO_STORE_ID_LEN || sequence == 0)
    {
        return 1;
    }

    nango_store_close(store);

    return 0;
}


static void
processes_that_start_together_make_one_store(void **state)
{
    int              i, round, go[2], out[2];
    pid_t            pids[6];
    starter_t        s;
    unsigned char    id[NANGO_STORE_ID_LEN], other[NANGO_STORE_ID_LEN];
    nango_store_t   *store;

    for (round = 0; round < 10; round++) {
        assert_int_equal(pipe(go), 0);
        assert_int_equal(pipe(out), 0);

        s.go = go[0];
        s.going = go[1];
        s.out = out[1];

        for (i = 0; i < 6; i++) {
            pids[i] = spawn(starter_child, &s);
        }

        close(go[0]);
        close(go[1]);

        for (i = 0; i < 6; i++) {
            assert_int_equal(reap(pids[i]), 0);
            assert_int_equal(read(out[0], i ? other : id, sizeof(id)),
                             sizeof(id));
            assert_memory_equal(i ? other : id, id, sizeof(id));
        }

        close(out[0]);
        close(out[1]);

        store = store_open();
        assert_memory_equal(nango_store_id(store), id, sizeof(id));
        assert_sequence(last(store), 6);
        nango_store_close(store);

        remove_below("log");
        remove_below("state");
    }
}


static void
a_size_nobody_has_is_refused(void **state)
{
    nango_store_t  *store;

    assert_int_equal(store_try(&store, UINT64_MAX), NANGO_EINVAL);
}


static void
a_larger_map_is_kept(void **state)
{
    MDB_envinfo     info;
    nango_store_t  *store;

    assert_ok(store_try(&store, SIZE * 2));
    fold(store);
    append(store, &(event_t) { .other = 1 });
    nango_store_close(store);

    store = store_open();
    assert_int_equal(mdb_env_info(store->log, &info), 0);
    assert_true(info.me_mapsize >= SIZE * 2 + SIZE / 4);
    nango_store_close(store);
}


static void
there_is_room_for_tables_of_later(void **state)
{
    int             i;
    char            name[32];
    MDB_txn        *txn;
    MDB_dbi         dbi;
    nango_store_t  *store;

    store = store_open();

    assert_int_equal(mdb_txn_begin(store->state, NULL, 0, &txn), 0);

    for (i = 12; i < 32; i++) {
        snprintf(name, sizeof(name), "later%d", i);
        assert_int_equal(mdb_dbi_open(txn, name, MDB_CREATE, &dbi), 0);
    }

    assert_int_equal(mdb_txn_commit(txn), 0);
    nango_store_close(store);

    store = store_open();
    nango_store_close(store);
}


static void
transaction_ids_tell_of_commits(void **state)
{
    event_t         e;
    uint64_t        log, folded;
    nango_store_t  *store;

    store = store_open();
    log = nango_store_log_txnid(store);
    folded = nango_store_state_txnid(store);
    assert_true(log != 0 && folded != 0);

    e = creation("one");
    append(store, &e);
    assert_true(nango_store_log_txnid(store) > log);
    assert_true(nango_store_state_txnid(store) == folded);

    fold(store);
    assert_true(nango_store_state_txnid(store) > folded);
    folded = nango_store_state_txnid(store);

    fold(store);
    assert_true(nango_store_state_txnid(store) == folded);

    nango_store_close(store);
}


/* In a child: 0 it leads, 1 another does. */

static int
lead_child(void *data)
{
    int            *hold = data;
    nango_store_t  *store;

    if (store_try(&store, SIZE) != NANGO_OK) {
        return 2;
    }

    switch (nango_store_lead(store, &failure)) {

    case 0:
        return 1;

    case 1:
        break;

    default:
        return 2;
    }

    if (hold != NULL) {
        if (write(hold[1], "x", 1) != 1) {
            return 2;
        }

        for ( ;; ) {
            pause();
        }
    }

    return 0;
}


static void
one_process_leads(void **state)
{
    nango_store_t  *store;

    store = store_open();

    assert_int_equal(nango_store_lead(store, &failure), 1);
    assert_int_equal(nango_store_lead(store, &failure), 1);
    assert_int_equal(reap(spawn(lead_child, NULL)), 1);

    nango_store_resign(store);
    assert_int_equal(reap(spawn(lead_child, NULL)), 0);

    assert_int_equal(nango_store_lead(store, &failure), 1);
    nango_store_close(store);

    store = store_open();
    assert_int_equal(nango_store_lead(store, &failure), 1);
    nango_store_close(store);
}


static void
a_killed_leader_leads_no_longer(void **state)
{
    int             hold[2];
    char            c;
    pid_t           pid;
    nango_store_t  *store;

    assert_int_equal(pipe(hold), 0);

    pid = spawn(lead_child, hold);
    assert_int_equal(read(hold[0], &c, 1), 1);

    store = store_open();
    assert_int_equal(nango_store_lead(store, &failure), 0);

    kill(pid, SIGKILL);
    assert_int_equal(reap(pid), -SIGKILL);

    assert_int_equal(nango_store_lead(store, &failure), 1);
    nango_store_close(store);

    close(hold[0]);
    close(hold[1]);
}


static void
nothing_is_left_to_programs(void **state)
{
    char            name[64], path[PATH_MAX];
    ssize_t         n;
    int             fd;
    nango_store_t  *store;

    store = store_open();
    assert_int_equal(nango_store_lead(store, &failure), 1);

    for (fd = 3; fd < 64; fd++) {
        snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
        n = readlink(name, path, sizeof(path) - 1);

        if (n > 0) {
            path[n] = '\0';

            if (strncmp(path, directory, strlen(directory)) == 0) {
                assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
            }
        }
    }

    nango_store_close(store);
}


static void
a_lock_file_that_cannot_be_used_is_an_error(void **state)
{
    char            path[PATH_MAX + 64];
    nango_store_t  *store;

    snprintf(path, sizeof(path), "%s/leader", directory);
    assert_int_equal(mkdir(path, 0700), 0);

    store = store_open();
    assert_int_equal(nango_store_lead(store, &failure), -1);
    assert_int_equal(failure.code, NANGO_EIO);
    assert_non_null(strstr(failure.text, "leader"));
    nango_store_close(store);
}


static int
reader_child(void *data)
{
    int             *hold = data;
    nango_store_t   *store;

    if (store_try(&store, SIZE) != NANGO_OK) {
        return 1;
    }

    (void) snapshot(store);

    if (write(hold[1], "x", 1) != 1) {
        return 1;
    }

    for ( ;; ) {
        pause();
    }
}


static void
readers_that_died_are_removed(void **state)
{
    int             hold[2];
    char            c;
    pid_t           pid;
    nango_store_t  *store;

    assert_int_equal(pipe(hold), 0);

    store = store_open();
    assert_int_equal(nango_store_check_readers(store), 0);

    pid = spawn(reader_child, hold);
    assert_int_equal(read(hold[0], &c, 1), 1);
    assert_int_equal(nango_store_check_readers(store), 0);

    kill(pid, SIGKILL);
    reap(pid);
    assert_int_equal(nango_store_check_readers(store), 2);
    assert_int_equal(nango_store_check_readers(store), 0);

    nango_store_close(store);

    close(hold[0]);
    close(hold[1]);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(a_fresh_directory_becomes_a_store),
        store_unit(a_store_is_found_again),
        store_unit(two_stores_have_different_ids),
        store_unit(a_path_that_is_not_there_is_an_error),
        store_unit(a_process_opens_a_store_once),
        store_unit(a_child_opens_what_its_parent_has_open),
        store_unit(a_missing_state_is_made_from_the_log),
        store_unit(a_missing_log_goes_on_above_the_state),
        store_unit(an_older_log_goes_on_above_the_state),
        store_unit(a_log_made_anew_has_lost_what_is_below_its_floor),
        store_unit(a_foreign_state_is_refused),
        store_unit(a_newer_schema_is_refused),
        store_unit(a_newer_state_is_not_given_a_log),
        store_unit(a_short_file_without_a_size_of_a_page_is_damage),
        store_unit(meta_of_the_wrong_size_is_damage),
        store_unit(a_sequence_that_cannot_be_is_damage),
        store_unit(a_file_that_is_no_database_is_damage),
        store_unit(processes_that_start_together_make_one_store),
        store_unit(a_size_nobody_has_is_refused),
        store_unit(a_larger_map_is_kept),
        store_unit(there_is_room_for_tables_of_later),
        store_unit(transaction_ids_tell_of_commits),
        store_unit(one_process_leads),
        store_unit(a_killed_leader_leads_no_longer),
        store_unit(nothing_is_left_to_programs),
        store_unit(a_lock_file_that_cannot_be_used_is_an_error),
        store_unit(readers_that_died_are_removed)
    };

    return cmocka_run_group_tests_name("open", tests, NULL, NULL);
}
