/*
 * Copyright (C) nginx-nango authors
 *
 * Reading the state.  A reader renews its two read transactions instead of
 * beginning new ones, which costs two writes to shared memory and no lock.
 *
 * An owner's connections are the intersection of sorted lists: the index has
 * one for each tag, newest connection first, and a connection is at the same
 * place in each, since that place is its created sequence.  So the walks leap
 * over one another, each to where the furthest is, until they meet.
 *
 * The index is a hint.  What counts is the connection's own record, whose
 * full strings are compared with what was asked for.
 */


#include "nango_tables.h"

#include <errno.h>
#include <stdlib.h>


#define NANGO_CONNECTION_VERSION  1

/* Offsets of the head, and its length. */
#define NANGO_CONNECTION_NTAGS    2
#define NANGO_CONNECTION_NUMBERS  8
#define NANGO_CONNECTION_HMAC     64
#define NANGO_CONNECTION_LENGTHS  96
#define NANGO_CONNECTION_HEAD     112

#define NANGO_CONNECTION_NNUMBERS 7
#define NANGO_CONNECTION_NSTRINGS 6

#define NANGO_CONNECTION_MAX                                                  \
    (NANGO_CONNECTION_HEAD + NANGO_CONNECTION_NSTRINGS * UINT16_MAX           \
     + NANGO_EVENT_TAGS_MAX * (4 + 2 * UINT16_MAX))


struct nango_owned_s {
    nango_reader_t       *reader;
    nango_str_t           environment;
    const nango_tag_t    *tags;
    size_t                ntags;
    nango_str_t           only;         /* of this integration, or any */
    uint32_t              mark;
    size_t                left;         /* places to look at */
    uint64_t              place;        /* complement of a created sequence */
    int                   other;        /* another integration's is there */
    int                   begun;
    int                   end;
    MDB_cursor           *cursors[NANGO_TAGS_MAX];
    unsigned char         keys[NANGO_TAGS_MAX][NANGO_KEY_LEN];
};


typedef struct {
    size_t                n;
    unsigned char         keys[NANGO_TAGS_MAX][NANGO_KEY_LEN];
    int                   changed;
} nango_concerns_t;

typedef struct {
    void                (*visit)(void *data,
                                 const unsigned char key[NANGO_KEY_LEN]);
    void                 *data;
} nango_visit_t;


static nango_rc_e nango_reader_enter(nango_reader_t *reader, int alone,
    nango_error_t *err);
static nango_rc_e nango_reader_start(nango_reader_t *reader,
    nango_error_t *err);
static int nango_reader_renew(MDB_env *env, MDB_txn **txn);
static int nango_reader_read_last(nango_reader_t *reader);
static int nango_reader_measure(nango_reader_t *reader, nango_usage_t *usage,
    const char **file);
static int nango_reader_get(nango_reader_t *reader,
    const unsigned char key[NANGO_KEY_LEN], nango_connection_t *c,
    int *decoded);
static int nango_owned_cursor(nango_owned_t *owned, size_t i,
    nango_error_t *err);
static int nango_owned_step(nango_owned_t *owned, nango_connection_t *c,
    nango_error_t *err);
static int nango_owned_meet(nango_owned_t *owned,
    unsigned char key[NANGO_KEY_LEN]);
static int nango_owned_place(nango_owned_t *owned, size_t i, MDB_val *k,
    MDB_val *v);
static int nango_owned_other(const nango_owned_t *owned, MDB_val v);
static int nango_owned_matches(const nango_owned_t *owned,
    const nango_connection_t *c);
static int nango_reader_all_from(MDB_cursor *cursor,
    unsigned char key[NANGO_KEY_LEN], size_t max,
    int (*visit)(void *data, const nango_connection_t *c), void *data);
static int nango_reader_walk(nango_reader_t *reader, uint64_t sequence,
    int (*row)(void *data, MDB_val change), void *data, nango_error_t *err);
static int nango_reader_rows(nango_reader_t *reader, uint64_t sequence,
    int (*row)(void *data, MDB_val change), void *data, nango_error_t *err);
static int nango_change_concerns(void *data, MDB_val change);
static int nango_change_visit(void *data, MDB_val change);


/* In their order on disk. */

static const size_t  nango_connection_numbers[NANGO_CONNECTION_NNUMBERS] = {
    offsetof(nango_connection_t, created_sequence),
    offsetof(nango_connection_t, updated_sequence),
    offsetof(nango_connection_t, created_at),
    offsetof(nango_connection_t, updated_at),
    offsetof(nango_connection_t, status_since),
    offsetof(nango_connection_t, checked_at),
    offsetof(nango_connection_t, repeats)
};

static const size_t  nango_connection_strings[NANGO_CONNECTION_NSTRINGS] = {
    offsetof(nango_connection_t, environment),
    offsetof(nango_connection_t, integration),
    offsetof(nango_connection_t, connection_id),
    offsetof(nango_connection_t, provider),
    offsetof(nango_connection_t, error_type),
    offsetof(nango_connection_t, error_text)
};


static inline uint64_t *
nango_connection_number(const nango_connection_t *c, int i)
{
    return (uint64_t *) ((char *) c + nango_connection_numbers[i]);
}


static inline nango_str_t *
nango_connection_string(const nango_connection_t *c, int i)
{
    return (nango_str_t *) ((char *) c + nango_connection_strings[i]);
}


static inline unsigned char *
nango_connection_put(unsigned char *p, nango_str_t s)
{
    if (s.len) {
        memcpy(p, s.data, s.len);
    }

    return p + s.len;
}


/* 0, or -1 if there is less than that.  Strings of no length are absent. */

static inline int
nango_connection_take(nango_str_t *rest, size_t len, nango_str_t *s)
{
    if (len > rest->len) {
        return -1;
    }

    *s = nango_str(len ? rest->data : NULL, len);

    rest->data += len;
    rest->len -= len;

    return 0;
}


nango_str_t
nango_connection_tag(const nango_connection_t *c, nango_str_t name)
{
    size_t  i;

    for (i = 0; i < c->ntags; i++) {

        if (nango_str_eq(c->tags[i].name, name)) {
            return c->tags[i].value;
        }
    }

    return nango_str(NULL, 0);
}


size_t
nango_connection_size(const nango_connection_t *c)
{
    size_t              i, size;
    const nango_str_t  *s;
    const nango_tag_t  *tag;

    if (c->ntags > NANGO_EVENT_TAGS_MAX) {
        return 0;
    }

    size = NANGO_CONNECTION_HEAD;

    for (i = 0; i < NANGO_CONNECTION_NSTRINGS; i++) {
        s = nango_connection_string(c, i);

        if (s->len > UINT16_MAX) {
            return 0;
        }

        size += s->len;
    }

    for (i = 0; i < c->ntags; i++) {
        tag = &c->tags[i];

        if (tag->name.len > UINT16_MAX || tag->value.len > UINT16_MAX) {
            return 0;
        }

        size += 4 + tag->name.len + tag->value.len;
    }

    return size;
}


void
nango_connection_encode(const nango_connection_t *c, unsigned char *dst)
{
    size_t              i;
    unsigned char      *p;
    const nango_str_t  *s;
    const nango_tag_t  *tag;

    memset(dst, 0, NANGO_CONNECTION_HEAD);

    dst[0] = NANGO_CONNECTION_VERSION;
    dst[1] = (unsigned char) c->status;

    nango_put_le(dst + NANGO_CONNECTION_NTAGS, c->ntags, 2);

    for (i = 0; i < NANGO_CONNECTION_NNUMBERS; i++) {
        nango_put_le(dst + NANGO_CONNECTION_NUMBERS + i * 8,
                     *nango_connection_number(c, i), 8);
    }

    memcpy(dst + NANGO_CONNECTION_HMAC, c->creation_hmac, NANGO_HMAC_LEN);

    p = dst + NANGO_CONNECTION_HEAD;

    for (i = 0; i < NANGO_CONNECTION_NSTRINGS; i++) {
        s = nango_connection_string(c, i);

        nango_put_le(dst + NANGO_CONNECTION_LENGTHS + i * 2, s->len, 2);
        p = nango_connection_put(p, *s);
    }

    for (i = 0; i < c->ntags; i++) {
        tag = &c->tags[i];

        nango_put_le(p, tag->name.len, 2);
        nango_put_le(p + 2, tag->value.len, 2);

        p = nango_connection_put(p + 4, tag->name);
        p = nango_connection_put(p, tag->value);
    }
}


int
nango_connection_decode(nango_connection_t *c,
    const unsigned char key[NANGO_KEY_LEN], nango_str_t data)
{
    size_t                i, name, value;
    nango_str_t           rest;
    nango_tag_t          *tag;
    const unsigned char  *p;

    /* The tags are most of it, and set below. */

    memset(c, 0, offsetof(nango_connection_t, tags));
    c->ntags = 0;

    memcpy(c->key, key, NANGO_KEY_LEN);

    if (data.len == 0) {
        return -1;
    }

    p = data.data;

    if (p[0] != NANGO_CONNECTION_VERSION) {
        return 1;
    }

    if (data.len < NANGO_CONNECTION_HEAD
        || p[1] < NANGO_STATUS_VALID || p[1] > NANGO_STATUS_DELETED
        || nango_get_le(p + NANGO_CONNECTION_NTAGS, 2) > NANGO_EVENT_TAGS_MAX)
    {
        return -1;
    }

    for (i = 0; i < NANGO_CONNECTION_NNUMBERS; i++) {
        *nango_connection_number(c, i) =
                     nango_get_le(p + NANGO_CONNECTION_NUMBERS + i * 8, 8);
    }

    memcpy(c->creation_hmac, p + NANGO_CONNECTION_HMAC, NANGO_HMAC_LEN);

    rest = nango_str(p + NANGO_CONNECTION_HEAD,
                     data.len - NANGO_CONNECTION_HEAD);

    for (i = 0; i < NANGO_CONNECTION_NSTRINGS; i++) {

        if (nango_connection_take(&rest,
                        nango_get_le(p + NANGO_CONNECTION_LENGTHS + i * 2, 2),
                        nango_connection_string(c, i))
            != 0)
        {
            return -1;
        }
    }

    c->ntags = nango_get_le(p + NANGO_CONNECTION_NTAGS, 2);

    for (i = 0; i < c->ntags; i++) {
        tag = &c->tags[i];

        if (rest.len < 4) {
            return -1;
        }

        name = nango_get_le(rest.data, 2);
        value = nango_get_le(rest.data + 2, 2);

        rest.data += 4;
        rest.len -= 4;

        if (nango_connection_take(&rest, name, &tag->name) != 0
            || nango_connection_take(&rest, value, &tag->value) != 0)
        {
            return -1;
        }
    }

    if (rest.len != 0) {
        return -1;
    }

    c->status = p[1];

    return 0;
}


nango_reader_t *
nango_reader_create(nango_store_t *store)
{
    nango_reader_t  *reader;

    reader = calloc(1, sizeof(nango_reader_t));
    if (reader == NULL) {
        return NULL;
    }

    reader->store = store;

    (void) pthread_mutex_lock(&store->mutex);

    reader->next = store->readers;
    store->readers = reader;

    (void) pthread_mutex_unlock(&store->mutex);

    return reader;
}


void
nango_reader_free(nango_reader_t *reader)
{
    nango_store_t    *store;
    nango_reader_t  **p;

    if (reader == NULL) {
        return;
    }

    store = reader->store;

    /* The mutex also keeps LMDB open meanwhile, see nango_store_recover(). */

    (void) pthread_mutex_lock(&store->mutex);

    for (p = &store->readers; *p; p = &(*p)->next) {

        if (*p == reader) {
            *p = reader->next;
            break;
        }
    }

    nango_reader_drop(reader);

    (void) pthread_mutex_unlock(&store->mutex);

    free(reader->record);
    free(reader);
}


nango_reader_t *
nango_reader_next(nango_reader_t *reader)
{
    return reader->next;
}


nango_store_t *
nango_reader_store(nango_reader_t *reader)
{
    return reader->store;
}


MDB_cursor *
nango_reader_log(nango_reader_t *reader)
{
    return reader->events;
}


/* NANGO_EBROKEN: a fault.  What is not there yet a snapshot gets itself. */

nango_rc_e
nango_reader_place(nango_reader_t *reader, nango_error_t *err)
{
    nango_rc_e      rc;
    nango_guard_t   guard;
    nango_store_t  *store;

    store = reader->store;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = NANGO_OK;

        if (nango_reader_renew(store->log, &reader->log) == 0) {
            mdb_txn_reset(reader->log);
        }

        if (nango_reader_renew(store->state, &reader->state) == 0) {
            mdb_txn_reset(reader->state);
        }

    } else {
        /* Under the store's mutex, and what is told is told of opening. */

        rc = nango_error_set(err, NANGO_EBROKEN,
                             "\"%s\" cannot be gone on with: %s",
                             store->path, guard.what);
    }

    nango_guard_end(&guard);

    return rc;
}


void
nango_reader_drop(nango_reader_t *reader)
{
    MDB_txn        *log, *state;
    MDB_cursor     *events;
    nango_guard_t   guard;

    log = reader->log;
    state = reader->state;
    events = reader->events;

    reader->log = NULL;
    reader->state = NULL;
    reader->events = NULL;

    /* Their places are in the lock file, which may have been cut off. */

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {

        if (events != NULL) {
            mdb_cursor_close(events);
        }

        if (log != NULL) {
            mdb_txn_abort(log);
        }

        if (state != NULL) {
            mdb_txn_abort(state);
        }
    }

    nango_guard_end(&guard);
}


nango_rc_e
nango_reader_begin(nango_reader_t *reader, nango_error_t *err)
{
    return nango_reader_enter(reader, 0, err);
}


nango_rc_e
nango_reader_begin_state(nango_reader_t *reader, nango_error_t *err)
{
    return nango_reader_enter(reader, 1, err);
}


static nango_rc_e
nango_reader_enter(nango_reader_t *reader, int alone, nango_error_t *err)
{
    nango_rc_e      code;
    nango_guard_t   guard;
    nango_store_t  *store;

    store = reader->store;
    reader->alone = alone;

    if (!nango_store_try_enter(store)) {
        return nango_error_set(err, NANGO_EBUSY,
                               "\"%s\" is being opened again", store->path);
    }

    if (store->log == NULL) {
        nango_store_leave(store);

        return nango_error_set(err, NANGO_EBROKEN,
                               "\"%s\" is closed until it can be opened again",
                               store->path);
    }

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        code = nango_reader_start(reader, err);

    } else {
        code = nango_store_fault(store, &guard, -1, err);
    }

    nango_guard_end(&guard);

    if (code != NANGO_OK) {
        nango_reader_end(reader);
    }

    return code;
}


static nango_rc_e
nango_reader_start(nango_reader_t *reader, nango_error_t *err)
{
    int             rc;
    const char     *file;
    nango_store_t  *store;

    store = reader->store;

    if (reader->alone) {
        rc = nango_reader_renew(store->state, &reader->state);

        return nango_store_error(store, err, rc, "mdb_txn_renew()", "state");
    }

    file = "log";

    rc = nango_reader_renew(store->log, &reader->log);

    if (rc == 0) {
        rc = nango_reader_read_last(reader);
    }

    if (rc == 0) {
        file = "state";
        rc = nango_reader_renew(store->state, &reader->state);
    }

    if (rc == 0) {
        rc = nango_meta_u64(reader->state, store->state_meta, "applied",
                            &reader->applied);
    }

    return nango_store_error(store, err, rc, "mdb_txn_renew()", file);
}


uint64_t
nango_reader_state_txnid(const nango_reader_t *reader)
{
    return mdb_txn_id(reader->state);
}


void
nango_reader_end(nango_reader_t *reader)
{
    nango_guard_t  guard;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {

        if (reader->log != NULL && !reader->alone) {
            mdb_txn_reset(reader->log);
        }

        if (reader->state != NULL) {
            mdb_txn_reset(reader->state);
        }

    } else {
        (void) nango_store_fault(reader->store, &guard, -1, NULL);
    }

    nango_guard_end(&guard);
    nango_store_leave(reader->store);
}


static int
nango_reader_renew(MDB_env *env, MDB_txn **txn)
{
    int  rc;

    if (*txn != NULL) {
        return mdb_txn_renew(*txn);
    }

    rc = mdb_txn_begin(env, NULL, MDB_RDONLY, txn);

    if (rc == MDB_READERS_FULL) {

        /* Those who died without leaving hold their places. */

        (void) mdb_reader_check(env, NULL);
        rc = mdb_txn_begin(env, NULL, MDB_RDONLY, txn);
    }

    if (rc != 0) {
        *txn = NULL;
    }

    return rc;
}


static int
nango_reader_read_last(nango_reader_t *reader)
{
    int             rc;
    MDB_val         key, val;
    uint64_t        sequence;
    nango_store_t  *store;

    store = reader->store;

    if (reader->events == NULL) {
        rc = mdb_cursor_open(reader->log, store->events, &reader->events);

        if (rc != 0) {
            reader->events = NULL;
        }

    } else {
        rc = mdb_cursor_renew(reader->log, reader->events);
    }

    if (rc == 0) {
        rc = nango_meta_u64(reader->log, store->log_meta, "floor",
                            &reader->last);
    }

    if (rc == 0) {
        rc = mdb_cursor_get(reader->events, &key, &val, MDB_LAST);

        if (rc == MDB_NOTFOUND) {
            return 0;
        }
    }

    if (rc != 0) {
        return rc;
    }

    if (key.mv_size != NANGO_SEQUENCE_LEN) {
        return MDB_CORRUPTED;
    }

    sequence = nango_get_be64(key.mv_data);

    if (sequence > reader->last) {
        reader->last = sequence;
    }

    return 0;
}


uint64_t
nango_reader_last(nango_reader_t *reader)
{
    return reader->last;
}


uint64_t
nango_reader_applied(nango_reader_t *reader)
{
    return reader->applied;
}


int
nango_reader_connection(nango_reader_t *reader,
    const unsigned char key[NANGO_KEY_LEN], nango_connection_t *c,
    nango_error_t *err)
{
    int             rc, decoded;
    nango_guard_t   guard;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = nango_reader_get(reader, key, c, &decoded);

    } else {
        (void) nango_store_fault(reader->store, &guard, -1, err);
        nango_guard_end(&guard);
        return -1;
    }

    nango_guard_end(&guard);

    if (rc == MDB_NOTFOUND) {
        return 0;
    }

    if (rc == 0 && decoded == -1) {
        rc = MDB_CORRUPTED;
    }

    if (rc != 0) {
        (void) nango_store_error(reader->store, err, rc, "mdb_get()", "state");
        return -1;
    }

    return (decoded == 0);
}


/* A copy, since who reads its strings does so without a guard. */

static int
nango_reader_get(nango_reader_t *reader, const unsigned char key[NANGO_KEY_LEN],
    nango_connection_t *c, int *decoded)
{
    int       rc;
    MDB_val   k, v;

    k = nango_val(key, NANGO_KEY_LEN);

    rc = mdb_get(reader->state, reader->store->connections, &k, &v);
    if (rc != 0) {
        return rc;
    }

    if (v.mv_size == 0 || v.mv_size > NANGO_CONNECTION_MAX) {
        *decoded = -1;
        return 0;
    }

    rc = nango_reader_keep(reader, v);
    if (rc != 0) {
        return rc;
    }

    *decoded = nango_connection_decode(c, key,
                                       nango_str(reader->record, v.mv_size));

    return 0;
}


int
nango_reader_keep(nango_reader_t *reader, MDB_val val)
{
    unsigned char  *p;

    if (val.mv_size > reader->size) {
        p = realloc(reader->record, val.mv_size);
        if (p == NULL) {
            return ENOMEM;
        }

        reader->record = p;
        reader->size = val.mv_size;
    }

    if (val.mv_size != 0) {
        memcpy(reader->record, val.mv_data, val.mv_size);
    }

    return 0;
}


int
nango_reader_all(nango_reader_t *reader, unsigned char key[NANGO_KEY_LEN],
    size_t max, int (*visit)(void *data, const nango_connection_t *c),
    void *data, nango_error_t *err)
{
    int             rc;
    MDB_cursor     *cursor;
    nango_guard_t   guard;

    cursor = NULL;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = mdb_cursor_open(reader->state, reader->store->connections,
                             &cursor);

        if (rc == 0) {
            rc = nango_reader_all_from(cursor, key, max, visit, data);
            mdb_cursor_close(cursor);
        }

    } else {
        (void) nango_store_fault(reader->store, &guard, -1, err);
        nango_guard_end(&guard);
        return -1;
    }

    nango_guard_end(&guard);

    if (rc == MDB_NOTFOUND) {
        return 0;
    }

    if (rc != 0) {
        (void) nango_store_error(reader->store, err, rc, "mdb_cursor_get()",
                                 "state");
        return -1;
    }

    return 1;
}


static int
nango_reader_all_from(MDB_cursor *cursor, unsigned char key[NANGO_KEY_LEN],
    size_t max, int (*visit)(void *data, const nango_connection_t *c),
    void *data)
{
    int                 rc;
    size_t              n;
    MDB_val             k, v;
    nango_connection_t  c;

    k = nango_val(key, NANGO_KEY_LEN);

    rc = mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE);

    if (rc == 0 && k.mv_size == NANGO_KEY_LEN
        && memcmp(k.mv_data, key, NANGO_KEY_LEN) == 0)
    {
        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }

    for (n = 0; rc == 0 && n < max; n++) {

        if (k.mv_size != NANGO_KEY_LEN) {
            return MDB_CORRUPTED;
        }

        memcpy(key, k.mv_data, NANGO_KEY_LEN);

        if (nango_connection_decode(&c, key, nango_str(v.mv_data, v.mv_size))
            == 0
            && visit(data, &c) != 0)
        {
            break;
        }

        rc = mdb_cursor_get(cursor, &k, &v, MDB_NEXT);
    }

    return rc;
}


nango_owned_t *
nango_owned_open(nango_reader_t *reader, nango_str_t environment,
    const nango_tag_t *tags, size_t ntags, uint64_t before, nango_error_t *err)
{
    size_t          i;
    nango_owned_t  *owned;

    if (ntags == 0 || ntags > NANGO_TAGS_MAX) {
        (void) nango_error_set(err, NANGO_EINVAL,
                               "an owner has 1 to %d tags", NANGO_TAGS_MAX);
        return NULL;
    }

    owned = calloc(1, sizeof(nango_owned_t));
    if (owned == NULL) {
        (void) nango_error_set(err, NANGO_ENOMEM, "no memory");
        return NULL;
    }

    owned->reader = reader;
    owned->environment = environment;
    owned->tags = tags;
    owned->ntags = ntags;
    owned->left = SIZE_MAX;

    if (before) {
        owned->place = ~(before - 1);
    }

    for (i = 0; i < ntags; i++) {

        if (nango_owner_key(owned->keys[i], environment, tags[i].name,
                            tags[i].value)
            != 0)
        {
            (void) nango_error_set(err, NANGO_ENOMEM, "SHA-256 failed");
            nango_owned_close(owned);
            return NULL;
        }

        if (nango_owned_cursor(owned, i, err) != 0) {
            nango_owned_close(owned);
            return NULL;
        }
    }

    return owned;
}


void
nango_owned_only(nango_owned_t *owned, nango_str_t integration, size_t max)
{
    owned->only = integration;
    owned->mark = nango_integration_mark(integration);
    owned->left = max;
}


/* LMDB reads the table's record for its cursor. */

static int
nango_owned_cursor(nango_owned_t *owned, size_t i, nango_error_t *err)
{
    int              rc;
    MDB_cursor      *cursor;
    nango_guard_t    guard;
    nango_reader_t  *reader;

    reader = owned->reader;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = mdb_cursor_open(reader->state, reader->store->owners, &cursor);

        if (rc == 0) {
            owned->cursors[i] = cursor;

        } else {
            (void) nango_store_error(reader->store, err, rc,
                                     "mdb_cursor_open()", "state");
        }

    } else {
        (void) nango_store_fault(reader->store, &guard, -1, err);
        rc = -1;
    }

    nango_guard_end(&guard);

    return rc;
}


void
nango_owned_close(nango_owned_t *owned)
{
    size_t  i;

    if (owned == NULL) {
        return;
    }

    for (i = 0; i < owned->ntags; i++) {

        if (owned->cursors[i] != NULL) {
            mdb_cursor_close(owned->cursors[i]);
        }
    }

    free(owned);
}


int
nango_owned_next(nango_owned_t *owned, nango_connection_t *c,
    nango_error_t *err)
{
    int            rc;
    nango_guard_t  guard;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = nango_owned_step(owned, c, err);

    } else {
        (void) nango_store_fault(owned->reader->store, &guard, -1, err);
        owned->end = 1;
        rc = -1;
    }

    nango_guard_end(&guard);

    return rc;
}


static int
nango_owned_step(nango_owned_t *owned, nango_connection_t *c,
    nango_error_t *err)
{
    int            rc, decoded, found;
    unsigned char  key[NANGO_KEY_LEN];

    while (!owned->end) {

        if (owned->left-- == 0) {
            owned->end = 1;
            break;
        }

        rc = nango_owned_meet(owned, key);

        if (rc == MDB_NOTFOUND) {
            owned->end = 1;
            break;
        }

        decoded = -1;

        if (rc == 0 && !owned->other) {
            rc = nango_reader_get(owned->reader, key, c, &decoded);
        }

        if (rc != 0 && rc != MDB_NOTFOUND) {
            (void) nango_store_error(owned->reader->store, err, rc,
                                     "mdb_cursor_get()", "state");
            return -1;
        }

        /* One record that cannot be read does not hide the others. */

        found = (decoded == 0 && nango_owned_matches(owned, c));

        if (++owned->place == 0) {
            owned->end = 1;
        }

        if (found) {
            return 1;
        }
    }

    return 0;
}


/* To the first place from owned->place on that is in all of the lists. */

static int
nango_owned_meet(nango_owned_t *owned, unsigned char key[NANGO_KEY_LEN])
{
    int       rc;
    size_t    i, met;
    MDB_val   k, v;
    uint64_t  place;

    i = 0;
    met = 0;

    while (met < owned->ntags) {

        rc = nango_owned_place(owned, i, &k, &v);
        if (rc != 0) {
            return rc;
        }

        if (k.mv_size != NANGO_OWNERS_KEY_LEN
            || (v.mv_size != NANGO_OWNERS_VALUE_LEN
                && v.mv_size != NANGO_KEY_LEN))
        {
            return MDB_CORRUPTED;
        }

        if (memcmp(k.mv_data, owned->keys[i], NANGO_KEY_LEN) != 0) {
            return MDB_NOTFOUND;
        }

        place = nango_get_be64((unsigned char *) k.mv_data + NANGO_KEY_LEN);

        met = (place == owned->place) ? met + 1 : 1;

        owned->place = place;
        owned->other = nango_owned_other(owned, v);
        memcpy(key, v.mv_data, NANGO_KEY_LEN);

        i = (i + 1) % owned->ntags;
    }

    owned->begun = 1;

    return 0;
}


/* A walk over one tag alone goes on where its cursor is. */

static int
nango_owned_place(nango_owned_t *owned, size_t i, MDB_val *k, MDB_val *v)
{
    unsigned char  buf[NANGO_OWNERS_KEY_LEN];

    if (owned->begun && owned->ntags == 1) {
        return mdb_cursor_get(owned->cursors[0], k, v, MDB_NEXT);
    }

    memcpy(buf, owned->keys[i], NANGO_KEY_LEN);
    nango_put_be64(buf + NANGO_KEY_LEN, owned->place);

    *k = nango_val(buf, NANGO_OWNERS_KEY_LEN);

    return mdb_cursor_get(owned->cursors[i], k, v, MDB_SET_RANGE);
}


/* Whether an entry says that it is not of the integration that is wanted. */

static int
nango_owned_other(const nango_owned_t *owned, MDB_val v)
{
    const unsigned char  *p = v.mv_data;

    return owned->only.data != NULL
           && v.mv_size == NANGO_OWNERS_VALUE_LEN
           && nango_get_le(p + NANGO_KEY_LEN, 4) != owned->mark;
}


static int
nango_owned_matches(const nango_owned_t *owned, const nango_connection_t *c)
{
    size_t       i;
    nango_str_t  value;

    if (!nango_connection_indexed(c)
        || c->created_sequence != ~owned->place
        || !nango_str_eq(c->environment, owned->environment)
        || (owned->only.data != NULL
            && !nango_str_eq(c->integration, owned->only)))
    {
        return 0;
    }

    for (i = 0; i < owned->ntags; i++) {
        value = nango_connection_tag(c, owned->tags[i].name);

        if (value.data == NULL
            || !nango_str_eq(value, owned->tags[i].value))
        {
            return 0;
        }
    }

    return 1;
}


int
nango_reader_changed(nango_reader_t *reader, nango_str_t environment,
    const nango_tag_t *tags, size_t ntags, uint64_t sequence,
    nango_error_t *err)
{
    int               rc;
    size_t            i;
    nango_concerns_t  c;

    if (ntags == 0 || ntags > NANGO_TAGS_MAX) {
        (void) nango_error_set(err, NANGO_EINVAL,
                               "an owner has 1 to %d tags", NANGO_TAGS_MAX);
        return -1;
    }

    memset(&c, 0, sizeof(nango_concerns_t));

    for (i = 0; i < ntags; i++) {

        if (nango_owner_key(c.keys[i], environment, tags[i].name,
                            tags[i].value)
            != 0)
        {
            (void) nango_error_set(err, NANGO_ENOMEM, "SHA-256 failed");
            return -1;
        }
    }

    c.n = ntags;

    rc = nango_reader_walk(reader, sequence, nango_change_concerns, &c, err);

    if (rc == -1) {
        return -1;
    }

    return c.changed ? 1 : rc == 0 ? 2 : 0;
}


int
nango_reader_changes(nango_reader_t *reader, uint64_t sequence,
    void (*visit)(void *data, const unsigned char key[NANGO_KEY_LEN]),
    void *data, nango_error_t *err)
{
    nango_visit_t  v;

    v.visit = visit;
    v.data = data;

    return nango_reader_walk(reader, sequence, nango_change_visit, &v, err);
}


/*
 * Calls row for the changes after sequence until it returns other than 0.  1,
 * or 0 if some are forgotten or they are too many; -1 and *err.
 */

static int
nango_reader_walk(nango_reader_t *reader, uint64_t sequence,
    int (*row)(void *data, MDB_val change), void *data, nango_error_t *err)
{
    int            rc;
    nango_guard_t  guard;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = nango_reader_rows(reader, sequence, row, data, err);

    } else {
        (void) nango_store_fault(reader->store, &guard, -1, err);
        rc = -1;
    }

    nango_guard_end(&guard);

    return rc;
}


static int
nango_reader_rows(nango_reader_t *reader, uint64_t sequence,
    int (*row)(void *data, MDB_val change), void *data, nango_error_t *err)
{
    int             rc;
    size_t          n;
    MDB_val         key, val;
    uint64_t        forgotten;
    MDB_cursor     *cursor;
    nango_store_t  *store;
    unsigned char   buf[NANGO_SEQUENCE_LEN];

    store = reader->store;

    if (sequence >= reader->applied) {
        return 1;
    }

    rc = nango_meta_u64(reader->state, store->state_meta, "forgotten",
                        &forgotten);

    if (rc == 0 && sequence < forgotten) {
        return 0;
    }

    cursor = NULL;

    if (rc == 0) {
        rc = mdb_cursor_open(reader->state, store->changes, &cursor);
    }

    if (rc != 0) {
        (void) nango_store_error(store, err, rc, "mdb_cursor_open()", "state");
        return -1;
    }

    nango_put_be64(buf, sequence + 1);
    key = nango_val(buf, NANGO_SEQUENCE_LEN);

    rc = mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);

    for (n = 0; rc == 0 && n < NANGO_CHANGES_MAX; n++) {

        if (val.mv_size >= NANGO_CHANGE_OWNERS && row(data, val) != 0) {
            break;
        }

        rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }

    mdb_cursor_close(cursor);

    if (rc != 0 && rc != MDB_NOTFOUND) {
        (void) nango_store_error(store, err, rc, "mdb_cursor_get()", "state");
        return -1;
    }

    return n < NANGO_CHANGES_MAX;
}


/*
 * Whether all keys are among those of the tags before and after.  Some of one
 * and some of the other are enough: who asks is woken once too often then.
 */

static int
nango_change_concerns(void *data, MDB_val change)
{
    nango_concerns_t *c = data;

    size_t                i;
    const unsigned char  *p, *end;

    end = (unsigned char *) change.mv_data + change.mv_size;

    for (i = 0; i < c->n; i++) {

        p = (unsigned char *) change.mv_data + NANGO_CHANGE_OWNERS;

        for ( ;; ) {

            if (end - p < NANGO_KEY_LEN) {
                return 0;
            }

            if (memcmp(p, c->keys[i], NANGO_KEY_LEN) == 0) {
                break;
            }

            p += NANGO_KEY_LEN;
        }
    }

    c->changed = 1;

    return 1;
}


static int
nango_change_visit(void *data, MDB_val change)
{
    nango_visit_t *v = data;

    const unsigned char  *p, *end;

    p = (unsigned char *) change.mv_data + NANGO_CHANGE_OWNERS;
    end = (unsigned char *) change.mv_data + change.mv_size;

    for ( /* void */ ; end - p >= NANGO_KEY_LEN; p += NANGO_KEY_LEN) {
        v->visit(v->data, p);
    }

    return 0;
}


nango_rc_e
nango_reader_counts(nango_reader_t *reader, nango_counts_t *counts,
    nango_error_t *err)
{
    int             rc;
    uint64_t        n[NANGO_COUNT_N];
    nango_rc_e      code;
    nango_guard_t   guard;

    memset(counts, 0, sizeof(nango_counts_t));

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = nango_counts_get(reader->state, reader->store->state_meta, n);

    } else {
        code = nango_store_fault(reader->store, &guard, -1, err);
        nango_guard_end(&guard);
        return code;
    }

    nango_guard_end(&guard);

    if (rc != 0) {
        return nango_store_error(reader->store, err, rc, "mdb_get()", "state");
    }

    counts->applied = reader->applied;
    counts->events = n[NANGO_COUNT_EVENTS];
    counts->effective = n[NANGO_COUNT_EFFECTIVE];
    counts->ignored = n[NANGO_COUNT_IGNORED];
    counts->not_understood = n[NANGO_COUNT_NOT_UNDERSTOOD];
    counts->gaps = n[NANGO_COUNT_GAPS];
    counts->valid = n[NANGO_COUNT_VALID];
    counts->invalid = n[NANGO_COUNT_INVALID];
    counts->tombstones = n[NANGO_COUNT_TOMBSTONES];

    return NANGO_OK;
}


nango_rc_e
nango_reader_usage(nango_reader_t *reader, nango_usage_t *usage,
    nango_error_t *err)
{
    int             rc;
    const char     *file;
    nango_rc_e      code;
    nango_guard_t   guard;

    memset(usage, 0, sizeof(nango_usage_t));

    usage->log_size = reader->store->size;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = nango_reader_measure(reader, usage, &file);

    } else {
        code = nango_store_fault(reader->store, &guard, -1, err);
        nango_guard_end(&guard);
        return code;
    }

    nango_guard_end(&guard);

    return nango_store_error(reader->store, err, rc, "mdb_stat()", file);
}


/* What the log's writer compares with its size: see nango_log.c. */

static int
nango_reader_measure(nango_reader_t *reader, nango_usage_t *usage,
    const char **file)
{
    int             rc;
    MDB_val         key, val;
    MDB_stat        stat;
    MDB_envinfo     info;
    nango_store_t  *store;

    store = reader->store;
    *file = "log";

    rc = mdb_stat(reader->log, store->events, &stat);

    if (rc != 0) {
        return rc;
    }

    usage->events = stat.ms_entries;
    usage->log_bytes = ((uint64_t) stat.ms_branch_pages + stat.ms_leaf_pages
                        + stat.ms_overflow_pages) * stat.ms_psize;

    rc = mdb_cursor_get(reader->events, &key, &val, MDB_FIRST);

    if (rc == 0) {

        if (key.mv_size != NANGO_SEQUENCE_LEN) {
            return MDB_CORRUPTED;
        }

        usage->first = nango_get_be64(key.mv_data);

    } else if (rc != MDB_NOTFOUND) {
        return rc;
    }

    *file = "state";

    rc = mdb_env_info(store->state, &info);

    if (rc == 0) {
        usage->state_bytes = ((uint64_t) info.me_last_pgno + 1)
                             * stat.ms_psize;
    }

    return rc;
}


/* A shorter value is one from before the last counts were thought of. */

int
nango_counts_get(MDB_txn *txn, MDB_dbi dbi, uint64_t counts[NANGO_COUNT_N])
{
    int      i, rc;
    MDB_val  key, val;

    memset(counts, 0, NANGO_COUNT_N * sizeof(uint64_t));

    key = nango_val("counts", sizeof("counts") - 1);

    rc = mdb_get(txn, dbi, &key, &val);

    if (rc == MDB_NOTFOUND) {
        return 0;
    }

    if (rc != 0) {
        return rc;
    }

    for (i = 0; i < NANGO_COUNT_N && (size_t) i < val.mv_size / 8; i++) {
        counts[i] = nango_get_le((unsigned char *) val.mv_data + i * 8, 8);
    }

    return 0;
}
