/*
 * Copyright (C) nginx-nango authors
 *
 * What a store holds, as one JSON object a line: the events of its log, the
 * connections of its state, and last a line with the meta tables.  It shares
 * no code with the module; the layouts are those of docs/internals.md.
 *
 *     logdump STORE [meta | bodies | ledgers]
 *
 * "bodies" adds those that the records hold, as hex; "ledgers" says instead
 * what subscribers are owed and when, and what their environments have stored.
 */

#include <lmdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


typedef void (*dump_pt)(const MDB_val *key, const MDB_val *value);


static int                   bodies;
static const unsigned char  *bytes, *end;


static void
fail(const char *what)
{
    (void) fflush(stdout);
    (void) fprintf(stderr, "logdump: %s\n", what);
    exit(1);
}


/* Little-endian in values, big-endian in keys. */

static uint64_t
le(const unsigned char *p, int n)
{
    uint64_t  v;

    for (v = 0; n; /* void */ ) {
        v = v << 8 | p[--n];
    }

    return v;
}


static uint64_t
be(const unsigned char *p, int n)
{
    uint64_t  v;

    for (v = 0; n--; /* void */ ) {
        v = v << 8 | *p++;
    }

    return v;
}


static void
number(const char *name, uint64_t n)
{
    (void) printf(",\"%s\":%llu", name, (unsigned long long) n);
}


static void
hex(const char *name, const unsigned char *p, size_t len)
{
    (void) printf(",\"%s\":\"", name);

    while (len--) {
        (void) printf("%02x", *p++);
    }

    (void) printf("\"");
}


static void
quoted(size_t len)
{
    if (len > (size_t) (end - bytes)) {
        fail("a string is longer than its record");
    }

    (void) printf("\"");

    for ( /* void */ ; len; len--, bytes++) {

        if (*bytes < 0x20 || *bytes == '"' || *bytes == '\\') {
            (void) printf("\\u%04x", *bytes);

        } else {
            (void) putchar(*bytes);
        }
    }

    (void) printf("\"");
}


static void
string(const char *name, size_t len)
{
    (void) printf(",\"%s\":", name);
    quoted(len);
}


static void
event(const MDB_val *key, const MDB_val *value)
{
    const unsigned char  *p;

    p = value->mv_data;

    if (key->mv_size != 8 || value->mv_size < 72 || p[0] != 1) {
        fail("an event that is none of version 1");
    }

    bytes = p + 72;
    end = p + value->mv_size;

    (void) printf("{\"kind\":\"event\"");

    number("sequence", be(key->mv_data, 8));
    number("source", p[1]);
    number("type", p[2]);
    number("operation", p[3]);
    number("success", p[4]);
    number("flags", p[5]);
    number("received_at", le(p + 8, 8));
    hex("hmac", p + 16, 32);
    number("body_len", le(p + 64, 8));
    string("environment", le(p + 6, 2));
    string("type_name", le(p + 48, 2));
    string("integration", le(p + 50, 2));
    string("connection_id", le(p + 52, 2));

    if (le(p + 56, 4) > (size_t) (end - bytes)) {
        fail("headers are longer than their record");
    }

    bytes += le(p + 56, 4);

    if (p[5] & 1) {
        string("body_file", end - bytes);

    } else if ((uint64_t) (end - bytes) != le(p + 64, 8)) {
        fail("a body is not as long as its record says");

    } else if (bodies) {
        hex("body", bytes, end - bytes);
    }

    (void) printf("}\n");
}


static void
connection(const MDB_val *key, const MDB_val *value)
{
    size_t                i, n;
    const char           *separator;
    const unsigned char  *p;

    static const char  *names[] = {
        "environment", "integration", "connection_id", "provider",
        "error_type", "error_text"
    };

    p = value->mv_data;

    if (key->mv_size != 16 || value->mv_size < 112 || p[0] != 1) {
        fail("a connection that is none of version 1");
    }

    bytes = p + 112;
    end = p + value->mv_size;

    (void) printf("{\"kind\":\"connection\"");

    hex("id", key->mv_data, 16);
    number("status", p[1]);
    number("created_sequence", le(p + 8, 8));
    number("updated_sequence", le(p + 16, 8));
    number("created_at", le(p + 24, 8));
    number("updated_at", le(p + 32, 8));
    number("status_since", le(p + 40, 8));
    number("checked_at", le(p + 48, 8));
    number("repeats", le(p + 56, 8));
    hex("creation_hmac", p + 64, 32);

    for (i = 0; i < 6; i++) {
        string(names[i], le(p + 96 + 2 * i, 2));
    }

    (void) printf(",\"tags\":{");

    separator = "";

    for (n = le(p + 2, 2); n; n--) {

        if (end - bytes < 4) {
            fail("tags are longer than their record");
        }

        p = bytes;
        bytes += 4;

        (void) printf("%s", separator);
        quoted(le(p, 2));
        (void) printf(":");
        quoted(le(p + 2, 2));

        separator = ",";
    }

    if (bytes != end) {
        fail("a connection's record has bytes to spare");
    }

    (void) printf("}}\n");
}


static void
subscriber(const MDB_val *key, const MDB_val *value)
{
    size_t                i;
    const unsigned char  *p;

    static const char  *numbers[] = {
        "created_at", "cursor", "base", "counted", "delivered", "skipped",
        "dead", "rows", "lost", "redelivered", "parked_at"
    };

    p = value->mv_data;

    if (key->mv_size != 16 || value->mv_size < 96 || p[0] != 1) {
        fail("a subscriber that is none of version 1");
    }

    bytes = p + 96;
    end = p + value->mv_size;

    (void) printf("{\"kind\":\"subscriber\"");

    number("parked", p[1] & 1);

    for (i = 0; i < 11; i++) {
        number(numbers[i], le(p + 8 + 8 * i, 8));
    }

    string("environment", le(p + 2, 2));
    string("name", le(p + 4, 2));

    (void) printf("}\n");
}


static void
environment(const MDB_val *key, const MDB_val *value)
{
    const unsigned char  *p;

    p = value->mv_data;

    if (key->mv_size != 16 || value->mv_size < 16 || p[0] != 1) {
        fail("an environment that is none of version 1");
    }

    bytes = p + 16;
    end = p + value->mv_size;

    (void) printf("{\"kind\":\"environment\"");

    number("stored", le(p + 8, 8));
    string("name", le(p + 2, 2));

    (void) printf("}\n");
}


/* A lane whose first row is due then. */

static void
due(const MDB_val *key, const MDB_val *value)
{
    if (key->mv_size != 40 || value->mv_size != 0) {
        fail("a time that is none of a lane");
    }

    (void) printf("{\"kind\":\"due\"");

    number("at", be((unsigned char *) key->mv_data + 16, 8));

    (void) printf("}\n");
}


static MDB_txn *
begin(const char *store, const char *name)
{
    char      path[4096];
    MDB_env  *env;
    MDB_txn  *txn;

    (void) snprintf(path, sizeof(path), "%s/%s", store, name);

    if (mdb_env_create(&env) != 0
        || mdb_env_set_maxdbs(env, 16) != 0
        || mdb_env_open(env, path, MDB_RDONLY|MDB_NOTLS, 0) != 0
        || mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) != 0)
    {
        fail("an environment cannot be opened");
    }

    return txn;
}


/* The last key that there was; 0 where there is none. */

static uint64_t
walk(MDB_txn *txn, const char *table, dump_pt dump)
{
    int          rc;
    MDB_dbi      dbi;
    MDB_val      key, value;
    uint64_t     last;
    MDB_cursor  *cursor;

    last = 0;

    if (mdb_dbi_open(txn, table, 0, &dbi) != 0
        || mdb_cursor_open(txn, dbi, &cursor) != 0)
    {
        fail("a table cannot be opened");
    }

    for (rc = mdb_cursor_get(cursor, &key, &value,
                             dump ? MDB_FIRST : MDB_LAST);
         rc == 0;
         rc = mdb_cursor_get(cursor, &key, &value, MDB_NEXT))
    {
        last = be(key.mv_data, 8);

        if (dump) {
            dump(&key, &value);
        }
    }

    if (rc != MDB_NOTFOUND) {
        fail("a table cannot be read");
    }

    mdb_cursor_close(cursor);

    return last;
}


static uint64_t
entries(MDB_txn *txn, const char *table)
{
    MDB_dbi   dbi;
    MDB_stat  st;

    if (mdb_dbi_open(txn, table, 0, &dbi) != 0
        || mdb_stat(txn, dbi, &st) != 0)
    {
        fail("a table cannot be opened");
    }

    return st.ms_entries;
}


static int
meta(MDB_txn *txn, const char *name, MDB_val *value)
{
    MDB_dbi  dbi;
    MDB_val  key;

    key.mv_data = (void *) name;
    key.mv_size = strlen(name);

    return mdb_dbi_open(txn, "meta", 0, &dbi) == 0
           && mdb_get(txn, dbi, &key, value) == 0;
}


int
main(int argc, char **argv)
{
    size_t     i;
    MDB_txn   *log, *state;
    MDB_val    value;
    uint64_t   last;

    static const char  *counts[] = {
        "events", "effective", "ignored", "not_understood", "gaps", "valid",
        "invalid", "tombstones"
    };

    if (argc != 2 && argc != 3) {
        (void) fprintf(stderr, "usage: logdump STORE "
                               "[meta | bodies | ledgers]\n");
        return 2;
    }

    bodies = (argc == 3 && strcmp(argv[2], "bodies") == 0);

    /* The state's snapshot first: it is never ahead of the log's. */

    state = begin(argv[1], "state");
    log = begin(argv[1], "log");

    last = walk(log, "events", argc == 2 || bodies ? event : NULL);

    if (argc == 2 || bodies) {
        (void) walk(state, "connections", connection);

    } else if (strcmp(argv[2], "ledgers") == 0) {
        (void) walk(state, "subscribers", subscriber);
        (void) walk(state, "environments", environment);
        (void) walk(state, "due", due);
    }

    (void) printf("{\"kind\":\"meta\"");

    number("last", last);
    number("applied", meta(state, "applied", &value) && value.mv_size == 8
                      ? le(value.mv_data, 8) : 0);

    if (meta(log, "store", &value)) {
        hex("log", value.mv_data, value.mv_size);
    }

    if (meta(state, "store", &value)) {
        hex("state", value.mv_data, value.mv_size);
    }

    number("owners_entries", entries(state, "owners"));
    number("tombstones_entries", entries(state, "tombstones"));

    if (meta(state, "counts", &value) && value.mv_size == 64) {

        for (i = 0; i < 8; i++) {
            number(counts[i], le((unsigned char *) value.mv_data + 8 * i, 8));
        }
    }

    (void) printf("}\n");

    /* A reader that does not say so keeps its place until it is missed. */

    mdb_txn_abort(log);
    mdb_txn_abort(state);

    return 0;
}
