/*
 * Copyright (C) nginx-nango authors
 *
 * Folding the log into the state.  A batch is one transaction of the state;
 * the more events share it the better, for the pages of a table that many of
 * them touch are written once.
 *
 * What has been applied is read inside the transaction that changes it, so an
 * event is applied once whoever folds, and the log is looked at after that.
 * An event either has all of its effects in the state or none.
 *
 * Strings that LMDB returned point into pages that the next write may move.
 * So everything that is to be written for an event is put together before the
 * first write.
 */


#include "nango_fold.h"
#include "nango_rows.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>


/*
 * Of changes, of tombstones and of history, in one call, besides what it adds:
 * dropping is never slower than adding, however large the batches are.
 */
#define NANGO_FOLD_DROP    1024

/* Rows of history that are looked at for each that is added. */
#define NANGO_FOLD_LOOK    4

/* Environments whose events are counted before that is written. */
#define NANGO_FOLD_STORED  8

/*
 * Writes that may each dirty a page of their own.  From 131,071 dirty pages on
 * LMDB begins to write them out before the commit, a way that is better not
 * taken: events with dozens of tags end a batch early.
 */
#define NANGO_FOLD_WRITES  65536


typedef struct {
    uint64_t              n;
    nango_str_t           name;         /* in the log */
    unsigned char         key[NANGO_KEY_LEN];
} nango_fold_stored_t;

typedef struct {
    nango_store_t        *store;
    uint64_t              now_ms;
    uint64_t              retain_ms;

    MDB_txn              *txn;          /* the state's */
    MDB_txn              *log;
    uint64_t              first;        /* sequence in the log, 0: none */
    uint64_t              applied;      /* with this batch */

    nango_names_t         names;
    nango_fold_stored_t   stored[NANGO_FOLD_STORED];
    size_t                nstored;
    int                   recounted;

    uint64_t              counts[NANGO_COUNT_N];
    size_t                writes;
    uint64_t              remembered;   /* rows of history */

    nango_connection_t    before;
    nango_connection_t    after;
    unsigned char         keys_before[NANGO_EVENT_TAGS_MAX][NANGO_KEY_LEN];
    unsigned char         keys_after[NANGO_EVENT_TAGS_MAX][NANGO_KEY_LEN];
    uint32_t              mark;         /* of the integration */

    unsigned char        *buf;          /* the connection's record */
    size_t                len;
    size_t                size;

    unsigned char        *history;      /* and the one before */
    unsigned char        *subscribed;   /* see nango_subscribed_get() */
} nango_fold_t;


static nango_rc_e nango_fold_batch(nango_fold_t *f,
    const nango_fold_options_t *options, nango_folded_t *folded,
    nango_error_t *err);
static nango_rc_e nango_fold_log(nango_fold_t *f,
    const nango_fold_options_t *options, nango_folded_t *folded,
    nango_error_t *err);
static int nango_fold_settle(nango_fold_t *f,
    const nango_fold_options_t *options, uint64_t applied, int *settled);
static int nango_fold_first(nango_fold_t *f, MDB_cursor *cursor);
static int nango_fold_floor(nango_fold_t *f, nango_folded_t *folded);
static int nango_fold_recount(nango_fold_t *f, MDB_cursor *cursor,
    uint64_t applied);
static int nango_fold_stored(nango_fold_t *f, nango_str_t environment);
static int nango_fold_stored_end(nango_fold_t *f);
static int nango_fold_event(nango_fold_t *f, uint64_t sequence,
    nango_str_t data);
static int nango_fold_body_file(nango_fold_t *f, const nango_record_t *rec,
    nango_event_t *event);
static int nango_fold_connection(nango_fold_t *f, uint64_t sequence,
    const nango_record_t *rec, const nango_event_t *event);
static int nango_fold_before(nango_fold_t *f, const nango_record_t *rec);
static int nango_fold_encode(nango_fold_t *f);
static int nango_fold_keys(nango_fold_t *f);
static int nango_fold_put(nango_fold_t *f);
static int nango_fold_index(nango_fold_t *f);
static int nango_fold_owner(nango_fold_t *f,
    const unsigned char owner[NANGO_KEY_LEN], int del);
static int nango_fold_has(unsigned char keys[][NANGO_KEY_LEN], size_t n,
    const unsigned char key[NANGO_KEY_LEN]);
static int nango_fold_history(nango_fold_t *f, uint64_t sequence);
static int nango_fold_remember(nango_fold_t *f, uint64_t sequence);
static int nango_fold_retagged(const nango_fold_t *f);
static int nango_fold_change(nango_fold_t *f, uint64_t sequence);
static int nango_fold_status(nango_fold_t *f, uint64_t sequence,
    const nango_record_t *rec);
static int nango_fold_drop_changes(nango_fold_t *f, nango_folded_t *folded,
    int *dropped);
static int nango_fold_drop_tombstones(nango_fold_t *f, nango_folded_t *folded,
    int *dropped);
static int nango_fold_drop_tombstone(nango_fold_t *f, uint64_t sequence,
    MDB_val tombstone);
static int nango_fold_drop_history(nango_fold_t *f, int *dropped);
static void nango_fold_next(unsigned char key[NANGO_HISTORY_KEY_LEN]);
static int nango_fold_end(nango_fold_t *f, uint64_t applied);


nango_rc_e
nango_fold(nango_store_t *store, const nango_fold_options_t *options,
    nango_folded_t *folded, nango_error_t *err)
{
    nango_rc_e     rc;
    nango_fold_t  *f;
    nango_guard_t  guard;

    memset(folded, 0, sizeof(nango_folded_t));

    f = malloc(sizeof(nango_fold_t));
    if (f == NULL) {
        return nango_error_set(err, NANGO_ENOMEM, "no memory");
    }

    f->store = store;
    f->now_ms = options->now_ms;
    f->retain_ms = options->retain_ms;
    f->writes = 0;
    f->remembered = 0;
    f->buf = NULL;
    f->size = 0;
    f->history = NULL;
    f->subscribed = NULL;
    f->nstored = 0;
    f->recounted = 0;

    memset(&f->names, 0, sizeof(nango_names_t));

    rc = nango_store_inside(store, err);

    if (rc != NANGO_OK) {
        free(f);
        return rc;
    }

    if (options->generation && options->generation != store->generation) {
        nango_store_leave(store);
        free(f);
        folded->reopened = 1;
        return NANGO_OK;
    }

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = nango_fold_batch(f, options, folded, err);

    } else {
        rc = nango_store_fault(store, &guard, 1, err);
    }

    nango_guard_end(&guard);
    nango_store_leave(store);

    free(f->subscribed);
    free(f->history);
    free(f->buf);
    free(f);

    if (rc != NANGO_OK) {
        memset(folded, 0, sizeof(nango_folded_t));
    }

    return rc;
}


static nango_rc_e
nango_fold_batch(nango_fold_t *f, const nango_fold_options_t *options,
    nango_folded_t *folded, nango_error_t *err)
{
    int             rc, dropped, settled;
    nango_rc_e      code;
    nango_store_t  *store;

    store = f->store;
    dropped = 0;
    settled = 0;

    code = nango_store_begin(store, 1, &f->txn, err);

    if (code != NANGO_OK) {
        return code;
    }

    rc = nango_meta_u64(f->txn, store->state_meta, "applied",
                        &folded->applied);
    if (rc == 0) {
        rc = nango_counts_get(f->txn, store->state_meta, f->counts);
    }

    code = nango_store_error(store, err, rc, "mdb_get()", "state");

    if (code == NANGO_OK) {
        rc = nango_fold_settle(f, options, folded->applied, &settled);
        code = nango_store_error(store, err, rc, "mdb_put()", "state");
    }

    if (code == NANGO_OK) {
        code = nango_fold_log(f, options, folded, err);
        settled |= f->recounted;
    }

    if (code == NANGO_OK) {
        f->applied = folded->applied;

        rc = nango_fold_drop_changes(f, folded, &dropped);

        if (rc == 0) {
            rc = nango_fold_drop_tombstones(f, folded, &dropped);
        }

        if (rc == 0) {
            rc = nango_fold_drop_history(f, &dropped);
        }

        if (rc == 0 && (folded->events || folded->gap || dropped)) {
            rc = nango_fold_end(f, folded->applied);
        }

        code = nango_store_error(store, err, rc, "mdb_put()", "state");
    }

    if (code != NANGO_OK
        || (folded->events == 0 && folded->gap == 0 && !dropped && !settled))
    {
        mdb_txn_abort(f->txn);
        return code;
    }

    folded->committed = 1;

    return nango_store_commit(store, f->txn, err, "state");
}


static int
nango_fold_settle(nango_fold_t *f, const nango_fold_options_t *options,
    uint64_t applied, int *settled)
{
    int     rc;
    size_t  i;

    rc = 0;

    for (i = 0; i < options->nsettlements; i++) {
        options->settlements[i].stale = 0;
    }

    for (i = 0; rc == 0 && i < options->nsettlements; i++) {
        rc = nango_settle(f->txn, f->store, &options->settlements[i], applied,
                          f->now_ms, settled, &f->writes, &f->subscribed);

        free(f->subscribed);
        f->subscribed = NULL;
    }

    return rc;
}


static nango_rc_e
nango_fold_log(nango_fold_t *f, const nango_fold_options_t *options,
    nango_folded_t *folded, nango_error_t *err)
{
    int             rc;
    size_t          bytes, max_events, max_bytes;
    MDB_val         key, val;
    MDB_txn        *txn;
    uint64_t        sequence, not_understood;
    MDB_cursor     *cursor;
    nango_rc_e      code;
    nango_store_t  *store;
    unsigned char   buf[NANGO_SEQUENCE_LEN];

    store = f->store;

    rc = mdb_txn_begin(store->log, NULL, MDB_RDONLY, &txn);
    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_txn_begin()", "log");
    }

    rc = mdb_cursor_open(txn, store->events, &cursor);
    if (rc != 0) {
        mdb_txn_abort(txn);
        return nango_store_error(store, err, rc, "mdb_cursor_open()", "log");
    }

    f->log = txn;
    folded->log_txnid = mdb_txn_id(txn);

    code = NANGO_OK;
    bytes = 0;
    max_events = options->max_events ? options->max_events : NANGO_FOLD_EVENTS;
    max_bytes = options->max_bytes ? options->max_bytes : NANGO_FOLD_BYTES;
    not_understood = f->counts[NANGO_COUNT_NOT_UNDERSTOOD];

    nango_put_be64(buf, folded->applied + 1);
    key = nango_val(buf, NANGO_SEQUENCE_LEN);

    rc = nango_fold_first(f, cursor);

    if (rc == 0 && f->first != 0 && f->first <= folded->applied) {
        rc = nango_fold_recount(f, cursor, folded->applied);
    }

    if (rc == 0) {
        rc = mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);
    }

    while (rc == 0) {

        if (key.mv_size != NANGO_SEQUENCE_LEN) {
            rc = MDB_CORRUPTED;
            break;
        }

        if (folded->events
            && (folded->events >= max_events || bytes >= max_bytes
                || f->writes >= NANGO_FOLD_WRITES))
        {
            folded->more = 1;
            break;
        }

        sequence = nango_get_be64(key.mv_data);

        if (folded->events == 0) {
            folded->from = sequence;
        }

        folded->gap += sequence - folded->applied - 1;

        rc = nango_fold_event(f, sequence,
                              nango_str(val.mv_data, val.mv_size));
        if (rc != 0) {
            code = nango_store_error(store, err, rc, "mdb_put()", "state");
            rc = 0;
            break;
        }

        folded->events++;
        folded->applied = sequence;
        bytes += val.mv_size;
        folded->bytes = bytes;

        rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }

    if (rc == MDB_NOTFOUND) {
        rc = nango_fold_floor(f, folded);
    }

    mdb_cursor_close(cursor);

    if (code == NANGO_OK && rc == 0) {
        code = nango_store_error(store, err, nango_fold_stored_end(f),
                                 "mdb_put()", "state");
    }

    mdb_txn_abort(txn);

    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_cursor_get()", "log");
    }

    folded->not_understood = f->counts[NANGO_COUNT_NOT_UNDERSTOOD]
                             - not_understood;

    f->counts[NANGO_COUNT_EVENTS] += folded->events;
    f->counts[NANGO_COUNT_GAPS] += folded->gap;

    return code;
}


static int
nango_fold_first(nango_fold_t *f, MDB_cursor *cursor)
{
    int      rc;
    MDB_val  key, val;

    f->first = 0;

    rc = mdb_cursor_get(cursor, &key, &val, MDB_FIRST);

    if (rc == 0 && key.mv_size == NANGO_SEQUENCE_LEN) {
        f->first = nango_get_be64(key.mv_data);
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


/*
 * A log that was made anew has lost what it had up to its floor.  A state that
 * waited for that would be behind until another event comes, and whoever
 * repairs a connection waits for one that is not.
 */

static int
nango_fold_floor(nango_fold_t *f, nango_folded_t *folded)
{
    int       rc;
    uint64_t  floor;

    rc = nango_meta_u64(f->log, f->store->log_meta, "floor", &floor);

    if (rc != 0 || floor <= folded->applied) {
        return rc;
    }

    folded->from = floor + 1;
    folded->gap += floor - folded->applied;
    folded->applied = floor;

    return 0;
}


/*
 * A state from before environments were counted: what of it the log still has.
 */

static int
nango_fold_recount(nango_fold_t *f, MDB_cursor *cursor, uint64_t applied)
{
    int              rc;
    MDB_val          key, val;
    MDB_stat         stat;
    nango_record_t   rec;

    rc = mdb_stat(f->txn, f->store->environments, &stat);

    if (rc != 0 || stat.ms_entries != 0) {
        return rc;
    }

    rc = mdb_cursor_get(cursor, &key, &val, MDB_FIRST);

    while (rc == 0 && key.mv_size == NANGO_SEQUENCE_LEN
           && nango_get_be64(key.mv_data) <= applied)
    {
        if (nango_record_decode(&rec, nango_str(val.mv_data, val.mv_size))
            == 0)
        {
            f->recounted = 1;

            rc = nango_fold_stored(f, rec.environment);
            if (rc != 0) {
                return rc;
            }
        }

        rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


/* Names stay where they are while the log's snapshot is held. */

static int
nango_fold_stored(nango_fold_t *f, nango_str_t environment)
{
    int                   rc;
    size_t                i;
    nango_fold_stored_t  *stored;
    const unsigned char  *key;

    key = nango_names_key(&f->names, environment);
    if (key == NULL) {
        return ENOMEM;
    }

    for (i = 0; i < f->nstored; i++) {
        stored = &f->stored[i];

        if (memcmp(stored->key, key, NANGO_KEY_LEN) == 0) {
            stored->n++;
            return 0;
        }
    }

    if (f->nstored == NANGO_FOLD_STORED) {
        rc = nango_fold_stored_end(f);
        if (rc != 0) {
            return rc;
        }
    }

    stored = &f->stored[f->nstored++];

    stored->n = 1;
    stored->name = environment;
    memcpy(stored->key, key, NANGO_KEY_LEN);

    return 0;
}


static int
nango_fold_stored_end(nango_fold_t *f)
{
    int                   rc;
    size_t                i;
    nango_fold_stored_t  *stored;

    rc = 0;

    for (i = 0; rc == 0 && i < f->nstored; i++) {
        f->writes++;
        stored = &f->stored[i];

        rc = nango_stored_add(f->txn, f->store, f->log, stored->key,
                              stored->name, stored->n);
    }

    f->nstored = 0;

    return rc;
}


/* LMDB's code: what is wrong with the event itself is counted. */

static int
nango_fold_event(nango_fold_t *f, uint64_t sequence, nango_str_t data)
{
    int             rc;
    nango_event_t   event;
    nango_record_t  rec;

    if (nango_record_decode(&rec, data) != 0) {
        f->counts[NANGO_COUNT_NOT_UNDERSTOOD]++;
        return 0;
    }

    rc = nango_fold_stored(f, rec.environment);
    if (rc != 0) {
        return rc;
    }

    if (rec.body_file) {
        nango_body_keep(f->store, rec.body);
    }

    if (rec.type != NANGO_TYPE_AUTH || rec.integration.len == 0
        || rec.connection_id.len == 0)
    {
        return 0;
    }

    if (rec.body_file) {
        rc = nango_fold_body_file(f, &rec, &event);

        if (rc == ENOENT) {
            f->counts[NANGO_COUNT_NOT_UNDERSTOOD]++;
            return 0;
        }

    } else {
        rc = (nango_event_parse(&event, rec.body) == 0) ? 0 : ENOMEM;
    }

    if (rc != 0) {
        return rc;
    }

    rc = nango_fold_connection(f, sequence, &rec, &event);

    nango_event_free(&event);

    return rc;
}


/*
 * ENOENT: there is no body of that length.  Read, and not mapped: a block that
 * the disk cannot read is an error then, and not a fault in the middle of the
 * state's transaction.
 */

static int
nango_fold_body_file(nango_fold_t *f, const nango_record_t *rec,
    nango_event_t *event)
{
    int           fd, rc;
    char          file[NANGO_BODY_NAME_LEN + 1];
    size_t        len;
    ssize_t       n;
    struct stat   sb;
    nango_str_t   body;

    memcpy(file, rec->body.data, NANGO_BODY_NAME_LEN);
    file[NANGO_BODY_NAME_LEN] = '\0';

    if (strchr(file, '/') != NULL) {
        return ENOENT;
    }

    fd = openat(f->store->bodies, file, O_RDONLY|O_NOFOLLOW|O_CLOEXEC);
    if (fd == -1) {

        /* Too many open files are no fault of the event's. */

        return (errno == EMFILE || errno == ENFILE || errno == ENOMEM)
               ? errno : ENOENT;
    }

    if (fstat(fd, &sb) == -1 || !S_ISREG(sb.st_mode) || sb.st_size <= 0
        || (uint64_t) sb.st_size != rec->body_len)
    {
        (void) close(fd);
        return ENOENT;
    }

    body = nango_str(malloc((size_t) sb.st_size), (size_t) sb.st_size);

    if (body.data == NULL) {
        (void) close(fd);
        return ENOMEM;
    }

    rc = 0;

    for (len = 0; rc == 0 && len < body.len; /* void */ ) {

        n = read(fd, (unsigned char *) body.data + len, body.len - len);

        if (n > 0) {
            len += (size_t) n;

        } else if (n == 0) {
            rc = ENOENT;

        } else if (errno != EINTR) {
            rc = errno;
        }
    }

    (void) close(fd);

    if (rc == 0) {
        rc = (nango_event_parse(event, body) == 0) ? 0 : ENOMEM;
    }

    free((void *) body.data);

    return rc;
}


static int
nango_fold_connection(nango_fold_t *f, uint64_t sequence,
    const nango_record_t *rec, const nango_event_t *event)
{
    int             rc;
    nango_effect_e  effect;

    rc = nango_fold_before(f, rec);

    if (rc == MDB_CORRUPTED) {
        f->counts[NANGO_COUNT_NOT_UNDERSTOOD]++;
        return 0;
    }

    if (rc != 0) {
        return rc;
    }

    effect = nango_transition(&f->before, rec, event, sequence, &f->after);

    switch (effect) {

    case NANGO_EFFECT_NONE:

        /* It meant a connection, but one that is unknown here. */

        if (f->before.status == NANGO_STATUS_NONE
            && rec->success != NANGO_SUCCESS_NONE
            && (rec->operation == NANGO_OP_OVERRIDE
                || rec->operation == NANGO_OP_REFRESH))
        {
            f->counts[NANGO_COUNT_IGNORED]++;
        }

        return 0;

    case NANGO_EFFECT_IGNORED:
        f->counts[NANGO_COUNT_IGNORED]++;
        return 0;

    default:
        break;
    }

    rc = nango_fold_encode(f);

    /* The first write moves what the strings point to. */

    f->mark = nango_integration_mark(f->after.integration);

    if (effect == NANGO_EFFECT_REPEAT) {
        return (rc == 0) ? nango_fold_put(f) : rc;
    }

    f->counts[NANGO_COUNT_EFFECTIVE]++;

    if (rc == 0) {
        rc = nango_fold_keys(f);
    }

    if (rc == 0) {
        rc = nango_fold_history(f, sequence);
    }

    if (rc == 0) {
        rc = nango_fold_put(f);
    }

    if (rc == 0) {
        rc = nango_fold_index(f);
    }

    if (rc == 0) {
        rc = nango_fold_change(f, sequence);
    }

    if (rc == 0) {
        rc = nango_fold_status(f, sequence, rec);
    }

    return rc;
}


/* MDB_CORRUPTED: there is a record, but not one that can be gone on from. */

static int
nango_fold_before(nango_fold_t *f, const nango_record_t *rec)
{
    int                  rc;
    MDB_val              key, val;
    unsigned char        k[NANGO_KEY_LEN];
    nango_connection_t  *c;

    c = &f->before;

    if (nango_connection_key(k, rec->environment, rec->integration,
                             rec->connection_id)
        != 0)
    {
        return ENOMEM;
    }

    key = nango_val(k, NANGO_KEY_LEN);

    rc = mdb_get(f->txn, f->store->connections, &key, &val);

    if (rc == MDB_NOTFOUND) {
        memset(c, 0, offsetof(nango_connection_t, tags));
        memcpy(c->key, k, NANGO_KEY_LEN);
        c->ntags = 0;
        return 0;
    }

    if (rc != 0) {
        return (rc == MDB_CORRUPTED) ? MDB_PAGE_NOTFOUND : rc;
    }

    if (nango_connection_decode(c, k, nango_str(val.mv_data, val.mv_size)) != 0
        || !nango_str_eq(c->environment, rec->environment)
        || !nango_str_eq(c->integration, rec->integration)
        || !nango_str_eq(c->connection_id, rec->connection_id))
    {
        return MDB_CORRUPTED;
    }

    return 0;
}


static int
nango_fold_encode(nango_fold_t *f)
{
    void    *p;
    size_t   size;

    f->len = nango_connection_size(&f->after);

    if (f->len == 0) {
        return EINVAL;
    }

    if (f->len > f->size) {
        size = f->len * 2;

        p = realloc(f->buf, size);
        if (p == NULL) {
            return ENOMEM;
        }

        f->buf = p;
        f->size = size;
    }

    nango_connection_encode(&f->after, f->buf);

    return 0;
}


/* Most events leave most tags as they were. */

static int
nango_fold_keys(nango_fold_t *f)
{
    size_t                     i, j;
    const nango_tag_t         *tag;
    const nango_connection_t  *after, *before;

    after = &f->after;
    before = &f->before;

    for (i = 0; i < after->ntags; i++) {
        tag = &after->tags[i];

        if (nango_owner_key(f->keys_after[i], after->environment, tag->name,
                            tag->value)
            != 0)
        {
            return ENOMEM;
        }
    }

    for (i = 0; i < before->ntags; i++) {
        tag = &before->tags[i];

        for (j = 0; j < after->ntags; j++) {

            if (nango_str_eq(after->tags[j].name, tag->name)
                && nango_str_eq(after->tags[j].value, tag->value))
            {
                break;
            }
        }

        if (j < after->ntags) {
            memcpy(f->keys_before[i], f->keys_after[j], NANGO_KEY_LEN);
            continue;
        }

        if (nango_owner_key(f->keys_before[i], after->environment, tag->name,
                            tag->value)
            != 0)
        {
            return ENOMEM;
        }
    }

    return 0;
}


static int
nango_fold_put(nango_fold_t *f)
{
    MDB_val  key, val;

    f->writes++;

    key = nango_val(f->after.key, NANGO_KEY_LEN);
    val = nango_val(f->buf, f->len);

    return mdb_put(f->txn, f->store->connections, &key, &val, 0);
}


static int
nango_fold_index(nango_fold_t *f)
{
    int     rc;
    size_t  i, before, after;

    before = nango_connection_indexed(&f->before) ? f->before.ntags : 0;
    after = nango_connection_indexed(&f->after) ? f->after.ntags : 0;

    for (i = 0; i < before; i++) {

        if (nango_fold_has(f->keys_after, after, f->keys_before[i])) {
            continue;
        }

        rc = nango_fold_owner(f, f->keys_before[i], 1);

        if (rc != 0 && rc != MDB_NOTFOUND) {
            return rc;
        }
    }

    for (i = 0; i < after; i++) {

        if (nango_fold_has(f->keys_before, before, f->keys_after[i])) {
            continue;
        }

        rc = nango_fold_owner(f, f->keys_after[i], 0);

        if (rc != 0) {
            return rc;
        }
    }

    return 0;
}


/* A connection that is in the index keeps its created sequence. */

static int
nango_fold_owner(nango_fold_t *f, const unsigned char owner[NANGO_KEY_LEN],
    int del)
{
    MDB_val        key, val;
    unsigned char  buf[NANGO_OWNERS_KEY_LEN], value[NANGO_OWNERS_VALUE_LEN];

    f->writes++;

    memcpy(buf, owner, NANGO_KEY_LEN);
    nango_put_be64(buf + NANGO_KEY_LEN, ~f->after.created_sequence);

    key = nango_val(buf, NANGO_OWNERS_KEY_LEN);

    if (del) {
        return mdb_del(f->txn, f->store->owners, &key, NULL);
    }

    memcpy(value, f->after.key, NANGO_KEY_LEN);
    nango_put_le(value + NANGO_KEY_LEN, f->mark, 4);

    val = nango_val(value, NANGO_OWNERS_VALUE_LEN);

    return mdb_put(f->txn, f->store->owners, &key, &val, 0);
}


static int
nango_fold_has(unsigned char keys[][NANGO_KEY_LEN], size_t n,
    const unsigned char key[NANGO_KEY_LEN])
{
    size_t  i;

    for (i = 0; i < n; i++) {

        if (memcmp(keys[i], key, NANGO_KEY_LEN) == 0) {
            return 1;
        }
    }

    return 0;
}


/*
 * Whose a connection was before its tags change, for events that are not
 * delivered yet.  The first write of an event, which may move its strings:
 * nothing of the connection before is looked at after it.
 */

static int
nango_fold_history(nango_fold_t *f, uint64_t sequence)
{
    if (f->before.status == NANGO_STATUS_NONE || !nango_fold_retagged(f)) {
        return 0;
    }

    return nango_fold_remember(f, sequence);
}


static int
nango_fold_remember(nango_fold_t *f, uint64_t sequence)
{
    size_t         len;
    MDB_val        key, val;
    unsigned char  buf[NANGO_HISTORY_KEY_LEN];

    f->writes++;
    f->remembered++;

    len = nango_connection_size(&f->before);

    free(f->history);
    f->history = malloc(len);

    if (f->history == NULL) {
        return ENOMEM;
    }

    nango_connection_encode(&f->before, f->history);

    memcpy(buf, f->before.key, NANGO_KEY_LEN);
    nango_put_be64(buf + NANGO_KEY_LEN, sequence);

    key = nango_val(buf, NANGO_HISTORY_KEY_LEN);
    val = nango_val(f->history, len);

    return mdb_put(f->txn, f->store->history, &key, &val, 0);
}


static int
nango_fold_retagged(const nango_fold_t *f)
{
    size_t                     i;
    nango_str_t                value;
    const nango_connection_t  *after, *before;

    after = &f->after;
    before = &f->before;

    if (after->ntags != before->ntags) {
        return 1;
    }

    for (i = 0; i < after->ntags; i++) {
        value = nango_connection_tag(before, after->tags[i].name);

        if (value.data == NULL
            || !nango_str_eq(value, after->tags[i].value))
        {
            return 1;
        }
    }

    return 0;
}


static int
nango_fold_change(nango_fold_t *f, uint64_t sequence)
{
    int             rc;
    size_t          i, n;
    MDB_val         key, val;
    unsigned char  *p, buf[NANGO_SEQUENCE_LEN];

    n = f->after.ntags;

    for (i = 0; i < f->before.ntags; i++) {

        if (!nango_fold_has(f->keys_after, f->after.ntags,
                            f->keys_before[i]))
        {
            n++;
        }
    }

    nango_put_be64(buf, sequence);

    key = nango_val(buf, NANGO_SEQUENCE_LEN);
    val = nango_val(NULL, NANGO_CHANGE_OWNERS + n * NANGO_KEY_LEN);

    rc = mdb_put(f->txn, f->store->changes, &key, &val,
                 MDB_APPEND|MDB_RESERVE);
    if (rc != 0) {
        return rc;
    }

    p = val.mv_data;

    nango_put_le(p, f->now_ms, 8);
    memcpy(p + 8, f->after.key, NANGO_KEY_LEN);

    p += NANGO_CHANGE_OWNERS;

    for (i = 0; i < f->after.ntags; i++) {
        memcpy(p, f->keys_after[i], NANGO_KEY_LEN);
        p += NANGO_KEY_LEN;
    }

    for (i = 0; i < f->before.ntags; i++) {

        if (!nango_fold_has(f->keys_after, f->after.ntags,
                            f->keys_before[i]))
        {
            memcpy(p, f->keys_before[i], NANGO_KEY_LEN);
            p += NANGO_KEY_LEN;
        }
    }

    return 0;
}


/* Counts, and the list of tombstones. */

static int
nango_fold_status(nango_fold_t *f, uint64_t sequence,
    const nango_record_t *rec)
{
    int             rc;
    MDB_val         key, val;
    unsigned char   buf[NANGO_SEQUENCE_LEN], tombstone[8 + NANGO_KEY_LEN];

    static const nango_count_e  counts[] = {
        NANGO_COUNT_N, NANGO_COUNT_VALID, NANGO_COUNT_INVALID,
        NANGO_COUNT_TOMBSTONES
    };

    if (f->before.status == f->after.status) {
        return 0;
    }

    if (f->before.status != NANGO_STATUS_NONE) {
        f->counts[counts[f->before.status]]--;
    }

    f->counts[counts[f->after.status]]++;

    key = nango_val(buf, NANGO_SEQUENCE_LEN);

    if (f->before.status == NANGO_STATUS_DELETED) {

        /* Nothing has changed it since it was deleted. */

        nango_put_be64(buf, f->before.updated_sequence);

        rc = mdb_del(f->txn, f->store->tombstones, &key, NULL);

        return (rc == MDB_NOTFOUND) ? 0 : rc;
    }

    if (f->after.status != NANGO_STATUS_DELETED) {
        return 0;
    }

    nango_put_be64(buf, sequence);
    nango_put_le(tombstone, rec->received_at, 8);
    memcpy(tombstone + 8, f->after.key, NANGO_KEY_LEN);

    val = nango_val(tombstone, sizeof(tombstone));

    return mdb_put(f->txn, f->store->tombstones, &key, &val, MDB_APPEND);
}


/*
 * By the time of the fold, which is when those who wait could first see them.
 * One from the future was left by a clock that has been set back.
 */

static int
nango_fold_drop_changes(nango_fold_t *f, nango_folded_t *folded,
    int *dropped)
{
    int             rc;
    MDB_val         key, val;
    uint64_t        n, max, time, sequence;
    MDB_cursor     *cursor;
    unsigned char   buf[8];

    rc = mdb_cursor_open(f->txn, f->store->changes, &cursor);
    if (rc != 0) {
        return rc;
    }

    sequence = 0;

    max = NANGO_FOLD_DROP + folded->events;

    for (n = 0; n < max; n++) {
        rc = mdb_cursor_get(cursor, &key, &val, MDB_FIRST);
        if (rc != 0) {
            break;
        }

        if (val.mv_size >= 8) {
            time = nango_get_le(val.mv_data, 8);

            if ((time <= f->now_ms ? f->now_ms - time : time - f->now_ms)
                <= NANGO_CHANGES_MS)
            {
                break;
            }
        }

        if (key.mv_size == NANGO_SEQUENCE_LEN) {
            sequence = nango_get_be64(key.mv_data);
        }

        rc = mdb_cursor_del(cursor, 0);
        if (rc != 0) {
            break;
        }
    }

    mdb_cursor_close(cursor);

    if (rc != 0 && rc != MDB_NOTFOUND) {
        return rc;
    }

    if (n == 0) {
        return 0;
    }

    *dropped = 1;
    folded->old |= (n == max);

    nango_put_le(buf, sequence, 8);

    return nango_meta_put(f->txn, f->store->state_meta, "forgotten", buf, 8);
}


static int
nango_fold_drop_tombstones(nango_fold_t *f, nango_folded_t *folded,
    int *dropped)
{
    int             rc;
    MDB_val         key, val, copy;
    uint64_t        n, max, time, sequence;
    MDB_cursor     *cursor;
    unsigned char   tombstone[8 + NANGO_KEY_LEN];

    rc = mdb_cursor_open(f->txn, f->store->tombstones, &cursor);
    if (rc != 0) {
        return rc;
    }

    max = NANGO_FOLD_DROP + folded->events;

    for (n = 0; n < max; n++) {
        rc = mdb_cursor_get(cursor, &key, &val, MDB_FIRST);
        if (rc != 0) {
            break;
        }

        sequence = 0;
        copy = nango_val(tombstone, 0);

        if (key.mv_size == NANGO_SEQUENCE_LEN
            && val.mv_size == sizeof(tombstone))
        {
            time = nango_get_le(val.mv_data, 8);

            if (f->now_ms < time || f->now_ms - time <= f->retain_ms) {
                break;
            }

            sequence = nango_get_be64(key.mv_data);
            memcpy(tombstone, val.mv_data, sizeof(tombstone));
            copy.mv_size = sizeof(tombstone);
        }

        rc = mdb_cursor_del(cursor, 0);

        if (rc == 0 && copy.mv_size != 0) {
            rc = nango_fold_drop_tombstone(f, sequence, copy);
        }

        if (rc != 0) {
            break;
        }
    }

    mdb_cursor_close(cursor);

    if (n != 0) {
        *dropped = 1;
        folded->old |= (n == max);
    }

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


/* The connection itself, if it is still the one that was deleted then. */

static int
nango_fold_drop_tombstone(nango_fold_t *f, uint64_t sequence,
    MDB_val tombstone)
{
    int                   rc;
    MDB_val               key, val;
    const unsigned char  *connection;

    connection = (unsigned char *) tombstone.mv_data + 8;

    key = nango_val(connection, NANGO_KEY_LEN);

    rc = mdb_get(f->txn, f->store->connections, &key, &val);

    if (rc == MDB_NOTFOUND) {
        return 0;
    }

    if (rc != 0) {
        return rc;
    }

    if (nango_connection_decode(&f->before, connection,
                                nango_str(val.mv_data, val.mv_size))
        != 0
        || f->before.status != NANGO_STATUS_DELETED
        || f->before.updated_sequence != sequence)
    {
        return 0;
    }

    f->counts[NANGO_COUNT_TOMBSTONES]--;

    /* As if the next event changed it: for those that the log still has. */

    if (f->first != 0 && f->first <= sequence) {
        rc = nango_fold_remember(f, f->applied + 1);
        if (rc != 0) {
            return rc;
        }
    }

    return mdb_del(f->txn, f->store->connections, &key, NULL);
}


/*
 * What no event before it is left for.  Rows are in the order of connections,
 * so a round over all of them is made in steps, and another one only once the
 * log begins later.
 */

static int
nango_fold_drop_history(nango_fold_t *f, int *dropped)
{
    int             rc;
    MDB_val         key, val;
    uint64_t        n, max, first;
    MDB_cursor     *cursor;
    nango_store_t  *store;

    store = f->store;
    first = f->first ? f->first : UINT64_MAX;

    if (store->history_done == first) {
        return 0;
    }

    rc = mdb_cursor_open(f->txn, store->history, &cursor);
    if (rc != 0) {
        return rc;
    }

    if (store->history_first == 0) {
        store->history_first = first;
    }

    max = NANGO_FOLD_DROP + NANGO_FOLD_LOOK * f->remembered;

    for (n = 0; n < max; n++) {
        key = nango_val(store->history_at, NANGO_HISTORY_KEY_LEN);

        rc = mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);
        if (rc != 0) {
            break;
        }

        if (key.mv_size == NANGO_HISTORY_KEY_LEN) {
            memcpy(store->history_at, key.mv_data, NANGO_HISTORY_KEY_LEN);

            if (nango_get_be64(store->history_at + NANGO_KEY_LEN) > first) {
                nango_fold_next(store->history_at);
                continue;
            }
        }

        rc = mdb_cursor_del(cursor, 0);
        if (rc != 0) {
            break;
        }

        *dropped = 1;
    }

    mdb_cursor_close(cursor);

    if (rc != MDB_NOTFOUND) {
        return rc;
    }

    store->history_done = store->history_first;
    store->history_first = 0;
    memset(store->history_at, 0, NANGO_HISTORY_KEY_LEN);

    return 0;
}


/* The key after that one. */

static void
nango_fold_next(unsigned char key[NANGO_HISTORY_KEY_LEN])
{
    int  i;

    for (i = NANGO_HISTORY_KEY_LEN - 1; i >= 0; i--) {

        if (++key[i] != 0) {
            break;
        }
    }
}


static int
nango_fold_end(nango_fold_t *f, uint64_t applied)
{
    int            i, rc;
    unsigned char  buf[8 * NANGO_COUNT_N];

    nango_put_le(buf, applied, 8);

    rc = nango_meta_put(f->txn, f->store->state_meta, "applied", buf, 8);
    if (rc != 0) {
        return rc;
    }

    for (i = 0; i < NANGO_COUNT_N; i++) {
        nango_put_le(buf + i * 8, f->counts[i], 8);
    }

    return nango_meta_put(f->txn, f->store->state_meta, "counts", buf,
                          sizeof(buf));
}
