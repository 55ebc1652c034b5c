/*
 * Copyright (C) nginx-nango authors
 *
 * The writer.  A commit is two waits for the disk and as few pages as there
 * can be: keys only grow, so LMDB fills its last leaf and starts the next,
 * and nothing else is written along.
 *
 * Duplicates are told inside the write transaction, where nobody else can
 * append: by a private table of what the log has gained lately.  It is a
 * cache of the log and nothing more; what a batch has put into it is taken
 * out again if the batch does not get to the disk.
 *
 * The table is a ring of entries in the order of their sequences and a hash
 * index over it.  Entries enter at one end and are forgotten at the other, so
 * nothing is allocated for an entry, and memory is bounded.  Entries are known
 * by their position, which only grows: a chain runs from newer to older ones
 * and ends where a position is no longer in the ring, so that forgetting an
 * entry does not have to find out who points at it.  HMACs come from SHA-256
 * and are good hashes as they are.
 */


#include "nango_log.h"
#include "nango_tables.h"

#include <errno.h>
#include <stdlib.h>


#define NANGO_SEEN_MIN    1024

/*
 * How far a chain is followed.  Only bytes that come again and again without
 * being compared, in an environment with "dedupe 0", make long ones.
 */
#define NANGO_SEEN_CHAIN  64

/* Receiving may take longer for some: how much older than its neighbours. */
#define NANGO_SEEN_SLACK  (60 * 1000)


typedef struct {
    uint64_t              sequence;
    uint64_t              received_at;
    uint64_t              next;         /* position */
    unsigned char         environment[NANGO_KEY_LEN];
    unsigned char         hmac[NANGO_HMAC_LEN];
} nango_seen_entry_t;

typedef struct {
    nango_seen_entry_t   *entries;
    uint64_t             *index;        /* position of the newest */
    size_t                size;         /* of both, a power of two */
    uint64_t              head;         /* position of the oldest, from 1 on */
    uint64_t              tail;         /* of the next one to come */
} nango_seen_t;

struct nango_writer_s {
    nango_store_t        *store;
    uint64_t              remember_ms;
    nango_seen_t          seen;
    uint64_t              read;         /* the log up to here is in seen */
    int                   filled;
    uint64_t              generation;   /* of the store that was read */
    nango_names_t         names;
};

/* One attempt to write a batch. */
typedef struct {
    nango_writer_t       *writer;
    MDB_txn              *txn;
    MDB_cursor           *cursor;
    uint64_t              last;         /* before the batch */
    uint64_t              next;
    uint64_t              mark;         /* seen.tail before the batch */
    nango_rc_e            rc;
    nango_error_t        *err;
    nango_log_more_pt     more;         /* NULL: has been asked */
    void                 *data;
} nango_batch_t;


static nango_rc_e nango_log_try(nango_batch_t *b, nango_write_t **jobs,
    size_t *n, uint64_t now);
static nango_rc_e nango_log_write(nango_batch_t *b, nango_write_t **jobs,
    size_t *n, uint64_t now);
static nango_rc_e nango_log_sync(nango_batch_t *b, nango_write_t **jobs,
    size_t n);
static void nango_log_fail(nango_write_t **jobs, size_t n, uint64_t last);
static uint64_t nango_log_prepare(nango_write_t **jobs, size_t n,
    uint64_t now);
static int nango_batch_write(nango_batch_t *b, nango_write_t **jobs,
    size_t *n);
static nango_rc_e nango_batch_begin(nango_batch_t *b);
static int nango_batch_put(nango_batch_t *b, nango_write_t *job);
static int nango_batch_overtaken(nango_batch_t *b, uint64_t unseen,
    const nango_record_t *rec, int *overtaken);
static void nango_batch_abort(nango_batch_t *b);
static void nango_batch_failed(nango_batch_t *b, nango_write_t *job,
    const nango_error_t *err);
static nango_rc_e nango_writer_fill(nango_writer_t *w, uint64_t now,
    nango_error_t *err);
static int nango_writer_fill_from(nango_writer_t *w, MDB_cursor *cursor,
    uint64_t now, uint64_t *from);
static int nango_writer_catch_up(nango_writer_t *w, MDB_cursor *cursor,
    uint64_t last);
static int nango_writer_remember(nango_writer_t *w, uint64_t sequence,
    const nango_record_t *rec);
static int nango_seen_init(nango_seen_t *seen);
static void nango_seen_clear(nango_seen_t *seen);
static void nango_seen_add(nango_seen_t *seen, uint64_t sequence,
    uint64_t received_at, const unsigned char environment[NANGO_KEY_LEN],
    const unsigned char hmac[NANGO_HMAC_LEN]);
static void nango_seen_grow(nango_seen_t *seen);
static void nango_seen_expire(nango_seen_t *seen, uint64_t now,
    uint64_t remember_ms);
static void nango_seen_rollback(nango_seen_t *seen, uint64_t mark);
static uint64_t nango_seen_find(nango_seen_t *seen, const nango_write_t *job);
static nango_rc_e nango_log_ends(nango_store_t *store, uint64_t *first,
    uint64_t *last, nango_error_t *err);
static int nango_log_steps(nango_store_t *store, uint64_t from,
    int (*handler)(void *data, uint64_t sequence,
    const nango_record_t *record), void *data, uint64_t *unknown,
    nango_error_t *err);


static inline size_t
nango_seen_hash(const nango_seen_t *seen, const unsigned char *hmac)
{
    return (size_t) nango_get_le(hmac, 8) & (seen->size - 1);
}


static inline uint64_t
nango_log_apart(uint64_t a, uint64_t b)
{
    return (a > b) ? a - b : b - a;
}


nango_writer_t *
nango_writer_create(nango_store_t *store, uint64_t remember_ms)
{
    nango_writer_t  *w;

    w = calloc(1, sizeof(nango_writer_t));
    if (w == NULL) {
        return NULL;
    }

    w->store = store;
    w->remember_ms = remember_ms;

    if (nango_seen_init(&w->seen) != 0) {
        nango_writer_free(w);
        return NULL;
    }

    return w;
}


void
nango_writer_free(nango_writer_t *w)
{
    if (w == NULL) {
        return;
    }

    free(w->seen.entries);
    free(w->seen.index);
    free(w);
}


nango_rc_e
nango_log_commit(nango_writer_t *w, nango_write_t **jobs, size_t n,
    nango_error_t *err)
{
    return nango_log_commit_more(w, jobs, &n, NULL, NULL, err);
}


nango_rc_e
nango_log_commit_more(nango_writer_t *w, nango_write_t **jobs, size_t *n,
    nango_log_more_pt more, void *data, nango_error_t *err)
{
    uint64_t        now;
    nango_rc_e      rc;
    nango_batch_t   b;

    if (*n == 0) {
        return NANGO_OK;
    }

    now = nango_log_prepare(jobs, *n, 0);

    rc = nango_store_inside(w->store, err);

    if (rc != NANGO_OK) {
        nango_log_fail(jobs, *n, 0);
        return rc;
    }

    if (w->generation != w->store->generation) {

        /* Perhaps another log, and perhaps without what is remembered. */

        nango_seen_clear(&w->seen);
        w->read = 0;
        w->filled = 0;
        w->generation = w->store->generation;
    }

    memset(&b, 0, sizeof(nango_batch_t));

    b.writer = w;
    b.err = err;
    b.more = more;
    b.data = data;

    rc = nango_log_try(&b, jobs, n, now);

    nango_store_leave(w->store);

    return rc;
}


static nango_rc_e
nango_log_try(nango_batch_t *b, nango_write_t **jobs, size_t *n, uint64_t now)
{
    nango_rc_e      rc;
    nango_guard_t   guard;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = nango_log_write(b, jobs, n, now);

    } else {

        /* The next one to write reads the log anew. */

        b->writer->generation = 0;

        rc = nango_store_fault(b->writer->store, &guard, 0, b->err);
        nango_log_fail(jobs, *n, 0);
    }

    nango_guard_end(&guard);

    return rc;
}


static nango_rc_e
nango_log_write(nango_batch_t *b, nango_write_t **jobs, size_t *n,
    uint64_t now)
{
    nango_rc_e       rc;
    nango_writer_t  *w;

    w = b->writer;

    if (w->remember_ms && !w->filled) {
        rc = nango_writer_fill(w, now, b->err);

        if (rc != NANGO_OK) {
            nango_log_fail(jobs, *n, 0);
            return rc;
        }
    }

    nango_seen_expire(&w->seen, now, w->remember_ms);

    while (nango_batch_write(b, jobs, n)) {
        /* without the job that cannot be written */
    }

    return b->rc;
}


/* Returns the time of the newest job, or now if that is later. */

static uint64_t
nango_log_prepare(nango_write_t **jobs, size_t n, uint64_t now)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        jobs[i]->result = NANGO_WRITE_NONE;
        jobs[i]->sequence = 0;

        if (jobs[i]->received_at > now) {
            now = jobs[i]->received_at;
        }
    }

    return now;
}


/*
 * Nothing of the batch is known to be on the disk.  Duplicates of what was
 * there before it are what they are.
 */

static void
nango_log_fail(nango_write_t **jobs, size_t n, uint64_t last)
{
    size_t  i;

    for (i = 0; i < n; i++) {

        if (jobs[i]->result == NANGO_WRITE_FULL
            || (jobs[i]->result == NANGO_WRITE_DUPLICATE
                && jobs[i]->sequence <= last))
        {
            continue;
        }

        jobs[i]->result = NANGO_WRITE_FAILED;
        jobs[i]->sequence = 0;
    }
}


/* 1: a job was left out, the others have to be written again. */

static int
nango_batch_write(nango_batch_t *b, nango_write_t **jobs, size_t *n)
{
    int              rc;
    size_t           i, stored, first;
    nango_rc_e       code;
    nango_error_t    err;
    nango_write_t   *job;
    nango_writer_t  *w;

    w = b->writer;

    code = nango_batch_begin(b);

    if (code != NANGO_OK) {
        b->rc = code;
        nango_log_fail(jobs, *n, 0);
        return 0;
    }

    if (b->more) {
        first = *n;
        *n = b->more(b->data, jobs, first);
        b->more = NULL;

        (void) nango_log_prepare(jobs + first, *n - first, 0);
    }

    stored = 0;

    for (i = 0; i < *n; i++) {
        job = jobs[i];

        if (job->result == NANGO_WRITE_FULL
            || job->result == NANGO_WRITE_FAILED)
        {
            continue;
        }

        rc = nango_batch_put(b, job);

        if (rc != 0) {

            /* A put that failed has spoiled its transaction. */

            code = nango_store_error(w->store, &err, rc, "mdb_put()", "log");

            nango_batch_abort(b);

            if (code == NANGO_EFULL || code == NANGO_ENOMEM
                || code == NANGO_EINVAL || rc == MDB_TXN_FULL)
            {
                job->result = (code == NANGO_EFULL) ? NANGO_WRITE_FULL
                                                    : NANGO_WRITE_FAILED;
                nango_batch_failed(b, job, &err);
                return 1;
            }

            nango_batch_failed(b, job, &err);
            nango_log_fail(jobs, *n, b->last);
            return 0;
        }

        if (job->result == NANGO_WRITE_STORED) {
            stored++;
        }
    }

    mdb_cursor_close(b->cursor);
    b->cursor = NULL;

    if (stored == 0) {
        nango_batch_abort(b);
        b->rc = nango_log_sync(b, jobs, *n);
        return 0;
    }

    code = nango_store_commit(w->store, b->txn, b->err, "log");

    if (code != NANGO_OK) {
        nango_seen_rollback(&w->seen, b->mark);
        nango_log_fail(jobs, *n, b->last);
        b->rc = code;
        return 0;
    }

    w->read = b->next - 1;

    return 0;
}


/*
 * A duplicate's first one is on the disk as far as we know.  But whoever wrote
 * it may have died before it knew, and then only the next sync of ours tells.
 */

static nango_rc_e
nango_log_sync(nango_batch_t *b, nango_write_t **jobs, size_t n)
{
    int             rc;
    size_t          i;
    nango_rc_e      code;

    for (i = 0; i < n; i++) {

        if (jobs[i]->result == NANGO_WRITE_DUPLICATE) {
            break;
        }
    }

    if (i == n) {
        return b->rc;
    }

    rc = mdb_env_sync(b->writer->store->log, 1);

    if (rc == 0) {
        return b->rc;
    }

    code = nango_store_error(b->writer->store, b->err, rc, "mdb_env_sync()",
                             "log");

    nango_log_fail(jobs, n, 0);

    return code;
}


static nango_rc_e
nango_batch_begin(nango_batch_t *b)
{
    int              rc;
    uint64_t         last;
    MDB_val          key, val;
    nango_rc_e       code;
    const char      *func;
    nango_store_t   *store;
    nango_writer_t  *w;

    w = b->writer;
    store = w->store;

    last = 0;

    code = nango_store_begin(store, 0, &b->txn, b->err);

    if (code != NANGO_OK) {
        return code;
    }

    func = "mdb_cursor_open()";

    rc = mdb_cursor_open(b->txn, store->events, &b->cursor);

    if (rc == 0) {
        func = "mdb_cursor_get()";
        rc = mdb_cursor_get(b->cursor, &key, &val, MDB_LAST);

        if (rc == 0) {

            if (key.mv_size == NANGO_SEQUENCE_LEN) {
                last = nango_get_be64(key.mv_data);

            } else {
                rc = MDB_CORRUPTED;
            }

        } else if (rc == MDB_NOTFOUND) {
            rc = 0;
        }

        if (rc == 0 && w->remember_ms && last != w->read) {
            rc = nango_writer_catch_up(w, b->cursor, last);
        }
    }

    if (rc == 0) {
        func = "mdb_get()";
        rc = nango_meta_u64(b->txn, store->log_meta, "floor", &b->last);
    }

    if (b->last < last) {
        b->last = last;
    }

    /* So many have never been given out: the one after the last would be 0. */

    if (rc == 0 && b->last > INT64_MAX) {
        rc = MDB_CORRUPTED;
    }

    b->mark = w->seen.tail;

    if (rc != 0) {
        nango_batch_abort(b);
        return nango_store_error(store, b->err, rc, func, "log");
    }

    b->next = b->last + 1;

    return NANGO_OK;
}


/* LMDB's code; the job's result, unless the code is that of a failure. */

static int
nango_batch_put(nango_batch_t *b, nango_write_t *job)
{
    int              rc, dedupes, overtaken;
    uint64_t         used;
    MDB_val          key, val;
    MDB_stat         stat;
    nango_error_t    err;
    nango_store_t   *store;
    nango_record_t   rec;
    nango_writer_t  *w;
    unsigned char    sequence[NANGO_SEQUENCE_LEN];

    w = b->writer;
    store = w->store;

    if (nango_record_decode(&rec, nango_str(job->record, job->len)) != 0) {
        (void) nango_error_set(&err, NANGO_EINVAL,
                               "a job for \"%s/log\" is no record",
                               store->path);
        job->result = NANGO_WRITE_FAILED;
        nango_batch_failed(b, job, &err);
        return 0;
    }

    dedupes = (w->remember_ms != 0 && nango_type_dedupes(rec.type));

    if (dedupes && job->dedupe_ms) {
        job->sequence = nango_seen_find(&w->seen, job);

        if (job->sequence != 0) {
            job->result = NANGO_WRITE_DUPLICATE;
            return 0;
        }
    }

    if (job->unseen) {
        rc = nango_batch_overtaken(b, job->unseen, &rec, &overtaken);
        if (rc != 0) {
            return rc;
        }

        if (overtaken) {
            job->result = NANGO_WRITE_OVERTAKEN;
            job->sequence = 0;
            return 0;
        }
    }

    rc = mdb_stat(b->txn, store->events, &stat);
    if (rc != 0) {
        return rc;
    }

    used = ((uint64_t) stat.ms_branch_pages + stat.ms_leaf_pages
            + stat.ms_overflow_pages) * stat.ms_psize;

    if (used + job->len > store->size) {
        (void) nango_error_set(&err, NANGO_EFULL,
                               "\"%s/log\" has reached its size of %llu bytes",
                               store->path,
                               (unsigned long long) store->size);
        job->result = NANGO_WRITE_FULL;
        nango_batch_failed(b, job, &err);
        return 0;
    }

    nango_put_be64(sequence, b->next);

    key = nango_val(sequence, NANGO_SEQUENCE_LEN);
    val = nango_val(NULL, job->len);

    rc = mdb_cursor_put(b->cursor, &key, &val, MDB_APPEND|MDB_RESERVE);
    if (rc != 0) {
        return rc;
    }

    memcpy(val.mv_data, job->record, job->len);

    job->result = NANGO_WRITE_STORED;
    job->sequence = b->next++;

    if (dedupes) {
        nango_seen_add(&w->seen, job->sequence, job->received_at,
                       job->environment, job->hmac);
    }

    return 0;
}


/*
 * Here, where nobody else can append, since whoever asks has looked before:
 * between that and this there are a queue and a wait for the disk.  Of what
 * others wrote meanwhile only the heads are read, in pages that were written
 * just now.  LMDB's code.
 */

static int
nango_batch_overtaken(nango_batch_t *b, uint64_t unseen,
    const nango_record_t *rec, int *overtaken)
{
    int             rc;
    MDB_val         key, val;
    uint64_t        next;
    nango_record_t  other;
    unsigned char   sequence[NANGO_SEQUENCE_LEN];

    *overtaken = 1;

    if (b->next > NANGO_LOG_UNSEEN && unseen < b->next - NANGO_LOG_UNSEEN) {
        return 0;
    }

    nango_put_be64(sequence, unseen);
    key = nango_val(sequence, NANGO_SEQUENCE_LEN);

    rc = mdb_cursor_get(b->cursor, &key, &val, MDB_SET_RANGE);

    for (next = unseen; rc == 0; next++) {

        if (key.mv_size != NANGO_SEQUENCE_LEN) {
            return MDB_CORRUPTED;
        }

        if (nango_record_decode(&other, nango_str(val.mv_data, val.mv_size))
            != 0
            || (other.type == NANGO_TYPE_AUTH
                && nango_str_eq(other.connection_id, rec->connection_id)
                && nango_str_eq(other.integration, rec->integration)
                && nango_str_eq(other.environment, rec->environment)))
        {
            return 0;
        }

        rc = mdb_cursor_get(b->cursor, &key, &val, MDB_NEXT);
    }

    if (rc != MDB_NOTFOUND) {
        return rc;
    }

    /* Else not all of them are there any more. */

    *overtaken = (next != b->next);

    return 0;
}


static void
nango_batch_abort(nango_batch_t *b)
{
    if (b->cursor != NULL) {
        mdb_cursor_close(b->cursor);
        b->cursor = NULL;
    }

    mdb_txn_abort(b->txn);

    nango_seen_rollback(&b->writer->seen, b->mark);
}


/* What is told of a batch is the reason of the first that failed. */

static void
nango_batch_failed(nango_batch_t *b, nango_write_t *job,
    const nango_error_t *err)
{
    job->sequence = 0;

    if (b->rc != NANGO_OK) {
        return;
    }

    b->rc = err->code;

    if (b->err != NULL) {
        *b->err = *err;
    }
}


/*
 * The first time: what the log has gained within the time that is remembered.
 * Outside of the write transaction, since a cold log may have to be read from
 * the disk; what is appended meanwhile is caught up inside.
 */

static nango_rc_e
nango_writer_fill(nango_writer_t *w, uint64_t now, nango_error_t *err)
{
    int          rc;
    uint64_t     from, last;
    MDB_val      key, val;
    MDB_txn     *txn;
    MDB_cursor  *cursor;

    rc = mdb_txn_begin(w->store->log, NULL, MDB_RDONLY, &txn);
    if (rc != 0) {
        return nango_store_error(w->store, err, rc, "mdb_txn_begin()", "log");
    }

    rc = mdb_cursor_open(txn, w->store->events, &cursor);

    if (rc == 0) {
        rc = nango_writer_fill_from(w, cursor, now, &from);

        if (rc == 0) {
            rc = mdb_cursor_get(cursor, &key, &val, MDB_LAST);
        }

        if (rc == 0 && key.mv_size != NANGO_SEQUENCE_LEN) {
            rc = MDB_CORRUPTED;
        }

        if (rc == 0) {
            last = nango_get_be64(key.mv_data);
            w->read = from;
            rc = nango_writer_catch_up(w, cursor, last);

        } else if (rc == MDB_NOTFOUND) {
            rc = 0;
        }

        mdb_cursor_close(cursor);
    }

    mdb_txn_abort(txn);

    if (rc != 0) {
        return nango_store_error(w->store, err, rc, "mdb_cursor_get()", "log");
    }

    w->filled = 1;

    return NANGO_OK;
}


/* Backwards to the first that is too old, or as far as can be remembered. */

static int
nango_writer_fill_from(nango_writer_t *w, MDB_cursor *cursor, uint64_t now,
    uint64_t *from)
{
    int             rc;
    size_t          n;
    MDB_val         key, val;
    nango_record_t  rec;

    *from = 0;

    rc = mdb_cursor_get(cursor, &key, &val, MDB_LAST);

    for (n = 0; rc == 0; n++) {

        if (key.mv_size != NANGO_SEQUENCE_LEN) {
            return MDB_CORRUPTED;
        }

        *from = nango_get_be64(key.mv_data);

        if (n == NANGO_LOG_REMEMBERED) {
            return 0;
        }

        if (nango_record_decode(&rec, nango_str(val.mv_data, val.mv_size)) == 0
            && now > rec.received_at
            && now - rec.received_at > w->remember_ms + NANGO_SEEN_SLACK)
        {
            return 0;
        }

        rc = mdb_cursor_get(cursor, &key, &val, MDB_PREV);
    }

    *from = 0;

    return (rc == MDB_NOTFOUND) ? 0 : rc;
}


/* From the one after w->read up to last, which is the cursor's last. */

static int
nango_writer_catch_up(nango_writer_t *w, MDB_cursor *cursor, uint64_t last)
{
    int             rc;
    MDB_val         key, val;
    nango_record_t  rec;
    unsigned char   sequence[NANGO_SEQUENCE_LEN];

    if (last < w->read) {

        /* This is not the log that was read: begin anew. */

        nango_seen_clear(&w->seen);
        w->read = 0;
    }

    nango_put_be64(sequence, w->read + 1);
    key = nango_val(sequence, NANGO_SEQUENCE_LEN);

    rc = mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);

    while (rc == 0) {

        if (key.mv_size != NANGO_SEQUENCE_LEN) {
            return MDB_CORRUPTED;
        }

        if (nango_record_decode(&rec, nango_str(val.mv_data, val.mv_size))
            == 0)
        {
            rc = nango_writer_remember(w, nango_get_be64(key.mv_data), &rec);
            if (rc != 0) {
                return rc;
            }
        }

        rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }

    if (rc != MDB_NOTFOUND) {
        return rc;
    }

    w->read = last;

    return 0;
}


static int
nango_writer_remember(nango_writer_t *w, uint64_t sequence,
    const nango_record_t *rec)
{
    const unsigned char  *key;

    if (!nango_type_dedupes(rec->type)) {
        return 0;
    }

    key = nango_names_key(&w->names, rec->environment);
    if (key == NULL) {
        return ENOMEM;
    }

    nango_seen_add(&w->seen, sequence, rec->received_at, key, rec->hmac);

    return 0;
}


const unsigned char *
nango_names_key(nango_names_t *names, nango_str_t name)
{
    size_t         i;
    nango_name_t  *n;

    for (i = 0; i < NANGO_NAMES; i++) {
        n = &names->names[i];

        if (n->len != 0 && n->len == name.len
            && memcmp(n->name, name.data, n->len) == 0)
        {
            return n->key;
        }
    }

    n = &names->names[names->next++ % NANGO_NAMES];
    n->len = 0;

    if (nango_environment_key(n->key, name) != 0) {
        return NULL;
    }

    if (name.len != 0 && name.len <= NANGO_NAME_LEN) {
        memcpy(n->name, name.data, name.len);
        n->len = name.len;
    }

    return n->key;
}


static int
nango_seen_init(nango_seen_t *seen)
{
    seen->size = NANGO_SEEN_MIN;
    seen->head = 1;
    seen->tail = 1;

    seen->entries = malloc(seen->size * sizeof(nango_seen_entry_t));
    seen->index = calloc(seen->size, sizeof(uint64_t));

    return (seen->entries != NULL && seen->index != NULL) ? 0 : -1;
}


static void
nango_seen_clear(nango_seen_t *seen)
{
    seen->head = seen->tail;
}


static void
nango_seen_add(nango_seen_t *seen, uint64_t sequence, uint64_t received_at,
    const unsigned char environment[NANGO_KEY_LEN],
    const unsigned char hmac[NANGO_HMAC_LEN])
{
    size_t               i;
    nango_seen_entry_t  *e;

    if (seen->tail - seen->head == seen->size) {
        nango_seen_grow(seen);
    }

    if (seen->tail - seen->head == seen->size) {
        seen->head++;
    }

    i = nango_seen_hash(seen, hmac);
    e = &seen->entries[seen->tail & (seen->size - 1)];

    e->sequence = sequence;
    e->received_at = received_at;
    e->next = seen->index[i];
    memcpy(e->environment, environment, NANGO_KEY_LEN);
    memcpy(e->hmac, hmac, NANGO_HMAC_LEN);

    seen->index[i] = seen->tail++;
}


/* Positions stay.  Without memory the oldest are forgotten instead. */

static void
nango_seen_grow(nango_seen_t *seen)
{
    size_t               i, size;
    uint64_t             pos, *index;
    nango_seen_entry_t  *entries, *e;

    size = seen->size * 2;

    if (size > NANGO_LOG_REMEMBERED) {
        return;
    }

    entries = malloc(size * sizeof(nango_seen_entry_t));
    index = calloc(size, sizeof(uint64_t));

    if (entries == NULL || index == NULL) {
        free(entries);
        free(index);
        return;
    }

    for (pos = seen->head; pos < seen->tail; pos++) {
        e = &entries[pos & (size - 1)];
        *e = seen->entries[pos & (seen->size - 1)];

        i = (size_t) nango_get_le(e->hmac, 8) & (size - 1);
        e->next = index[i];
        index[i] = pos;
    }

    free(seen->entries);
    free(seen->index);

    seen->entries = entries;
    seen->index = index;
    seen->size = size;
}


/*
 * Also those from the future, which a clock that was set back leaves behind:
 * they are too far from what comes now to be the same.
 */

static void
nango_seen_expire(nango_seen_t *seen, uint64_t now, uint64_t remember_ms)
{
    nango_seen_entry_t  *e;

    while (seen->head < seen->tail) {
        e = &seen->entries[seen->head & (seen->size - 1)];

        if (nango_log_apart(now, e->received_at)
            <= remember_ms + NANGO_SEEN_SLACK)
        {
            break;
        }

        seen->head++;
    }
}


/* The newest first, each of which is the first of its chain. */

static void
nango_seen_rollback(nango_seen_t *seen, uint64_t mark)
{
    nango_seen_entry_t  *e;

    while (seen->tail > mark && seen->tail > seen->head) {
        seen->tail--;
        e = &seen->entries[seen->tail & (seen->size - 1)];
        seen->index[nango_seen_hash(seen, e->hmac)] = e->next;
    }
}


/* The first one's sequence, or 0. */

static uint64_t
nango_seen_find(nango_seen_t *seen, const nango_write_t *job)
{
    int                  n;
    uint64_t             pos, found;
    nango_seen_entry_t  *e;

    found = 0;
    pos = seen->index[nango_seen_hash(seen, job->hmac)];

    for (n = 0; pos >= seen->head && n < NANGO_SEEN_CHAIN; n++) {
        e = &seen->entries[pos & (seen->size - 1)];

        if (memcmp(e->hmac, job->hmac, NANGO_HMAC_LEN) == 0
            && memcmp(e->environment, job->environment, NANGO_KEY_LEN) == 0
            && nango_log_apart(e->received_at, job->received_at)
               <= job->dedupe_ms)
        {
            found = e->sequence;
        }

        pos = e->next;
    }

    return found;
}


nango_rc_e
nango_log_bounds(nango_store_t *store, uint64_t *first, uint64_t *last,
    nango_error_t *err)
{
    nango_rc_e      code;
    nango_guard_t   guard;

    *first = 0;
    *last = 0;

    code = nango_store_inside(store, err);
    if (code != NANGO_OK) {
        return code;
    }

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        code = nango_log_ends(store, first, last, err);

    } else {
        code = nango_store_fault(store, &guard, -1, err);
    }

    nango_guard_end(&guard);
    nango_store_leave(store);

    return code;
}


static nango_rc_e
nango_log_ends(nango_store_t *store, uint64_t *first, uint64_t *last,
    nango_error_t *err)
{
    int          rc;
    MDB_val      key, val;
    MDB_txn     *txn;
    MDB_cursor  *cursor;

    rc = mdb_txn_begin(store->log, NULL, MDB_RDONLY, &txn);

    if (rc == 0) {
        rc = mdb_cursor_open(txn, store->events, &cursor);

        if (rc == 0) {
            rc = mdb_cursor_get(cursor, &key, &val, MDB_FIRST);

            if (rc == 0) {

                if (key.mv_size == NANGO_SEQUENCE_LEN) {
                    *first = nango_get_be64(key.mv_data);

                } else {
                    rc = MDB_CORRUPTED;
                }

            } else if (rc == MDB_NOTFOUND) {
                rc = 0;
            }

            mdb_cursor_close(cursor);
        }

        if (rc == 0) {
            rc = nango_log_last(txn, store, last);
        }

        mdb_txn_abort(txn);
    }

    return nango_store_error(store, err, rc, "mdb_cursor_get()", "log");
}


int
nango_log_last(MDB_txn *txn, nango_store_t *store, uint64_t *last)
{
    int          rc;
    MDB_val      key, val;
    uint64_t     sequence;
    MDB_cursor  *cursor;

    rc = nango_meta_u64(txn, store->log_meta, "floor", last);
    if (rc != 0) {
        return rc;
    }

    rc = mdb_cursor_open(txn, store->events, &cursor);
    if (rc != 0) {
        return rc;
    }

    rc = mdb_cursor_get(cursor, &key, &val, MDB_LAST);

    if (rc == 0) {

        if (key.mv_size == NANGO_SEQUENCE_LEN) {
            sequence = nango_get_be64(key.mv_data);

            if (sequence > *last) {
                *last = sequence;
            }

        } else {
            rc = MDB_CORRUPTED;
        }

    } else if (rc == MDB_NOTFOUND) {
        rc = 0;
    }

    mdb_cursor_close(cursor);

    return rc;
}


int
nango_log_scan(nango_store_t *store, uint64_t from,
    int (*handler)(void *data, uint64_t sequence,
    const nango_record_t *record), void *data, nango_error_t *err)
{
    uint64_t  unknown;

    unknown = 0;

    return nango_log_walk(store, from, handler, data, &unknown, err);
}


int
nango_log_walk(nango_store_t *store, uint64_t from,
    int (*handler)(void *data, uint64_t sequence,
    const nango_record_t *record), void *data, uint64_t *unknown,
    nango_error_t *err)
{
    int             done;
    nango_guard_t   guard;

    if (nango_store_inside(store, err) != NANGO_OK) {
        return -1;
    }

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        done = nango_log_steps(store, from, handler, data, unknown, err);

    } else {
        (void) nango_store_fault(store, &guard, -1, err);
        done = -1;
    }

    nango_guard_end(&guard);
    nango_store_leave(store);

    return done;
}


static int
nango_log_steps(nango_store_t *store, uint64_t from,
    int (*handler)(void *data, uint64_t sequence,
    const nango_record_t *record), void *data, uint64_t *unknown,
    nango_error_t *err)
{
    int              rc, version, done;
    MDB_val          key, val;
    MDB_txn         *txn;
    MDB_cursor      *cursor;
    nango_record_t   rec;
    unsigned char    sequence[NANGO_SEQUENCE_LEN];

    done = 0;

    rc = mdb_txn_begin(store->log, NULL, MDB_RDONLY, &txn);
    if (rc != 0) {
        goto failed;
    }

    rc = mdb_cursor_open(txn, store->events, &cursor);
    if (rc != 0) {
        mdb_txn_abort(txn);
        goto failed;
    }

    nango_put_be64(sequence, from);
    key = nango_val(sequence, NANGO_SEQUENCE_LEN);

    rc = mdb_cursor_get(cursor, &key, &val, MDB_SET_RANGE);

    while (rc == 0) {

        if (key.mv_size != NANGO_SEQUENCE_LEN) {
            rc = MDB_CORRUPTED;
            break;
        }

        version = nango_record_decode(&rec,
                                      nango_str(val.mv_data, val.mv_size));

        if (version == 1) {
            (*unknown)++;

        } else {
            done = handler(data, nango_get_be64(key.mv_data),
                           (version == 0) ? &rec : NULL);

            if (done != 0) {
                break;
            }
        }

        rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT);
    }

    if (rc == MDB_NOTFOUND) {
        rc = 0;
    }

    mdb_cursor_close(cursor);
    mdb_txn_abort(txn);

failed:

    if (rc != 0) {
        (void) nango_store_error(store, err, rc, "mdb_cursor_get()", "log");
        done = -1;
    }

    return done;
}
