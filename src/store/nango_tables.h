/*
 * Copyright (C) nginx-nango authors
 *
 * What the files of this room share and nobody outside of it sees: the store's
 * LMDB environments with their tables, the bytes of integers, and the
 * connection record.  docs/internals.md has the layouts.
 */

#ifndef _NANGO_TABLES_H_INCLUDED_
#define _NANGO_TABLES_H_INCLUDED_


#include "nango_guard.h"
#include "nango_record.h"
#include "nango_state.h"
#include "nango_store.h"

#include <lmdb.h>

#include <pthread.h>
#include <stdatomic.h>
#include <sys/types.h>


#define NANGO_SEQUENCE_LEN     8
#define NANGO_OWNERS_KEY_LEN   (NANGO_KEY_LEN + NANGO_SEQUENCE_LEN)
#define NANGO_HISTORY_KEY_LEN  (NANGO_KEY_LEN + NANGO_SEQUENCE_LEN)

/* A connection's key and its integration's mark. */
#define NANGO_OWNERS_VALUE_LEN  (NANGO_KEY_LEN + 4)

/* Where a change's owner keys begin: after its time and the connection. */
#define NANGO_CHANGE_OWNERS    (8 + NANGO_KEY_LEN)


typedef struct {
    dev_t                  dev;
    ino_t                  ino;
} nango_store_file_t;


struct nango_store_s {
    char                  *path;
    size_t                 path_len;
    uint64_t               size;
    size_t                 map_size;

    /* Read by whoever is inside, written by nango_store_recover(). */
    pthread_rwlock_t       lock;
    MDB_env               *log;         /* NULL: recovering has failed */
    MDB_env               *state;

    MDB_dbi                events;
    MDB_dbi                pruned;
    MDB_dbi                log_meta;
    MDB_dbi                connections;
    MDB_dbi                owners;
    MDB_dbi                changes;
    MDB_dbi                tombstones;
    MDB_dbi                history;
    MDB_dbi                environments;
    MDB_dbi                subscribers;
    MDB_dbi                owed;
    MDB_dbi                lanes;
    MDB_dbi                due;
    MDB_dbi                rows;
    MDB_dbi                state_meta;

    atomic_int             trouble;     /* a nango_rc_e to recover from */
    atomic_int             wrecked[2];  /* threads that have to end first */

    /* Under the lock: what is open, log and state, data and lock file. */
    nango_store_file_t     files[2][2];
    uint64_t               generation;  /* of what is open */
    int                    attached;    /* it is: both, and whole */
    uint64_t               floor;       /* what a log that was open had */

    /* Under the mutex: not before that time, in ms, and why. */
    uint64_t               retry_at;
    uint64_t               faulted_at;
    uint64_t               faulted_in;  /* generation that did so last */
    uint64_t               patience;
    nango_error_t          refused;

    unsigned char          id[NANGO_STORE_ID_LEN];
    int                    identified;

    pthread_mutex_t        mutex;
    nango_reader_t        *readers;     /* under the mutex */

    int                    bodies;      /* the directory */
    int                    leader;      /* the file, -1 until asked for */
    int                    leading;

    /*
     * Under the writer's lock of the state: where the fold goes on to drop
     * history, the log's first sequence when it began, and the one of its last
     * whole round.
     */
    unsigned char          history_at[NANGO_HISTORY_KEY_LEN];
    uint64_t               history_first;
    uint64_t               history_done;

    /* What the process has open: see nango_store_open(). */
    dev_t                  dev;
    ino_t                  ino;
    pid_t                  pid;
    nango_store_t         *next;
};


/* See nango_state.c. */
struct nango_reader_s {
    nango_store_t         *store;
    nango_reader_t        *next;

    MDB_txn               *log;         /* NULL: to be begun */
    MDB_txn               *state;
    MDB_cursor            *events;

    uint64_t               last;
    uint64_t               applied;
    int                    alone;       /* the state, without the log */

    unsigned char         *record;      /* the last one that was read */
    size_t                 size;
};


/* Environments whose keys are not computed for each record. */

#define NANGO_NAMES     8
#define NANGO_NAME_LEN  64

typedef struct {
    size_t                 len;
    unsigned char          name[NANGO_NAME_LEN];
    unsigned char          key[NANGO_KEY_LEN];
} nango_name_t;

typedef struct {
    nango_name_t           names[NANGO_NAMES];
    size_t                 next;
} nango_names_t;

/* Valid until the next call; NULL: libcrypto failed.  From zeros. */
const unsigned char *nango_names_key(nango_names_t *names, nango_str_t name);


/*
 * Both fill *err, which may be NULL, and return its code.  The first is for
 * what a function of LMDB or the system (rc is then errno) said of a file
 * below the store's path, and notes what has to be recovered from; of rc 0 it
 * makes NANGO_OK and leaves *err alone.
 */
nango_rc_e nango_store_error(nango_store_t *store, nango_error_t *err, int rc,
    const char *func, const char *file);
nango_rc_e nango_error_set(nango_error_t *err, nango_rc_e code,
    const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* 0 or errno. */
int nango_sync_directory(int fd);

/*
 * nango_store_enter() for those who need LMDB: NANGO_OK and inside, or
 * NANGO_EBROKEN and not.
 */
nango_rc_e nango_store_inside(nango_store_t *store, nango_error_t *err);

/*
 * What a guard caught.  writing: inside a transaction that writes to the log
 * (0) or to the state (1), which leaves it to the end of the thread; or -1.
 */
nango_rc_e nango_store_fault(nango_store_t *store, const nango_guard_t *guard,
    int writing, nango_error_t *err);

/*
 * Calls work under a guard, between nango_store_inside() and _leave(); what it
 * returns, or what nango_store_fault() makes of a fault.  The second is for
 * those that are inside already.
 */
nango_rc_e nango_store_within(nango_store_t *store, int writing,
    nango_rc_e (*work)(void *data, nango_error_t *err), void *data,
    nango_error_t *err);
nango_rc_e nango_store_guarded(nango_store_t *store, int writing,
    nango_rc_e (*work)(void *data, nango_error_t *err), void *data,
    nango_error_t *err);

/*
 * Inside of the store: begins a write transaction of the log (0) or the state
 * (1), whose files are there and have room.
 */
nango_rc_e nango_store_begin(nango_store_t *store, int state, MDB_txn **txn,
    nango_error_t *err);

/*
 * Inside of the store: whether the log's (0) or the state's (1) files are
 * still those that are open.
 */
nango_rc_e nango_store_present(nango_store_t *store, int state,
    nango_error_t *err);

/*
 * Inside a write transaction of env: has room beyond the file's used pages, so
 * that commits overwrite blocks instead of appending them.
 */
void nango_store_room(MDB_env *env);

/*
 * Ends a write transaction in any case.  A commit that failed for good, so
 * that LMDB takes no more of them, is NANGO_EBROKEN.
 */
nango_rc_e nango_store_commit(nango_store_t *store, MDB_txn *txn,
    nango_error_t *err, const char *file);

/*
 * An integer of a meta table, 0 if it is not there: LMDB's code, with
 * MDB_CORRUPTED for a value that is none.
 */
int nango_meta_u64(MDB_txn *txn, MDB_dbi dbi, const char *name,
    uint64_t *value);
int nango_meta_put(MDB_txn *txn, MDB_dbi dbi, const char *name,
    const void *data, size_t len);

/* The last key of events and the floor, whichever is larger. */
int nango_log_last(MDB_txn *txn, nango_store_t *store, uint64_t *last);

/*
 * nango_log_scan() that adds to *unknown how many records it has passed over
 * because of their version.
 */
int nango_log_walk(nango_store_t *store, uint64_t from,
    int (*handler)(void *data, uint64_t sequence,
    const nango_record_t *record), void *data, uint64_t *unknown,
    nango_error_t *err);

/*
 * Marks a body that a record names by taking the owner's right to write: the
 * sweep looks only into the log for those without the mark.
 */
void nango_body_keep(nango_store_t *store, nango_str_t name);

/* Gives it back, for a record that goes: then the sweep looks. */
void nango_body_doubt(nango_store_t *store, nango_str_t name);

/*
 * For nango_store_recover() and _close(): takes a reader's places in LMDB's
 * tables, unless there are none, and ends what it holds of LMDB.
 */
nango_rc_e nango_reader_place(nango_reader_t *reader, nango_error_t *err);
void nango_reader_drop(nango_reader_t *reader);
nango_reader_t *nango_reader_next(nango_reader_t *reader);

/* A copy of a value, into reader->record.  0, or ENOMEM. */
int nango_reader_keep(nango_reader_t *reader, MDB_val val);

/* In a snapshot: the reader's store, and its cursor over the log's events. */
nango_store_t *nango_reader_store(nango_reader_t *reader);
MDB_cursor *nango_reader_log(nango_reader_t *reader);


/*
 * The connection record.  Size 0: a string or the number of tags is over the
 * layout's limits.  Decoding returns 0; -1 if the bytes are no record; 1 if
 * the version is unknown.  Strings point into data.  key is copied.
 */
size_t nango_connection_size(const nango_connection_t *c);
void nango_connection_encode(const nango_connection_t *c, unsigned char *dst);
int nango_connection_decode(nango_connection_t *c,
    const unsigned char key[NANGO_KEY_LEN], nango_str_t data);

static inline int
nango_connection_indexed(const nango_connection_t *c)
{
    return c->status == NANGO_STATUS_VALID || c->status == NANGO_STATUS_INVALID;
}


/*
 * Tells most integrations from each other, so that who looks for one need not
 * read the records of the others: FNV-1a.
 */

static inline uint32_t
nango_integration_mark(nango_str_t integration)
{
    size_t    i;
    uint32_t  mark;

    mark = 2166136261;

    for (i = 0; i < integration.len; i++) {
        mark = (mark ^ integration.data[i]) * 16777619;
    }

    return mark;
}


/* Counts, in their order on disk. */

typedef enum {
    NANGO_COUNT_EVENTS = 0,
    NANGO_COUNT_EFFECTIVE,
    NANGO_COUNT_IGNORED,
    NANGO_COUNT_NOT_UNDERSTOOD,
    NANGO_COUNT_GAPS,
    NANGO_COUNT_VALID,
    NANGO_COUNT_INVALID,
    NANGO_COUNT_TOMBSTONES,
    NANGO_COUNT_N
} nango_count_e;

int nango_counts_get(MDB_txn *txn, MDB_dbi dbi,
    uint64_t counts[NANGO_COUNT_N]);


/* Integers: keys are big-endian, values are little-endian. */

static inline void
nango_put_be64(unsigned char *p, uint64_t n)
{
    int  i;

    for (i = 7; i >= 0; i--) {
        p[i] = (unsigned char) n;
        n >>= 8;
    }
}


static inline uint64_t
nango_get_be64(const unsigned char *p)
{
    int       i;
    uint64_t  n;

    n = 0;

    for (i = 0; i < 8; i++) {
        n = n << 8 | p[i];
    }

    return n;
}


static inline void
nango_put_le(unsigned char *p, uint64_t n, int len)
{
    int  i;

    for (i = 0; i < len; i++) {
        p[i] = (unsigned char) n;
        n >>= 8;
    }
}


static inline uint64_t
nango_get_le(const unsigned char *p, int len)
{
    uint64_t  n;

    n = 0;

    while (len) {
        n = n << 8 | p[--len];
    }

    return n;
}


static inline MDB_val
nango_val(const void *data, size_t len)
{
    MDB_val  val;

    val.mv_size = len;
    val.mv_data = (void *) data;

    return val;
}


#endif /* _NANGO_TABLES_H_INCLUDED_ */
