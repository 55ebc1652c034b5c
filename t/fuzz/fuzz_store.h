/*
 * Copyright (C) nginx-nango authors
 *
 * A store for each input, in memory.  To make one takes milliseconds, so the
 * same one is emptied instead: its tables are what a new one has.
 *
 * What LMDB returns lies in its map, where no sanitizer sees who reads too
 * much or too long.  So the linker puts the functions below in front of
 * LMDB's: what is returned is a copy that ends where its memory ends, and that
 * is freed where LMDB's promise ends, with the transaction or its next write.
 */

#ifndef _FUZZ_STORE_H_INCLUDED_
#define _FUZZ_STORE_H_INCLUDED_


#ifndef _GNU_SOURCE
#define _GNU_SOURCE     /* nftw() */
#endif

#include "fuzz.h"

#include "nango_fold.h"
#include "nango_log.h"
#include "nango_tables.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>


#define T0        UINT64_C(1700000000000)
#define HOUR      UINT64_C(3600000)
#define SIZE      (UINT64_C(32) * 1024 * 1024)

#define check_ok(rc)                                                          \
    do {                                                                      \
        int  _rc = (rc);                                                      \
        if (_rc != 0) {                                                       \
            fprintf(stderr, "%s:%d: rc %d: %s\n", __FILE__, __LINE__, _rc,    \
                    failure.text);                                            \
            abort();                                                          \
        }                                                                     \
    } while (0)


typedef struct {
    MDB_txn              *txn;
    void                 *data;
} lmdb_copy_t;


/* The next call but so many of that kind fails, once. */

typedef enum {
    FAULT_NONE = 0,
    FAULT_WRITE,
    FAULT_COMMIT
} fault_e;

static fault_e          fault;
static unsigned         fault_after;
static int              fault_rc;
static int              fault_fired;

static lmdb_copy_t     *lmdb_copies;
static size_t           lmdb_ncopies;
static size_t           lmdb_nalloc;

static nango_error_t    failure;
static char             directory[64];
static nango_store_t   *store;
static nango_reader_t  *reader;


int __real_mdb_get(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *val);
int __wrap_mdb_get(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *val);
int __real_mdb_cursor_get(MDB_cursor *cursor, MDB_val *key, MDB_val *val,
    MDB_cursor_op op);
int __wrap_mdb_cursor_get(MDB_cursor *cursor, MDB_val *key, MDB_val *val,
    MDB_cursor_op op);
int __real_mdb_put(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *val,
    unsigned flags);
int __wrap_mdb_put(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *val,
    unsigned flags);
int __real_mdb_del(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *val);
int __wrap_mdb_del(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *val);
int __real_mdb_cursor_put(MDB_cursor *cursor, MDB_val *key, MDB_val *val,
    unsigned flags);
int __wrap_mdb_cursor_put(MDB_cursor *cursor, MDB_val *key, MDB_val *val,
    unsigned flags);
int __real_mdb_cursor_del(MDB_cursor *cursor, unsigned flags);
int __wrap_mdb_cursor_del(MDB_cursor *cursor, unsigned flags);
int __real_mdb_txn_commit(MDB_txn *txn);
int __wrap_mdb_txn_commit(MDB_txn *txn);
void __real_mdb_txn_abort(MDB_txn *txn);
void __wrap_mdb_txn_abort(MDB_txn *txn);
void __real_mdb_txn_reset(MDB_txn *txn);
void __wrap_mdb_txn_reset(MDB_txn *txn);


static inline void
lmdb_copy(MDB_txn *txn, MDB_val *val)
{
    nango_str_t  copy;

    if (lmdb_ncopies == lmdb_nalloc) {
        lmdb_nalloc = lmdb_nalloc ? lmdb_nalloc * 2 : 1024;
        lmdb_copies = realloc(lmdb_copies,
                              lmdb_nalloc * sizeof(lmdb_copy_t));
        check(lmdb_copies != NULL);
    }

    copy = exact(nango_str(val->mv_data, val->mv_size));
    val->mv_data = (void *) copy.data;

    lmdb_copies[lmdb_ncopies].txn = txn;
    lmdb_copies[lmdb_ncopies++].data = val->mv_data;
}


static inline void
lmdb_forget(MDB_txn *txn)
{
    size_t  i, n;

    for (i = 0, n = 0; i < lmdb_ncopies; i++) {
        if (lmdb_copies[i].txn == txn) {
            free(lmdb_copies[i].data);

        } else {
            lmdb_copies[n++] = lmdb_copies[i];
        }
    }

    lmdb_ncopies = n;
}


static inline int
fault_now(fault_e kind)
{
    if (fault != kind || fault_after-- != 0) {
        return 0;
    }

    fault = FAULT_NONE;
    fault_fired = fault_rc;

    return fault_rc;
}


int
__wrap_mdb_get(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *val)
{
    int  rc;

    rc = __real_mdb_get(txn, dbi, key, val);

    if (rc == 0) {
        lmdb_copy(txn, val);
    }

    return rc;
}


int
__wrap_mdb_cursor_get(MDB_cursor *cursor, MDB_val *key, MDB_val *val,
    MDB_cursor_op op)
{
    int  rc;

    rc = __real_mdb_cursor_get(cursor, key, val, op);

    if (rc == 0) {
        lmdb_copy(mdb_cursor_txn(cursor), key);
        lmdb_copy(mdb_cursor_txn(cursor), val);
    }

    return rc;
}


int
__wrap_mdb_put(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *val,
    unsigned flags)
{
    int  rc;

    rc = fault_now(FAULT_WRITE);

    if (rc == 0) {
        rc = __real_mdb_put(txn, dbi, key, val, flags);
    }

    lmdb_forget(txn);

    return rc;
}


int
__wrap_mdb_del(MDB_txn *txn, MDB_dbi dbi, MDB_val *key, MDB_val *val)
{
    int  rc;

    rc = fault_now(FAULT_WRITE);

    if (rc == 0) {
        rc = __real_mdb_del(txn, dbi, key, val);
    }

    lmdb_forget(txn);

    return rc;
}


int
__wrap_mdb_cursor_put(MDB_cursor *cursor, MDB_val *key, MDB_val *val,
    unsigned flags)
{
    int  rc;

    rc = fault_now(FAULT_WRITE);

    if (rc == 0) {
        rc = __real_mdb_cursor_put(cursor, key, val, flags);
    }

    lmdb_forget(mdb_cursor_txn(cursor));

    return rc;
}


int
__wrap_mdb_cursor_del(MDB_cursor *cursor, unsigned flags)
{
    int  rc;

    rc = fault_now(FAULT_WRITE);

    if (rc == 0) {
        rc = __real_mdb_cursor_del(cursor, flags);
    }

    lmdb_forget(mdb_cursor_txn(cursor));

    return rc;
}


int
__wrap_mdb_txn_commit(MDB_txn *txn)
{
    int  rc;

    lmdb_forget(txn);

    rc = fault_now(FAULT_COMMIT);

    if (rc != 0) {
        __real_mdb_txn_abort(txn);
        return rc;
    }

    return __real_mdb_txn_commit(txn);
}


void
__wrap_mdb_txn_abort(MDB_txn *txn)
{
    lmdb_forget(txn);
    __real_mdb_txn_abort(txn);
}


void
__wrap_mdb_txn_reset(MDB_txn *txn)
{
    lmdb_forget(txn);
    __real_mdb_txn_reset(txn);
}


static inline int
directory_remove_one(const char *path, const struct stat *sb, int type,
    struct FTW *ftw)
{
    return remove(path);
}


static inline void
directory_remove(const char *path)
{
    (void) nftw(path, directory_remove_one, 16, FTW_DEPTH|FTW_PHYS);
}


static inline void
directory_forget(void)
{
    directory_remove(directory);
}


/* Those of processes that found something are left behind. */

static inline void
directory_make(void)
{
    DIR            *dir;
    char            path[512];
    const char     *base, *dash;
    struct dirent  *de;

    base = (access("/dev/shm", W_OK) == 0) ? "/dev/shm" : "/tmp";
    dir = opendir(base);

    while (dir != NULL && (de = readdir(dir)) != NULL) {
        dash = strrchr(de->d_name, '-');

        if (strncmp(de->d_name, "nango-fuzz-", 11) == 0 && atoi(dash + 1) > 0
            && kill(atoi(dash + 1), 0) == -1 && errno == ESRCH)
        {
            snprintf(path, sizeof(path), "%s/%s", base, de->d_name);
            directory_remove(path);
        }
    }

    if (dir != NULL) {
        closedir(dir);
    }

    snprintf(directory, sizeof(directory), "%s/nango-fuzz-%d", base,
             (int) getpid());

    directory_remove(directory);
    check(mkdir(directory, 0700) == 0);
    check(atexit(directory_forget) == 0);
}


static inline void
store_open(uint64_t size)
{
    nango_store_options_t  options;

    if (directory[0] == '\0') {
        directory_make();
    }

    memset(&options, 0, sizeof(options));

    options.path = directory;
    options.size = size;

    check_ok(nango_store_open(&store, &options, &failure));

    reader = nango_reader_create(store);
    check(reader != NULL);
}


static inline void
store_close(void)
{
    nango_reader_free(reader);
    nango_store_close(store);

    reader = NULL;
    store = NULL;
}


/* What is left of a table, and what a new one has in it. */

static inline void
table_empty(MDB_txn *txn, MDB_dbi dbi, int meta)
{
    unsigned char  schema[4];

    check(mdb_drop(txn, dbi, 0) == 0);

    if (meta) {
        nango_put_le(schema, NANGO_STORE_SCHEMA, 4);

        check(nango_meta_put(txn, dbi, "schema", schema, 4) == 0);
        check(nango_meta_put(txn, dbi, "store", store->id,
                             NANGO_STORE_ID_LEN)
              == 0);
    }
}


static inline void
store_empty(void)
{
    MDB_txn  *txn;

    if (store == NULL) {
        store_open(SIZE);
    }

    store->floor = 0;
    store->history_first = 0;
    store->history_done = 0;
    memset(store->history_at, 0, sizeof(store->history_at));

    check(mdb_txn_begin(store->log, NULL, 0, &txn) == 0);
    table_empty(txn, store->events, 0);
    table_empty(txn, store->pruned, 0);
    table_empty(txn, store->log_meta, 1);
    check(mdb_txn_commit(txn) == 0);

    check(mdb_txn_begin(store->state, NULL, 0, &txn) == 0);
    table_empty(txn, store->connections, 0);
    table_empty(txn, store->owners, 0);
    table_empty(txn, store->changes, 0);
    table_empty(txn, store->tombstones, 0);
    table_empty(txn, store->history, 0);
    table_empty(txn, store->environments, 0);
    table_empty(txn, store->subscribers, 0);
    table_empty(txn, store->owed, 0);
    table_empty(txn, store->lanes, 0);
    table_empty(txn, store->due, 0);
    table_empty(txn, store->rows, 0);
    table_empty(txn, store->state_meta, 1);
    check(mdb_txn_commit(txn) == 0);
}


#endif /* _FUZZ_STORE_H_INCLUDED_ */
