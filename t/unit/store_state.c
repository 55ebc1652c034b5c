/*
 * Copyright (C) nginx-nango authors
 */

#include "store_test.h"


#define CONNECTIONS  300


/* What each connection of a test is: values of four tags, -1: not there. */

typedef struct {
    int                   tags[4];
    int                   dev;
    int                   gone;
} plain_t;


static const char  *tag_names[] = { "a", "b", "c", "d" };


static void
make_all(nango_store_t *store, plain_t *all, int n)
{
    int              i, j, k;
    char             ids[CONNECTIONS][16], tags[CONNECTIONS][256];
    char            *p;
    event_t          e;
    nango_write_t   *jobs[2 * CONNECTIONS];
    nango_writer_t  *w;

    w = nango_writer_create(store, 0);
    assert_non_null(w);
    k = 0;

    for (i = 0; i < n; i++) {
        snprintf(ids[i], sizeof(ids[i]), "c%d", i);
        p = tags[i];
        *p++ = '{';

        for (j = 0; j < 4; j++) {
            if (all[i].tags[j] >= 0) {
                p += sprintf(p, "%s\"%s\":\"%d\"", p[-1] == '{' ? "" : ",",
                             tag_names[j], all[i].tags[j]);
            }
        }

        strcpy(p, "}");

        memset(&e, 0, sizeof(e));
        e.environment = all[i].dev ? "dev" : "prod";
        e.op = NANGO_OP_CREATION;
        e.success = NANGO_SUCCESS_TRUE;
        e.id = ids[i];
        e.tags = tags[i];
        jobs[k++] = job_make(&e);
    }

    for (i = 0; i < n; i++) {
        if (!all[i].gone) {
            continue;
        }

        memset(&e, 0, sizeof(e));
        e.environment = all[i].dev ? "dev" : "prod";
        e.op = NANGO_OP_DELETION;
        e.id = ids[i];
        jobs[k++] = job_make(&e);
    }

    assert_ok(nango_log_commit(w, jobs, k, &failure));

    while (k) {
        job_free(jobs[--k]);
    }

    nango_writer_free(w);
    fold(store);
}


static void
random_all(plain_t *all, int n, int values)
{
    int  i, j;

    for (i = 0; i < n; i++) {
        for (j = 0; j < 4; j++) {
            all[i].tags[j] = random_below(4) ? (int) random_below(values << j)
                                             : -1;
        }

        all[i].dev = random_below(5) == 0;
        all[i].gone = random_below(10) == 0;
    }
}


static void
walks_over_tags_meet_where_all_are(void **state)
{
    int                  i, j, k, n, round, good, found;
    char                 values[4][16];
    plain_t              all[CONNECTIONS];
    uint64_t             before;
    nango_tag_t          tags[4];
    nango_owned_t       *o;
    nango_store_t       *store;
    nango_reader_t      *reader;
    nango_connection_t   c;
    int                  picked[4], wanted[4];

    store = store_open();
    random_all(all, CONNECTIONS, 2);
    make_all(store, all, CONNECTIONS);
    reader = snapshot(store);
    found = 0;

    for (round = 0; round < 400; round++) {

        /* one to four tags, any of them perhaps twice, some held by nobody */

        n = 1 + random_below(4);

        for (k = 0; k < n; k++) {
            picked[k] = random_below(4);
            wanted[k] = random_below((2 << picked[k]) + (random_below(9) == 0));
            snprintf(values[k], sizeof(values[k]), "%d", wanted[k]);
            tags[k].name = Z(tag_names[picked[k]]);
            tags[k].value = Z(values[k]);
        }

        before = random_below(3) ? 0 : 1 + random_below(CONNECTIONS);

        o = nango_owned_open(reader, S("prod"), tags, n, before, &failure);
        assert_non_null(o);

        for (i = CONNECTIONS - 1; i >= 0; i--) {
            good = !all[i].dev && !all[i].gone
                   && (before == 0 || (uint64_t) i + 1 < before);

            for (k = 0; k < n; k++) {
                good = good && all[i].tags[picked[k]] == wanted[k];
            }

            if (!good) {
                continue;
            }

            assert_int_equal(nango_owned_next(o, &c, &failure), 1);
            assert_sequence(c.created_sequence, i + 1);
            assert_int_equal(c.status, NANGO_STATUS_VALID);

            for (j = 0; j < n; j++) {
                assert_true(nango_str_eq(nango_connection_tag(&c,
                                                              tags[j].name),
                                         tags[j].value));
            }

            found++;
        }

        assert_int_equal(nango_owned_next(o, &c, &failure), 0);
        assert_int_equal(nango_owned_next(o, &c, &failure), 0);
        nango_owned_close(o);
    }

    assert_true(found > 1000);

    snapshot_end(reader);
    nango_store_close(store);
}


static void
pages_follow_one_another(void **state)
{
    int                  i, n, pages;
    plain_t              all[100];
    uint64_t             before;
    nango_tag_t          tag;
    nango_owned_t       *o;
    nango_store_t       *store;
    nango_reader_t      *reader;
    nango_connection_t   c;

    store = store_open();

    for (i = 0; i < 100; i++) {
        memset(&all[i], 0, sizeof(all[i]));
        all[i].gone = i % 7 == 0;
    }

    make_all(store, all, 100);

    tag.name = S("a");
    tag.value = S("0");
    before = 0;
    i = 100;

    for (pages = 0; pages < 100; pages++) {
        reader = snapshot(store);
        o = nango_owned_open(reader, S("prod"), &tag, 1, before, &failure);
        assert_non_null(o);

        for (n = 0; n < 9 && nango_owned_next(o, &c, &failure) == 1; n++) {
            do {
                i--;
            } while (all[i].gone);

            assert_sequence(c.created_sequence, i + 1);
            before = c.created_sequence;
        }

        nango_owned_close(o);
        snapshot_end(reader);

        if (n < 9) {
            break;
        }
    }

    assert_int_equal(i, 1);
    assert_int_equal(pages, 9);

    nango_store_close(store);
}


static void
an_owner_has_tags(void **state)
{
    nango_tag_t      tags[NANGO_TAGS_MAX + 1];
    nango_store_t   *store;
    nango_reader_t  *reader;

    memset(tags, 0, sizeof(tags));
    store = store_open();
    reader = snapshot(store);

    assert_null(nango_owned_open(reader, S("prod"), tags, 0, 0, &failure));
    assert_int_equal(failure.code, NANGO_EINVAL);
    assert_null(nango_owned_open(reader, S("prod"), tags, NANGO_TAGS_MAX + 1,
                                 0, &failure));

    snapshot_end(reader);
    nango_store_close(store);
}


static void
an_index_that_lies_is_not_believed(void **state)
{
    plain_t              all[2];
    MDB_txn             *txn;
    MDB_val              key, val;
    nango_store_t       *store;
    unsigned char        k[NANGO_OWNERS_KEY_LEN], c[NANGO_KEY_LEN];
    nango_reader_t      *reader;

    memset(all, 0, sizeof(all));
    all[0].tags[0] = 1;
    all[1].tags[0] = 2;

    store = store_open();
    make_all(store, all, 2);

    /* c1 (sequence 2, a=2) under a=1, in its own place and in another */

    assert_int_equal(nango_owner_key(k, S("prod"), S("a"), S("1")), 0);
    assert_int_equal(nango_connection_key(c, S("prod"), S("github"), S("c1")),
                     0);

    assert_int_equal(mdb_txn_begin(store->state, NULL, 0, &txn), 0);
    val = nango_val(c, sizeof(c));

    nango_put_be64(k + NANGO_KEY_LEN, ~(uint64_t) 2);
    key = nango_val(k, sizeof(k));
    assert_int_equal(mdb_put(txn, store->owners, &key, &val, 0), 0);

    assert_int_equal(nango_owner_key(k, S("prod"), S("a"), S("2")), 0);
    nango_put_be64(k + NANGO_KEY_LEN, ~(uint64_t) 0);
    key = nango_val(k, sizeof(k));
    assert_int_equal(mdb_put(txn, store->owners, &key, &val, 0), 0);
    nango_put_be64(k + NANGO_KEY_LEN, 0);
    key = nango_val(k, sizeof(k));
    assert_int_equal(mdb_put(txn, store->owners, &key, &val, 0), 0);

    assert_int_equal(mdb_txn_commit(txn), 0);

    reader = snapshot(store);
    assert_int_equal(owned(reader, "a", "1"), 1);
    assert_int_equal(owned(reader, "a", "2"), 1);
    snapshot_end(reader);

    nango_store_close(store);
}


static void
tags_and_ids_of_any_length_are_found(void **state)
{
    char                 id[NANGO_ID_MAX + 1], tags[2048], value[256];
    event_t              e;
    nango_store_t       *store;
    nango_reader_t      *reader;
    nango_connection_t   c;

    memset(id, 'i', NANGO_ID_MAX);
    id[NANGO_ID_MAX] = '\0';
    memset(value, 'v', 255);
    value[255] = '\0';
    snprintf(tags, sizeof(tags), "{\"a\":\"%s\"}", value);

    memset(&e, 0, sizeof(e));
    e.op = NANGO_OP_CREATION;
    e.success = NANGO_SUCCESS_TRUE;
    e.id = id;
    e.tags = tags;

    store = store_open();
    append(store, &e);
    fold(store);

    reader = snapshot(store);
    assert_int_equal(find(reader, id, &c), 1);
    assert_int_equal(c.connection_id.len, NANGO_ID_MAX);
    assert_int_equal(owned(reader, "a", value), 1);
    value[254] = '\0';
    assert_int_equal(owned(reader, "a", value), 0);
    snapshot_end(reader);

    nango_store_close(store);
}


static void
a_snapshot_does_not_move(void **state)
{
    plain_t              all[2];
    event_t              e;
    nango_store_t       *store;
    nango_reader_t      *reader, *other;
    nango_connection_t   c;

    memset(all, 0, sizeof(all));
    store = store_open();
    make_all(store, all, 1);

    reader = snapshot(store);
    assert_int_equal(find(reader, "c0", &c), 1);

    memset(&e, 0, sizeof(e));
    e.id = "c0";
    e.op = NANGO_OP_DELETION;
    append(store, &e);

    /* the log has it, the state not yet */

    other = snapshot(store);
    assert_sequence(nango_reader_last(other), 2);
    assert_sequence(nango_reader_applied(other), 1);
    nango_reader_end(other);

    fold(store);

    assert_sequence(nango_reader_last(reader), 1);
    assert_sequence(nango_reader_applied(reader), 1);
    assert_str(c.connection_id, "c0");
    assert_int_equal(owned(reader, "a", "0"), 1);

    assert_ok(nango_reader_begin(other, &failure));
    assert_sequence(nango_reader_applied(other), 2);
    assert_int_equal(owned(other, "a", "0"), 0);
    snapshot_end(other);

    nango_reader_end(reader);
    assert_ok(nango_reader_begin(reader, &failure));
    assert_sequence(nango_reader_applied(reader), 2);
    snapshot_end(reader);

    nango_store_close(store);
}


static void
the_floor_counts_as_last(void **state)
{
    plain_t          all[5];
    event_t          e;
    nango_store_t   *store;
    nango_reader_t  *reader;

    memset(all, 0, sizeof(all));
    store = store_open();
    make_all(store, all, 1);
    nango_store_close(store);

    rename_below("log", "old");

    store = store_open();
    make_all(store, all, 5);
    nango_store_close(store);

    /* an older log has a last one, and it is not what counts */

    remove_below("log");
    rename_below("old", "log");

    store = store_open();
    reader = snapshot(store);
    assert_sequence(nango_reader_last(reader), 6);
    assert_sequence(nango_reader_applied(reader), 6);
    nango_reader_end(reader);

    memset(&e, 0, sizeof(e));
    e.other = 1;
    assert_sequence(append(store, &e), 7);
    assert_ok(nango_reader_begin(reader, &failure));
    assert_sequence(nango_reader_last(reader), 7);
    snapshot_end(reader);

    nango_store_close(store);
}


/* The file is cut, which whoever reads its map learns by a signal. */

static void
what_was_read_is_no_part_of_the_map(void **state)
{
    char                 path[PATH_MAX + 64];
    plain_t              all[2];
    nango_tag_t          tag;
    nango_owned_t       *o;
    nango_store_t       *store;
    nango_reader_t      *reader;
    nango_connection_t   c;

    snprintf(path, sizeof(path), "%s/state/data.mdb", directory);

#ifdef __SANITIZE_THREAD__
    /* It delivers a fault late, and where it has no handler of ours. */
    skip();
#endif

    store = store_open();
    memset(all, 0, sizeof(all));
    make_all(store, all, 2);
    reader = snapshot(store);

    tag.name = S("a");
    tag.value = S("0");

    o = nango_owned_open(reader, S("prod"), &tag, 1, 0, &failure);
    assert_non_null(o);
    assert_int_equal(nango_owned_next(o, &c, &failure), 1);

    assert_int_equal(truncate(path, 8192), 0);

    assert_str(c.environment, "prod");
    assert_str(c.connection_id, "c1");
    assert_str(nango_connection_tag(&c, S("d")), "0");

    assert_int_equal(nango_owned_next(o, &c, &failure), -1);
    assert_int_equal(failure.code, NANGO_EBROKEN);
    assert_int_equal(find(reader, "c0", &c), -1);

    nango_owned_close(o);
    snapshot_end(reader);
    nango_store_close(store);
}


static void
a_reader_takes_one_place(void **state)
{
    int              i;
    MDB_envinfo      info;
    nango_store_t   *store;
    nango_reader_t  *reader;

    store = store_open();
    reader = nango_reader_create(store);

    for (i = 0; i < 3000; i++) {
        assert_ok(nango_reader_begin(reader, &failure));
        nango_reader_end(reader);
    }

    assert_int_equal(mdb_env_info(store->state, &info), 0);
    assert_true(info.me_numreaders <= 3);

    nango_reader_free(reader);

    for (i = 0; i < 3000; i++) {
        snapshot_end(snapshot(store));
    }

    assert_int_equal(mdb_env_info(store->state, &info), 0);
    assert_true(info.me_numreaders <= 3);

    nango_store_close(store);
}


typedef struct {
    unsigned char         keys[CONNECTIONS][NANGO_KEY_LEN];
    int                   n;
    int                   deleted;
    int                   stop;         /* after so many in one call */
    int                   calls;
} walked_t;


static int
walk(void *data, const nango_connection_t *c)
{
    walked_t *w = data;

    assert_true(w->n < CONNECTIONS);
    assert_int_equal(c->integration.len, sizeof("github") - 1);

    memcpy(w->keys[w->n++], c->key, NANGO_KEY_LEN);
    w->deleted += (c->status == NANGO_STATUS_DELETED);

    return ++w->calls == w->stop;
}


/* In portions of any size, each in a snapshot of its own. */

static void
all_connections_are_walked_over_once(void **state)
{
    int              i, rc, gone, portion, stop;
    plain_t          all[CONNECTIONS];
    walked_t         w;
    nango_store_t   *store;
    nango_reader_t  *reader;
    unsigned char    key[NANGO_KEY_LEN];

    store = store_open();
    random_all(all, CONNECTIONS, 2);
    make_all(store, all, CONNECTIONS);
    gone = 0;

    for (i = 0; i < CONNECTIONS; i++) {
        gone += all[i].gone;
    }

    for (portion = 1; portion <= 2 * CONNECTIONS; portion *= 7) {

        for (stop = 0; stop <= 3; stop += 3) {
            memset(&w, 0, sizeof(w));
            memset(key, 0, sizeof(key));
            w.stop = stop;

            do {
                w.calls = 0;
                reader = snapshot(store);
                rc = nango_reader_all(reader, key, portion, walk, &w,
                                      &failure);
                nango_reader_end(reader);
                nango_reader_free(reader);

                assert_true(rc == 0 || rc == 1);
            } while (rc == 1);

            assert_int_equal(w.n, CONNECTIONS);
            assert_int_equal(w.deleted, gone);

            for (i = 1; i < w.n; i++) {
                assert_true(memcmp(w.keys[i - 1], w.keys[i], NANGO_KEY_LEN)
                            < 0);
            }
        }
    }

    nango_store_close(store);
}


static void
damaged_records_are_walked_past(void **state)
{
    int              i, rc, portion;
    plain_t          all[50];
    MDB_txn         *txn;
    MDB_val          key, val;
    walked_t         w;
    nango_store_t   *store;
    nango_reader_t  *reader;
    unsigned char    k[NANGO_KEY_LEN], last[NANGO_KEY_LEN];

    memset(all, 0, sizeof(all));
    store = store_open();
    make_all(store, all, 50);

    /* the first and the last of all keys, and one of another version */

    assert_int_equal(mdb_txn_begin(store->state, NULL, 0, &txn), 0);

    for (i = 0; i < 2; i++) {
        memset(k, i ? 0xff : 0, sizeof(k));
        k[NANGO_KEY_LEN - 1] = 1;
        key = nango_val(k, sizeof(k));
        val = nango_val("\001 damaged", 9);
        assert_int_equal(mdb_put(txn, store->connections, &key, &val, 0), 0);
    }

    assert_int_equal(nango_connection_key(k, S("prod"), S("github"),
                                          S("c7")), 0);
    key = nango_val(k, sizeof(k));
    val = nango_val("\377", 1);
    assert_int_equal(mdb_put(txn, store->connections, &key, &val, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);

    for (portion = 1; portion <= 49; portion += 12) {
        memset(&w, 0, sizeof(w));
        memset(last, 0, sizeof(last));

        do {
            reader = snapshot(store);
            rc = nango_reader_all(reader, last, portion, walk, &w, &failure);
            snapshot_end(reader);
            assert_true(rc == 0 || rc == 1);
        } while (rc == 1);

        assert_int_equal(w.n, 49);
        assert_int_equal(last[0], 0xff);
        assert_int_equal(last[NANGO_KEY_LEN - 1], 1);
    }

    nango_store_close(store);
}


/* How many of an integration's a walk gives that looks at max at most. */

static int
only_of(nango_store_t *store, const char *name, const char *integration,
    size_t max)
{
    int                  n;
    uint64_t             before;
    nango_tag_t          tag;
    nango_owned_t       *o;
    nango_reader_t      *reader;
    nango_connection_t   c;

    tag.name = Z(name);
    tag.value = S("0");
    before = UINT64_MAX;

    reader = snapshot(store);
    o = nango_owned_open(reader, S("prod"), &tag, 1, 0, &failure);
    assert_non_null(o);
    nango_owned_only(o, Z(integration), max);

    for (n = 0; nango_owned_next(o, &c, &failure) == 1; n++) {
        assert_true(nango_str_eq(c.integration, Z(integration)));
        assert_true(c.created_sequence < before);
        before = c.created_sequence;
    }

    assert_int_equal(nango_owned_next(o, &c, &failure), 0);
    nango_owned_close(o);
    snapshot_end(reader);

    return n;
}


static int
only(nango_store_t *store, const char *integration, size_t max)
{
    return only_of(store, "a", integration, max);
}


/* mark NULL: cuts it off. */

static void
mark_all(nango_store_t *store, const unsigned char *mark)
{
    MDB_txn        *txn;
    MDB_val         key, val;
    MDB_cursor     *cursor;
    unsigned char   k[NANGO_OWNERS_KEY_LEN], v[NANGO_OWNERS_VALUE_LEN];

    assert_int_equal(mdb_txn_begin(store->state, NULL, 0, &txn), 0);
    assert_int_equal(mdb_cursor_open(txn, store->owners, &cursor), 0);

    while (mdb_cursor_get(cursor, &key, &val, MDB_NEXT) == 0) {
        memcpy(k, key.mv_data, sizeof(k));
        memcpy(v, val.mv_data, NANGO_KEY_LEN);

        if (mark) {
            memcpy(v + NANGO_KEY_LEN, mark, 4);
        }

        key = nango_val(k, sizeof(k));
        val = nango_val(v, mark ? sizeof(v) : NANGO_KEY_LEN);
        assert_int_equal(mdb_cursor_put(cursor, &key, &val, MDB_CURRENT), 0);
    }

    mdb_cursor_close(cursor);
    assert_int_equal(mdb_txn_commit(txn), 0);
}


static void
one_integration_is_told_from_the_others(void **state)
{
    int             i;
    char            id[16];
    event_t         e;
    nango_store_t  *store;
    unsigned char   mark[4];

    store = store_open();

    for (i = 0; i < 40; i++) {
        snprintf(id, sizeof(id), "c%d", i);
        memset(&e, 0, sizeof(e));
        e.op = NANGO_OP_CREATION;
        e.success = NANGO_SUCCESS_TRUE;
        e.id = id;
        e.integration = (i % 4) ? "slack" : "github";
        e.tags = "{\"a\":\"0\"}";
        append(store, &e);
    }

    fold(store);

    /* with marks, and as the table was before there were any */

    for (i = 0; i < 2; i++) {
        assert_int_equal(only(store, "github", 1000), 10);
        assert_int_equal(only(store, "slack", 1000), 30);
        assert_int_equal(only(store, "x", 1000), 0);
        assert_int_equal(only(store, "github", 0), 0);
        assert_int_equal(only(store, "github", 8), 2);
        assert_int_equal(only(store, "slack", 8), 6);
        assert_int_equal(only(store, "github", 40), 10);

        mark_all(store, NULL);
    }

    /* of one that has the same mark it is not taken */

    nango_put_le(mark, nango_integration_mark(S("slack")), 4);
    mark_all(store, mark);
    assert_int_equal(only(store, "slack", 1000), 30);
    assert_int_equal(only(store, "github", 1000), 0);

    nango_store_close(store);
}


/* In one batch, whose writes move what it has read. */

static void
tags_that_come_later_are_marked_as_well(void **state)
{
    int             i, j;
    char            id[16];
    event_t         e;
    nango_store_t  *store;

    store = store_open();

    for (j = 0; j < 2; j++) {
        for (i = 0; i < 200; i++) {
            snprintf(id, sizeof(id), "c%d", i);
            memset(&e, 0, sizeof(e));
            e.op = j ? NANGO_OP_REFRESH : NANGO_OP_CREATION;
            e.success = j ? NANGO_SUCCESS_FALSE : NANGO_SUCCESS_TRUE;
            e.id = id;
            e.integration = (i % 4) ? "slack" : "github";
            e.tags = j ? "{\"a\":\"0\",\"b\":\"0\"}" : "{\"a\":\"0\"}";
            append(store, &e);
        }
    }

    fold(store);

    assert_int_equal(only_of(store, "b", "github", 1000), 50);
    assert_int_equal(only_of(store, "b", "slack", 1000), 150);

    nango_store_close(store);
}


static void
the_state_alone_is_read(void **state)
{
    int                  i;
    event_t              e;
    nango_store_t       *store;
    nango_reader_t      *reader;
    nango_connection_t   c;

    memset(&e, 0, sizeof(e));
    e.op = NANGO_OP_CREATION;
    e.success = NANGO_SUCCESS_TRUE;
    e.id = "c0";
    e.tags = "{}";

    store = store_open();
    append(store, &e);
    fold(store);

    reader = nango_reader_create(store);

    for (i = 0; i < 3; i++) {
        assert_ok(nango_reader_begin_state(reader, &failure));
        assert_int_equal(find(reader, "c0", &c), 1);
        nango_reader_end(reader);

        assert_ok(nango_reader_begin(reader, &failure));
        assert_sequence(nango_reader_last(reader), i + 1);
        assert_sequence(nango_reader_applied(reader), i + 1);
        nango_reader_end(reader);

        e.op = NANGO_OP_OVERRIDE;
        append(store, &e);
        fold(store);
    }

    nango_reader_free(reader);
    nango_store_close(store);
}


static void
too_many_readers_are_told_so(void **state)
{
    int              i;
    nango_rc_e       rc;
    nango_store_t   *store;
    nango_reader_t  *readers[NANGO_STORE_MAXREADERS + 1];

    store = store_open();
    rc = NANGO_OK;

    for (i = 0; i <= NANGO_STORE_MAXREADERS; i++) {
        readers[i] = nango_reader_create(store);
        assert_non_null(readers[i]);

        rc = nango_reader_begin(readers[i], &failure);

        if (rc != NANGO_OK) {
            break;
        }

        nango_reader_end(readers[i]);
    }

    assert_int_equal(rc, NANGO_EIO);
    assert_non_null(strstr(failure.text, "MDB_READERS_FULL"));
    assert_false(nango_store_needs_recovery(store));

    /* one that leaves makes room for another */

    nango_reader_free(readers[0]);
    assert_ok(nango_reader_begin(readers[i], &failure));
    nango_reader_end(readers[i]);

    for ( /* void */ ; i > 0; i--) {
        nango_reader_free(readers[i]);
    }

    nango_store_close(store);
}


/* What it says is full is full, and one event less is not. */

static void
how_much_there_is_is_what_fills_the_log(void **state)
{
    uint64_t          size;
    nango_usage_t     empty, usage, full;
    nango_write_t    *job;
    nango_store_t    *store;
    nango_reader_t   *reader;
    nango_writer_t   *writer;

    size = 1024 * 1024;

    assert_ok(store_try(&store, size));

    reader = nango_reader_create(store);
    writer = nango_writer_create(store, REMEMBER);

    assert_non_null(reader);
    assert_non_null(writer);

    assert_ok(nango_reader_begin(reader, &failure));
    assert_ok(nango_reader_usage(reader, &empty, &failure));
    nango_reader_end(reader);

    assert_sequence(empty.first, 0);
    assert_sequence(empty.events, 0);
    assert_sequence(empty.log_bytes, 0);
    assert_sequence(empty.log_size, size);
    assert_true(empty.state_bytes > 0);

    full = empty;

    for ( ;; ) {
        job = job_make(&(event_t) {
            .id = "c", .op = NANGO_OP_CREATION, .pad = 50000,
            .success = NANGO_SUCCESS_TRUE, .hmac = (unsigned) full.events + 1
        });

        if (nango_log_commit(writer, &job, 1, &failure) != NANGO_OK) {
            break;
        }

        assert_ok(nango_reader_begin(reader, &failure));
        assert_ok(nango_reader_usage(reader, &usage, &failure));
        nango_reader_end(reader);

        assert_true(full.log_bytes + job->len <= size);
        assert_true(usage.log_bytes >= full.log_bytes + 50000);
        assert_sequence(usage.first, 1);
        assert_sequence(usage.events, full.events + 1);

        full = usage;
        job_free(job);
    }

    assert_int_equal(job->result, NANGO_WRITE_FULL);
    assert_true(full.log_bytes + job->len > size);
    assert_true(full.events > 10);

    job_free(job);
    fold_at(store, 0, HOUR, 0);

    assert_ok(nango_reader_begin(reader, &failure));
    assert_ok(nango_reader_usage(reader, &usage, &failure));
    nango_reader_end(reader);

    assert_true(usage.state_bytes >= empty.state_bytes);

    nango_writer_free(writer);
    nango_reader_free(reader);
    nango_store_close(store);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(walks_over_tags_meet_where_all_are),
        store_unit(all_connections_are_walked_over_once),
        store_unit(damaged_records_are_walked_past),
        store_unit(one_integration_is_told_from_the_others),
        store_unit(tags_that_come_later_are_marked_as_well),
        store_unit(the_state_alone_is_read),
        store_unit(pages_follow_one_another),
        store_unit(an_owner_has_tags),
        store_unit(an_index_that_lies_is_not_believed),
        store_unit(tags_and_ids_of_any_length_are_found),
        store_unit(a_snapshot_does_not_move),
        store_unit(the_floor_counts_as_last),
        store_unit(what_was_read_is_no_part_of_the_map),
        store_unit(a_reader_takes_one_place),
        store_unit(too_many_readers_are_told_so),
        store_unit(how_much_there_is_is_what_fills_the_log)
    };

    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
