/*
 * Copyright (C) nginx-nango authors
 */

#include "store_test.h"

#include "nango_show.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#endif


#define EVENTS  600


/* What visitors have seen, and what they answer at which one. */

typedef struct {
    uint64_t              seen[EVENTS];
    size_t                n;
    uint64_t              at;
    int                   answer;
    nango_text_t          text;
    unsigned              show;
} view_t;

/* An event of the plain model. */

typedef struct {
    int                   dev;
    int                   connection;   /* -1: none */
    nango_type_e          type;
} plain_t;


static view_t  view;


static int
visit(void *data, const nango_logged_t *event)
{
    view_t *v = data;

    if (event->sequence == v->at && v->answer == 2) {
        return 2;
    }

    assert_true(v->n < EVENTS);
    v->seen[v->n++] = event->sequence;

    /* Its strings are whole and no part of the map. */

    assert_null(event->record->headers.data);
    assert_true(event->record->environment.len > 0);

    nango_text_free(&v->text);
    nango_show_head(&v->text, event, v->show);
    nango_show_owner(&v->text,
                     event->connection ? event->connection->tags : NULL,
                     event->connection ? event->connection->ntags : 0);
    nango_show_body(&v->text, event->record, v->show);
    assert_int_equal(v->text.failed, 0);

    return (event->sequence == v->at) ? v->answer : 0;
}


static nango_wanted_t
want(const char *environment, const nango_tag_t *owner, size_t n)
{
    nango_wanted_t  wanted;

    memset(&wanted, 0, sizeof(wanted));

    if (environment != NULL) {
        wanted.environment = Z(environment);
    }

    wanted.owner = owner;
    wanted.nowner = n;
    wanted.max_events = 1000;
    wanted.max_bytes = 100 * 1024 * 1024;

    nango_text_free(&view.text);
    memset(&view, 0, sizeof(view));

    return wanted;
}


static int
read_from(nango_store_t *store, const nango_wanted_t *wanted,
    uint64_t *position)
{
    int              rc;
    nango_reader_t  *reader;

    reader = snapshot(store);
    rc = nango_reader_events(reader, wanted, position, visit, &view, &failure);
    snapshot_end(reader);

    return rc;
}


static void
assert_seen(size_t n, const uint64_t *expected)
{
    size_t  i;

    assert_int_equal(view.n, n);

    for (i = 0; i < n; i++) {
        assert_sequence(view.seen[i], expected[i]);
    }
}


#define assert_saw(...)                                                       \
    do {                                                                      \
        const uint64_t  _seen[] = { __VA_ARGS__ };                            \
        assert_seen(sizeof(_seen) / sizeof(_seen[0]), _seen);                 \
    } while (0)


static uint64_t
made(nango_store_t *store, event_t e)
{
    static unsigned  hmac;

    e.hmac = ++hmac;

    return append(store, &e);
}


static void
what_is_after_a_position_in_order(void **state)
{
    int             i;
    uint64_t        position;
    nango_store_t  *store;
    nango_wanted_t  wanted;

    store = store_open();
    wanted = want(NULL, NULL, 0);

    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_sequence(position, 0);

    for (i = 0; i < 5; i++) {
        (void) made(store, (event_t) { .id = "c", .op = NANGO_OP_REFRESH });
    }

    (void) fold(store);

    /* What is not applied is not there yet. */

    (void) made(store, (event_t) { .id = "c", .op = NANGO_OP_REFRESH });

    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_saw(1, 2, 3, 4, 5);
    assert_sequence(position, 5);

    wanted = want(NULL, NULL, 0);
    position = 3;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_saw(4, 5);

    (void) fold(store);

    wanted = want(NULL, NULL, 0);
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_saw(6);
    assert_sequence(position, 6);

    /* From the future there is nothing, and it stays there. */

    position = 9;
    wanted = want(NULL, NULL, 0);
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_int_equal(view.n, 0);
    assert_sequence(position, 9);

    nango_store_close(store);
}


static void
a_visitor_and_bounds_stop_it(void **state)
{
    int             i;
    uint64_t        position;
    nango_store_t  *store;
    nango_wanted_t  wanted;

    store = store_open();

    for (i = 0; i < 6; i++) {
        (void) made(store, (event_t) { .id = "c", .op = NANGO_OP_REFRESH,
                                       .pad = 20000 });
    }

    (void) fold(store);

    wanted = want(NULL, NULL, 0);
    view.at = 3;
    view.answer = 1;
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 1);
    assert_saw(1, 2, 3);
    assert_sequence(position, 3);

    wanted = want(NULL, NULL, 0);
    view.at = 5;
    view.answer = 2;
    assert_int_equal(read_from(store, &wanted, &position), 1);
    assert_saw(4);
    assert_sequence(position, 4);

    /* After the last one there is nothing more. */

    wanted = want(NULL, NULL, 0);
    view.at = 6;
    view.answer = 1;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_saw(5, 6);
    assert_sequence(position, 6);

    wanted = want(NULL, NULL, 0);
    wanted.max_events = 2;
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 1);
    assert_saw(1, 2);
    assert_sequence(position, 2);

    wanted = want(NULL, NULL, 0);
    wanted.max_bytes = 40000;
    assert_int_equal(read_from(store, &wanted, &position), 1);
    assert_saw(3, 4);

    /* One at least, whatever the bounds. */

    wanted = want(NULL, NULL, 0);
    wanted.max_events = 0;
    wanted.max_bytes = 0;
    assert_int_equal(read_from(store, &wanted, &position), 1);
    assert_saw(5);

    /* What is not wanted counts as well. */

    wanted = want("dev", NULL, 0);
    wanted.max_events = 4;
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 1);
    assert_int_equal(view.n, 0);
    assert_sequence(position, 4);

    nango_store_close(store);
}


static void
whose_it_is_follows_from_its_connection_now(void **state)
{
    uint64_t        position;
    nango_tag_t     one[] = { { S("u"), S("1") }, { S("o"), S("a") } };
    nango_tag_t     two[] = { { S("u"), S("2") } };
    nango_store_t  *store;
    nango_wanted_t  wanted;

    store = store_open();

    (void) made(store, (event_t) { .id = "c", .op = NANGO_OP_CREATION,
        .success = NANGO_SUCCESS_TRUE,
        .tags = "{\"u\":\"1\",\"o\":\"a\"}" });
    (void) made(store, (event_t) { .id = "c", .type = NANGO_TYPE_SYNC });
    (void) made(store, (event_t) { .id = "d", .op = NANGO_OP_CREATION,
        .success = NANGO_SUCCESS_TRUE, .tags = "{\"u\":\"1\"}" });
    (void) made(store, (event_t) { .id = "unknown",
                                   .type = NANGO_TYPE_FORWARD });
    (void) made(store, (event_t) { .other = 1 });
    (void) fold(store);

    wanted = want("prod", one, 1);
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_saw(1, 2, 3);

    wanted = want("prod", one, 2);
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_saw(1, 2);

    wanted = want("prod", one, 1);
    wanted.type = S("sync");
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_saw(2);
    assert_sequence(position, 5);

    wanted = want("dev", one, 1);
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_int_equal(view.n, 0);

    wanted = want("prod", NULL, 0);
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_saw(1, 2, 3, 4, 5);

    /* Given away, without what was before; and deleted. */

    (void) made(store, (event_t) { .id = "c", .op = NANGO_OP_OVERRIDE,
        .success = NANGO_SUCCESS_TRUE, .tags = "{\"u\":\"2\"}" });
    (void) made(store, (event_t) { .id = "c", .op = NANGO_OP_DELETION });
    (void) fold(store);

    wanted = want("prod", one, 1);
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_saw(3);

    wanted = want("prod", two, 1);
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_saw(6, 7);

    /* What stays the same makes no difference. */

    (void) made(store, (event_t) { .id = "e", .op = NANGO_OP_CREATION,
        .success = NANGO_SUCCESS_TRUE, .tags = "{\"u\":\"2\"}" });
    (void) made(store, (event_t) { .id = "e", .op = NANGO_OP_OVERRIDE,
        .success = NANGO_SUCCESS_TRUE,
        .tags = "{\"u\":\"2\",\"o\":\"b\"}" });
    (void) fold(store);

    wanted = want("prod", two, 1);
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_saw(6, 7, 8, 9);

    nango_store_close(store);
}


static void
random_owners_as_a_plain_model_has_them(void **state)
{
    int               i, j, k;
    char              id[16], tags[64], value[2][8];
    size_t            n;
    plain_t           plain[EVENTS + 1];
    uint64_t          position, expected[EVENTS], start;
    nango_tag_t       owner[2];
    nango_store_t    *store;
    nango_wanted_t    wanted;

    /* Connection i of prod has a = i % 3 and b = i % 2; of dev, a = 0. */

    store = store_open();

    for (i = 1; i <= EVENTS; i++) {
        plain[i].dev = random_below(4) == 0;
        plain[i].connection = (int) random_below(13) - 1;
        plain[i].type = random_below(3) ? NANGO_TYPE_AUTH : NANGO_TYPE_SYNC;

        if (i <= 24) {
            plain[i].dev = i > 12;
            plain[i].connection = (i - 1) % 12;
            plain[i].type = NANGO_TYPE_AUTH;
        }

        j = plain[i].connection;
        snprintf(id, sizeof(id), "c%d", j);
        snprintf(tags, sizeof(tags), "{\"a\":\"%d\",\"b\":\"%d\"}",
                 plain[i].dev ? 0 : j % 3, j % 2);

        assert_sequence(made(store, (event_t) {
            .environment = plain[i].dev ? "dev" : "prod",
            .id = (j >= 0) ? id : NULL, .tags = tags,
            .type = plain[i].type,
            .op = (i <= 24) ? NANGO_OP_CREATION
                  : plain[i].type == NANGO_TYPE_AUTH ? NANGO_OP_REFRESH
                                                     : NANGO_OP_NONE,
            .success = NANGO_SUCCESS_TRUE }), i);
    }

    (void) fold(store);

    owner[0].name = S("a");
    owner[1].name = S("b");

    for (i = 0; i < 300; i++) {
        j = (int) random_below(4);
        k = (int) random_below(3);

        snprintf(value[0], sizeof(value[0]), "%d", j);
        snprintf(value[1], sizeof(value[1]), "%d", k);
        owner[0].value = Z(value[0]);
        owner[1].value = Z(value[1]);

        wanted = want("prod", owner, random_below(3));
        start = random_below(EVENTS);
        position = start;

        if (random_below(2)) {
            wanted.type = S("sync");
        }

        for (n = 0; start++ < EVENTS; /* void */ ) {
            if (!plain[start].dev
                && (wanted.type.data == NULL
                    || plain[start].type == NANGO_TYPE_SYNC)
                && (wanted.nowner == 0
                    || (plain[start].connection >= 0
                        && plain[start].connection % 3 == j))
                && (wanted.nowner < 2 || plain[start].connection % 2 == k))
            {
                expected[n++] = start;
            }
        }

        wanted.max_events = 1 + random_below(100);

        while ((j = read_from(store, &wanted, &position)) == 1) {
            /* void */
        }

        assert_int_equal(j, 0);
        assert_sequence(position, EVENTS);
        assert_seen(n, expected);
    }

    nango_store_close(store);
}


static void
put(MDB_env *env, MDB_dbi dbi, MDB_val key, MDB_val val)
{
    MDB_txn  *txn;

    assert_int_equal(mdb_txn_begin(env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, dbi, &key, &val, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
}


static void
what_cannot_be_read_is_passed_over(void **state)
{
    uint64_t         position;
    nango_tag_t      one[] = { { S("u"), S("1") } };
    unsigned char    key[NANGO_KEY_LEN], sequence[8];
    nango_store_t   *store;
    nango_wanted_t   wanted;

    store = store_open();

    (void) made(store, (event_t) { .id = "c", .op = NANGO_OP_CREATION,
        .success = NANGO_SUCCESS_TRUE, .tags = "{\"u\":\"1\"}" });
    (void) made(store, (event_t) { .id = "c", .type = NANGO_TYPE_SYNC });
    (void) made(store, (event_t) { .id = "c", .type = NANGO_TYPE_SYNC });
    (void) made(store, (event_t) { .id = "c", .type = NANGO_TYPE_SYNC });
    (void) fold(store);

    nango_put_be64(sequence, 2);
    put(store->log, store->events, nango_val(sequence, 8),
        nango_val("\1damaged", 8));
    nango_put_be64(sequence, 3);
    put(store->log, store->events, nango_val(sequence, 8),
        nango_val("\2unknown", 8));

    wanted = want("prod", one, 1);
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_saw(1, 4);

    /* A connection that cannot be read is nobody's. */

    assert_int_equal(nango_connection_key(key, S("prod"), S("github"),
                                          S("c")), 0);
    put(store->state, store->connections, nango_val(key, NANGO_KEY_LEN),
        nango_val("\1damaged", 8));

    wanted = want("prod", one, 1);
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_int_equal(view.n, 0);

    wanted = want("prod", NULL, 0);
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_saw(1, 4);

    /* One of another name under that key is another's. */

    nango_store_close(store);
}


static void
a_connection_is_told_by_its_name(void **state)
{
    uint64_t             position;
    nango_tag_t          one[] = { { S("u"), S("1") } };
    unsigned char        key[NANGO_KEY_LEN], record[512];
    nango_store_t       *store;
    nango_wanted_t       wanted;
    nango_connection_t   c;

    store = store_open();

    (void) made(store, (event_t) { .id = "c", .type = NANGO_TYPE_SYNC });
    (void) fold(store);

    assert_int_equal(nango_connection_key(key, S("prod"), S("github"),
                                          S("c")), 0);

    memset(&c, 0, sizeof(c));
    c.status = NANGO_STATUS_VALID;
    c.environment = S("prod");
    c.integration = S("github");
    c.connection_id = S("another");
    c.tags[0] = one[0];
    c.ntags = 1;
    assert_true(nango_connection_size(&c) < sizeof(record));
    nango_connection_encode(&c, record);
    put(store->state, store->connections, nango_val(key, NANGO_KEY_LEN),
        nango_val(record, nango_connection_size(&c)));

    wanted = want("prod", one, 1);
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);
    assert_int_equal(view.n, 0);

    nango_store_close(store);
}


static int
first_of(nango_reader_t *reader, uint64_t *first)
{
    return nango_reader_first(reader, S("prod"), first, &failure);
}


static void
the_first_that_is_kept(void **state)
{
    int              i;
    MDB_txn         *txn;
    MDB_val          key;
    uint64_t         first;
    nango_store_t   *store;
    nango_reader_t  *reader;
    unsigned char    sequence[8];

    store = store_open();

    reader = snapshot(store);
    assert_int_equal(first_of(reader, &first), 0);
    assert_sequence(first, 1);
    snapshot_end(reader);

    for (i = 0; i < 3; i++) {
        (void) made(store, (event_t) { .id = "c", .type = NANGO_TYPE_SYNC });
    }

    for (i = 1; i <= 3; i++) {
        reader = snapshot(store);
        assert_int_equal(first_of(reader, &first), 0);
        assert_sequence(first, i);
        snapshot_end(reader);

        nango_put_be64(sequence, i);
        key = nango_val(sequence, 8);
        assert_int_equal(mdb_txn_begin(store->log, NULL, 0, &txn), 0);
        assert_int_equal(mdb_del(txn, store->events, &key, NULL), 0);
        assert_int_equal(mdb_txn_commit(txn), 0);
    }

    nango_store_close(store);
}


static void
a_key_that_is_no_sequence_is_an_error(void **state)
{
    uint64_t         position, first;
    nango_store_t   *store;
    nango_reader_t  *reader;
    nango_wanted_t   wanted;

    store = store_open();
    (void) made(store, (event_t) { .id = "c", .type = NANGO_TYPE_SYNC });
    (void) made(store, (event_t) { .id = "c", .type = NANGO_TYPE_SYNC });
    (void) fold(store);

    put(store->log, store->events, nango_val("\0\0\0\0\0\0\0\1x", 9),
        nango_val("x", 1));

    wanted = want("prod", NULL, 0);
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), -1);
    assert_int_equal(failure.code, NANGO_EDAMAGED);
    assert_sequence(position, 1);

    put(store->log, store->events, nango_val("\0", 1), nango_val("x", 1));

    reader = snapshot(store);
    assert_int_equal(first_of(reader, &first), -1);
    assert_int_equal(failure.code, NANGO_EDAMAGED);
    snapshot_end(reader);

    nango_store_close(store);
}


/* The log's file is cut, or the state's, under a reader. */

static void
a_disk_that_cannot_read_is_an_error(void **state)
{
    int              i, log;
    char             id[16], path[PATH_MAX + 64];
    uint64_t         position, first;
    nango_store_t   *store;
    nango_reader_t  *reader;
    nango_wanted_t   wanted;

#ifdef __SANITIZE_THREAD__
    /* It delivers a fault late, and where it has no handler of ours. */
    skip();
#endif

#ifdef __SANITIZE_ADDRESS__
    /* What LMDB had in its hands then nobody can give back. */
    __lsan_disable();
#endif

    for (log = 0; log < 2; log++) {
        store = store_open();

        for (i = 0; i < 100; i++) {
            snprintf(id, sizeof(id), "c%d", i);
            (void) made(store, (event_t) { .id = id, .op = NANGO_OP_CREATION,
                .success = NANGO_SUCCESS_TRUE, .tags = "{\"u\":\"1\"}" });
        }

        (void) fold(store);

        reader = snapshot(store);

        snprintf(path, sizeof(path), "%s/%s/data.mdb", directory,
                 log ? "log" : "state");
        assert_int_equal(truncate(path, 8192), 0);

        wanted = want("prod", NULL, 0);
        position = 0;
        assert_int_equal(nango_reader_events(reader, &wanted, &position, visit,
                                             &view, &failure), -1);
        assert_int_equal(failure.code, NANGO_EBROKEN);
        assert_int_equal(view.n, 0);
        assert_sequence(position, 0);

        if (log) {
            assert_int_equal(first_of(reader, &first), -1);
            assert_int_equal(failure.code, NANGO_EBROKEN);
        }

        snapshot_end(reader);
        nango_store_close(store);

        assert_int_equal(directory_remove(NULL), 0);
        assert_int_equal(mkdir(directory, 0700), 0);
    }

#ifdef __SANITIZE_ADDRESS__
    __lsan_enable();
#endif
}


/* An event's body and tags as they are shown. */

static nango_text_t
shown(nango_str_t body, unsigned show)
{
    nango_text_t    t;
    nango_record_t  rec;

    memset(&rec, 0, sizeof(rec));
    memset(&t, 0, sizeof(t));

    rec.body = exact(body);
    rec.body_len = body.len;

    nango_show_body(&t, &rec, show);
    exact_free(rec.body);

    assert_int_equal(t.failed, 0);

    return t;
}


#define assert_shown(body, show, expected)                                    \
    do {                                                                      \
        nango_text_t  _t = shown(body, show);                                 \
        assert_int_equal(_t.len, strlen(expected));                           \
        assert_memory_equal(_t.data, expected, _t.len);                       \
        nango_text_free(&_t);                                                 \
    } while (0)


static void
bodies_are_what_they_are(void **state)
{
    nango_text_t    t;
    nango_record_t  rec;

    assert_shown(S("{ \"a\": 1e400, \"b\":\"\\ud800\" }"),
                 NANGO_SHOW_ID|NANGO_SHOW_TAGS,
                 ",\"body_format\":\"json\","
                 "\"body\":{ \"a\": 1e400, \"b\":\"\\ud800\" }}");
    assert_shown(S(" null"), 0, ",\"body_format\":\"json\",\"body\": null}");
    assert_shown(S("[1,\n2]"), 0,
                 ",\"body_format\":\"json\",\"body\":[1,\n2]}");
    assert_shown(S("[1,\n2]"), NANGO_SHOW_LINES,
                 ",\"body_format\":\"json\",\"body\":[1,\ndata: 2]}");
    assert_shown(S("[1,\r\n2\r]"), NANGO_SHOW_LINES,
                 ",\"body_format\":\"json\",\"body\":[1,\ndata: \ndata: 2"
                 "\ndata: ]}");
    assert_shown(S("a\nb"), NANGO_SHOW_LINES,
                 ",\"body_format\":\"text\",\"body\":\"a\\u000ab\"}");
    assert_shown(S(""), 0, ",\"body_format\":\"text\",\"body\":\"\"}");
    assert_shown(S("{\"a\":1} x"), 0,
                 ",\"body_format\":\"text\",\"body\":\"{\\\"a\\\":1} x\"}");
    assert_shown(S("\xff"), 0,
                 ",\"body_format\":\"base64\",\"body\":\"/w==\"}");

    memset(&rec, 0, sizeof(rec));
    memset(&t, 0, sizeof(t));
    rec.body = S("00112233445566778899aabbccddeeff");
    rec.body_file = 1;
    rec.body_len = 4711;
    nango_show_body(&t, &rec, 0);
    assert_int_equal(t.len, strlen(",\"body_format\":\"file\","
                                   "\"body_length\":4711,\"body\":null}"));
    nango_text_free(&t);
}


static void
an_event_of_nothing(void **state)
{
    nango_text_t    t;
    nango_record_t  rec;
    nango_logged_t  event;

    memset(&t, 0, sizeof(t));
    memset(&rec, 0, sizeof(rec));
    memset(&event, 0, sizeof(event));

    event.sequence = 1;
    event.record = &rec;
    rec.source = 77;

    nango_show_head(&t, &event, NANGO_SHOW_ID);
    nango_show_owner(&t, NULL, 0);
    nango_text_add(&t, nango_str("", 1));
    assert_string_equal((char *) t.data,
        "{\"sequence\":1,\"received_at\":null,\"source\":null,"
        "\"type\":\"other\",\"operation\":null,\"integration\":null,"
        "\"id\":null,\"connection_id\":null,\"owner\":{}");
    nango_text_free(&t);
}


static void
what_is_not_exposed_is_left_out(void **state)
{
    nango_str_t  body = S("{\"connectionId\":\"c\",\"a\":{\"tags\":1},"
                          "\"tags\":{\"u\":\"1\"}, \"endUser\" :{},"
                          "\"connection\\u0049d\":\"c\",\"z\":2}");

    assert_shown(body, 0, ",\"body_format\":\"json\","
                 "\"body\":{\"a\":{\"tags\":1},\"z\":2}}");
    assert_shown(body, NANGO_SHOW_ID, ",\"body_format\":\"json\",\"body\":"
                 "{\"connectionId\":\"c\",\"a\":{\"tags\":1},"
                 "\"connection\\u0049d\":\"c\",\"z\":2}}");
    assert_shown(body, NANGO_SHOW_TAGS, ",\"body_format\":\"json\",\"body\":"
                 "{\"a\":{\"tags\":1},\"tags\":{\"u\":\"1\"},\"endUser\":{},"
                 "\"z\":2}}");
    assert_shown(S("{\"tags\":1}"), 0,
                 ",\"body_format\":\"json\",\"body\":{}}");

    /* Also of what is no UTF-8. */

    body = S("{\"connectionId\":\"c\",\"z\":\n\"\xff\"}");

    assert_shown(body, NANGO_SHOW_LINES, ",\"body_format\":\"base64\","
                 "\"body\":\"eyJ6Ijoi/yJ9\"}");
    assert_shown(body, NANGO_SHOW_ID|NANGO_SHOW_TAGS,
                 ",\"body_format\":\"base64\",\"body\":"
                 "\"eyJjb25uZWN0aW9uSWQiOiJjIiwieiI6CiL/In0=\"}");
}


static void
an_event_is_one_object(void **state)
{
    uint64_t        position;
    nango_store_t  *store;
    nango_wanted_t  wanted;

    store = store_open();

    (void) made(store, (event_t) { .id = "c'1", .op = NANGO_OP_CREATION,
        .success = NANGO_SUCCESS_TRUE, .tags = "{\"u\":\"1\"}",
        .source = NANGO_SOURCE_REPAIR, .at = 5 });
    (void) fold(store);

    wanted = want("prod", NULL, 0);
    view.show = NANGO_SHOW_ID|NANGO_SHOW_TAGS;
    position = 0;
    assert_int_equal(read_from(store, &wanted, &position), 0);

    nango_text_add(&view.text, nango_str("", 1));

    assert_non_null(strstr((char *) view.text.data,
        "{\"sequence\":1,\"received_at\":\"2023-11-14T22:13:20.005Z\","
        "\"source\":\"repair\",\"type\":\"auth\",\"operation\":\"creation\","
        "\"integration\":\"github\",\"id\":\""));
    assert_non_null(strstr((char *) view.text.data,
        "\",\"connection_id\":\"c'1\",\"owner\":{\"u\":\"1\"},"
        "\"body_format\":"));

    nango_text_free(&view.text);
    nango_store_close(store);
}


static void
the_lines_of_a_stream(void **state)
{
    nango_text_t    t;
    nango_record_t  rec;
    nango_logged_t  event;
    unsigned char   log[NANGO_STORE_ID_LEN];

    memset(&t, 0, sizeof(t));
    memset(&rec, 0, sizeof(rec));
    memset(&event, 0, sizeof(event));
    memset(log, 0xab, sizeof(log));

    event.sequence = 12;
    event.record = &rec;
    rec.type = NANGO_TYPE_SYNC;

    nango_show_lines(&t, log, &event);
    nango_text_add(&t, nango_str("", 1));
    assert_string_equal((char *) t.data,
                        "id: abababababababababababababababab:12\n"
                        "event: sync\ndata: ");
    nango_text_free(&t);

    rec.type_name = S("new.kind");
    nango_show_lines(&t, log, &event);
    nango_text_add(&t, nango_str("", 1));
    assert_non_null(strstr((char *) t.data, "event: new.kind\n"));
    nango_text_free(&t);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        store_unit(what_is_after_a_position_in_order),
        store_unit(a_visitor_and_bounds_stop_it),
        store_unit(whose_it_is_follows_from_its_connection_now),
        store_unit(random_owners_as_a_plain_model_has_them),
        store_unit(what_cannot_be_read_is_passed_over),
        store_unit(a_connection_is_told_by_its_name),
        store_unit(the_first_that_is_kept),
        store_unit(a_key_that_is_no_sequence_is_an_error),
        store_unit(a_disk_that_cannot_read_is_an_error),
        cmocka_unit_test(bodies_are_what_they_are),
        cmocka_unit_test(an_event_of_nothing),
        cmocka_unit_test(what_is_not_exposed_is_left_out),
        store_unit(an_event_is_one_object),
        cmocka_unit_test(the_lines_of_a_stream)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
