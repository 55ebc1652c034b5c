/*
 * Copyright (C) nginx-nango authors
 *
 * See nango_events.h.  What belongs to an environment is copied before it is
 * looked at any closer: hashing, scanning and visitors work outside of LMDB's
 * pages, so that a disk that cannot read interrupts nothing but the copying.
 */


#include "nango_events.h"
#include "nango_rows.h"

#include <errno.h>
#include <stdlib.h>


/* What looking at an event costs that is not wanted: its first page. */
#define NANGO_EVENTS_PAGE  4096


typedef struct {
    nango_reader_t        *reader;
    const nango_wanted_t  *wanted;
    int                  (*visit)(void *data, const nango_logged_t *event);
    void                  *data;

    uint64_t               position;
    uint64_t               end;
    size_t                 events;
    size_t                 bytes;
    int                    rc;          /* LMDB's or errno, 0 */
    nango_rc_e             code;        /* of a connection */

    unsigned char         *copy;
    size_t                 size;
} nango_events_walk_t;


static int nango_events_guarded(nango_events_walk_t *walk,
    nango_error_t *err);
static int nango_events_walk(nango_events_walk_t *walk, nango_error_t *err);
static int nango_events_one(nango_events_walk_t *walk, uint64_t sequence,
    nango_str_t data, nango_error_t *err);
static int nango_events_copy(nango_events_walk_t *walk, nango_record_t *rec);
static int nango_events_then(nango_events_walk_t *walk, uint64_t sequence,
    nango_connection_t *c);
static int nango_events_is(const nango_connection_t *c,
    const nango_record_t *rec);
static int nango_reader_first_of(nango_reader_t *reader,
    const unsigned char environment[NANGO_KEY_LEN], uint64_t *first);


int
nango_reader_events(nango_reader_t *reader, const nango_wanted_t *wanted,
    uint64_t *position, int (*visit)(void *data, const nango_logged_t *event),
    void *data, nango_error_t *err)
{
    int                  rc;
    uint64_t             last;
    nango_events_walk_t  walk;

    memset(&walk, 0, sizeof(nango_events_walk_t));

    walk.reader = reader;
    walk.wanted = wanted;
    walk.visit = visit;
    walk.data = data;
    walk.position = *position;

    /* The log was looked at first: what came since is for the next time. */

    walk.end = nango_reader_applied(reader);
    last = nango_reader_last(reader);

    if (walk.end > last) {
        walk.end = last;
    }

    if (walk.position >= walk.end) {
        return 0;
    }

    rc = nango_events_guarded(&walk, err);

    free(walk.copy);

    *position = walk.position;

    return rc;
}


static int
nango_events_guarded(nango_events_walk_t *walk, nango_error_t *err)
{
    int            rc;
    nango_guard_t  guard;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = nango_events_walk(walk, err);

    } else {
        (void) nango_store_fault(nango_reader_store(walk->reader), &guard, -1,
                                 err);
        rc = -1;
    }

    nango_guard_end(&guard);

    return rc;
}


static int
nango_events_walk(nango_events_walk_t *walk, nango_error_t *err)
{
    int             rc, done;
    MDB_val         key, val;
    uint64_t        sequence;
    MDB_cursor     *cursor;
    unsigned char   start[NANGO_SEQUENCE_LEN];

    cursor = nango_reader_log(walk->reader);

    nango_put_be64(start, walk->position + 1);
    key = nango_val(start, NANGO_SEQUENCE_LEN);

    rc = mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);

    while (rc == 0) {

        if (key.mv_size != NANGO_SEQUENCE_LEN) {
            rc = MDB_CORRUPTED;
            break;
        }

        sequence = nango_get_be64(key.mv_data);

        if (sequence > walk->end) {
            break;
        }

        if (walk->events != 0
            && (walk->events >= walk->wanted->max_events
                || walk->bytes >= walk->wanted->max_bytes))
        {
            return 1;
        }

        done = nango_events_one(walk, sequence,
                                nango_str(val.mv_data, val.mv_size), err);

        if (done == -1) {
            return -1;
        }

        if (done == 2) {
            return 1;
        }

        walk->position = sequence;
        walk->events++;

        if (done == 1) {
            return sequence < walk->end;
        }

        rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }

    if (rc != 0 && rc != MDB_NOTFOUND) {
        (void) nango_store_error(nango_reader_store(walk->reader), err, rc,
                                 "mdb_cursor_get()", "log");
        return -1;
    }

    walk->position = walk->end;

    return 0;
}


/* -1 and *err, or as visit. */

static int
nango_events_one(nango_events_walk_t *walk, uint64_t sequence,
    nango_str_t data, nango_error_t *err)
{
    int                    rc;
    nango_record_t         rec;
    nango_logged_t         event;
    unsigned char          key[NANGO_KEY_LEN];
    nango_connection_t     c;
    const nango_wanted_t  *wanted;

    wanted = walk->wanted;

    walk->bytes += NANGO_EVENTS_PAGE;

    if (nango_record_decode(&rec, data) != 0) {
        return 0;
    }

    if (wanted->environment.data != NULL
        && !nango_str_eq(rec.environment, wanted->environment))
    {
        return 0;
    }

    if (wanted->type.data != NULL
        && !nango_str_eq(nango_logged_type(&rec), wanted->type))
    {
        return 0;
    }

    if (nango_events_copy(walk, &rec) != 0) {
        (void) nango_store_error(nango_reader_store(walk->reader), err, ENOMEM,
                                 "realloc()", "log");
        return -1;
    }

    event.sequence = sequence;
    event.record = &rec;
    event.connection = NULL;
    event.key = NULL;

    if (rec.integration.len != 0 && rec.connection_id.len != 0) {

        if (nango_connection_key(key, rec.environment, rec.integration,
                                 rec.connection_id)
            != 0)
        {
            (void) nango_error_set(err, NANGO_ENOMEM, "no memory for a hash");
            return -1;
        }

        event.key = key;

        rc = nango_reader_connection(walk->reader, key, &c, err);

        /* One that cannot be read is nobody's. */

        if (rc == -1 && err->code != NANGO_EDAMAGED) {
            return -1;
        }

        if (rc == 1 && nango_events_is(&c, &rec)) {
            event.connection = &c;
            rc = nango_events_then(walk, sequence, &c);

            if (rc != 0) {
                (void) nango_store_error(nango_reader_store(walk->reader), err,
                                         rc, "mdb_get()", "state");
                return -1;
            }
        }
    }

    if (wanted->nowner != 0
        && (event.connection == NULL
            || !nango_tags_include(c.tags, c.ntags, wanted->owner,
                                   wanted->nowner)))
    {
        return 0;
    }

    walk->bytes += rec.body.len;

    return walk->visit(walk->data, &event);
}


/*
 * Leaves the connection only those tags that it had when the event came: who
 * has got it since then sees nothing of what was another's.  LMDB's code.
 */

static int
nango_events_then(nango_events_walk_t *walk, uint64_t sequence,
    nango_connection_t *c)
{
    int                  rc;
    size_t               i, n;
    nango_str_t          value;
    nango_connection_t   then;

    if (c->updated_sequence <= sequence) {
        return 0;
    }

    rc = nango_history_at(walk->reader->state, nango_reader_store(walk->reader),
                          c->key, sequence, &then);

    if (rc == MDB_NOTFOUND) {
        c->ntags = 0;
        return 0;
    }

    if (rc != 0) {
        return rc;
    }

    n = 0;

    for (i = 0; i < c->ntags; i++) {
        value = nango_connection_tag(&then, c->tags[i].name);

        if (value.data != NULL && nango_str_eq(value, c->tags[i].value)) {
            c->tags[n++] = c->tags[i];
        }
    }

    c->ntags = n;

    return 0;
}


/* rec's strings, without the headers, become those of the copy. */

static int
nango_events_copy(nango_events_walk_t *walk, nango_record_t *rec)
{
    size_t          i, size;
    nango_str_t    *strings[] = {
        &rec->environment, &rec->type_name, &rec->integration,
        &rec->connection_id, &rec->body
    };
    unsigned char  *p;

    size = 0;

    for (i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
        size += strings[i]->len;
    }

    if (size > walk->size) {
        p = realloc(walk->copy, size);
        if (p == NULL) {
            return -1;
        }

        walk->copy = p;
        walk->size = size;
    }

    p = walk->copy;

    for (i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {

        if (strings[i]->len != 0) {
            memcpy(p, strings[i]->data, strings[i]->len);
        }

        strings[i]->data = p;
        p += strings[i]->len;
    }

    rec->headers = nango_str(NULL, 0);

    return 0;
}


static int
nango_events_is(const nango_connection_t *c, const nango_record_t *rec)
{
    return nango_str_eq(c->environment, rec->environment)
           && nango_str_eq(c->integration, rec->integration)
           && nango_str_eq(c->connection_id, rec->connection_id);
}


int
nango_reader_first(nango_reader_t *reader, nango_str_t environment,
    uint64_t *first, nango_error_t *err)
{
    int             rc;
    nango_guard_t   guard;
    unsigned char   key[NANGO_KEY_LEN];
    nango_store_t  *store;

    store = nango_reader_store(reader);

    if (nango_environment_key(key, environment) != 0) {
        (void) nango_error_set(err, NANGO_ENOMEM, "no memory for a hash");
        return -1;
    }

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = nango_reader_first_of(reader, key, first);

    } else {
        (void) nango_store_fault(store, &guard, -1, err);
        nango_guard_end(&guard);
        return -1;
    }

    nango_guard_end(&guard);

    if (rc != 0) {
        (void) nango_store_error(store, err, rc, "mdb_cursor_get()", "log");
        return -1;
    }

    return 0;
}


static int
nango_reader_first_of(nango_reader_t *reader,
    const unsigned char environment[NANGO_KEY_LEN], uint64_t *first)
{
    int       rc;
    MDB_val   key, val;
    uint64_t  n, last;

    rc = mdb_cursor_get(nango_reader_log(reader), &key, &val, MDB_FIRST);

    if (rc == MDB_NOTFOUND) {
        *first = nango_reader_last(reader) + 1;
        return 0;
    }

    if (rc != 0) {
        return rc;
    }

    if (key.mv_size != NANGO_SEQUENCE_LEN) {
        return MDB_CORRUPTED;
    }

    *first = nango_get_be64(key.mv_data);

    rc = nango_pruned_get(reader->log, reader->store, environment, &n, &last);

    if (rc == 0 && *first <= last) {
        *first = last + 1;
    }

    return rc;
}


nango_str_t
nango_logged_type(const nango_record_t *record)
{
    const char  *name;

    if (record->type_name.len != 0) {
        return record->type_name;
    }

    name = nango_type_name(record->type);

    return nango_str(name, strlen(name));
}


int
nango_tags_include(const nango_tag_t *tags, size_t ntags,
    const nango_tag_t *owner, size_t nowner)
{
    size_t  i, n;

    for (i = 0; i < nowner; i++) {

        for (n = 0; n < ntags; n++) {

            if (nango_str_eq(tags[n].name, owner[i].name)) {
                break;
            }
        }

        if (n == ntags || !nango_str_eq(tags[n].value, owner[i].value)) {
            return 0;
        }
    }

    return 1;
}
