/*
 * Copyright (C) nginx-nango authors
 *
 * How far the state is behind the log: reads both environments of a running
 * store, read only, and prints a line of "last applied" every INTERVAL ms, for
 * SECONDS.  With "sizes" also how large they are: "log state" in KB of their
 * files' blocks, "log state" of their free pages in KB, and how many "events
 * changes" they have.
 *
 *     lag STORE INTERVAL SECONDS [sizes]
 */

#include <lmdb.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>


static MDB_env *
lag_open(const char *store, const char *name)
{
    char      path[4096];
    MDB_env  *env;

    (void) snprintf(path, sizeof(path), "%s/%s", store, name);

    if (mdb_env_create(&env) != 0
        || mdb_env_set_maxdbs(env, 16) != 0
        || mdb_env_open(env, path, MDB_RDONLY|MDB_NOTLS, 0) != 0)
    {
        (void) fprintf(stderr, "cannot open %s\n", path);
        exit(1);
    }

    return env;
}


static uint64_t
lag_last(MDB_env *env)
{
    int             i;
    MDB_dbi         dbi;
    MDB_txn        *txn;
    MDB_val         key, value;
    uint64_t        last;
    MDB_cursor     *cursor;
    unsigned char  *p;

    last = 0;

    if (mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) != 0) {
        return 0;
    }

    if (mdb_dbi_open(txn, "events", 0, &dbi) == 0
        && mdb_cursor_open(txn, dbi, &cursor) == 0)
    {
        if (mdb_cursor_get(cursor, &key, &value, MDB_LAST) == 0) {
            p = key.mv_data;

            for (i = 0; i < 8; i++) {
                last = last << 8 | p[i];
            }
        }

        mdb_cursor_close(cursor);
    }

    mdb_txn_abort(txn);

    return last;
}


static uint64_t
lag_applied(MDB_env *env)
{
    MDB_dbi   dbi;
    MDB_txn  *txn;
    MDB_val   key, value;
    uint64_t  applied;

    applied = 0;

    if (mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) != 0) {
        return 0;
    }

    key.mv_data = "applied";
    key.mv_size = 7;

    if (mdb_dbi_open(txn, "meta", 0, &dbi) == 0
        && mdb_get(txn, dbi, &key, &value) == 0 && value.mv_size == 8)
    {
        memcpy(&applied, value.mv_data, 8);
    }

    mdb_txn_abort(txn);

    return applied;
}


static unsigned long
lag_blocks(MDB_env *env)
{
    int          fd;
    struct stat  sb;

    if (mdb_env_get_fd(env, &fd) != 0 || fstat(fd, &sb) == -1) {
        return 0;
    }

    return (unsigned long) sb.st_blocks / 2;
}


static unsigned long
lag_entries(MDB_env *env, const char *table)
{
    MDB_dbi        dbi;
    MDB_txn       *txn;
    MDB_stat       stat;
    unsigned long  n;

    n = 0;

    if (mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) != 0) {
        return 0;
    }

    if (mdb_dbi_open(txn, table, 0, &dbi) == 0
        && mdb_stat(txn, dbi, &stat) == 0)
    {
        n = (unsigned long) stat.ms_entries;
    }

    mdb_txn_abort(txn);

    return n;
}


/* LMDB's own table 0: lists of pages that begin with their number. */

static unsigned long
lag_free(MDB_env *env)
{
    size_t        n, pages;
    MDB_txn      *txn;
    MDB_val       key, value;
    MDB_stat      stat;
    MDB_cursor   *cursor;

    pages = 0;

    if (mdb_env_stat(env, &stat) != 0
        || mdb_txn_begin(env, NULL, MDB_RDONLY, &txn) != 0)
    {
        return 0;
    }

    if (mdb_cursor_open(txn, 0, &cursor) == 0) {

        while (mdb_cursor_get(cursor, &key, &value, MDB_NEXT) == 0) {
            memcpy(&n, value.mv_data, sizeof(n));
            pages += n;
        }

        mdb_cursor_close(cursor);
    }

    mdb_txn_abort(txn);

    return (unsigned long) pages * (stat.ms_psize / 1024);
}


int
main(int argc, char **argv)
{
    long      i, n, interval;
    MDB_env  *log, *state;
    uint64_t  last, applied;

    if (argc != 4 && (argc != 5 || strcmp(argv[4], "sizes") != 0)) {
        (void) fprintf(stderr, "usage: lag STORE INTERVAL SECONDS [sizes]\n");
        return 2;
    }

    log = lag_open(argv[1], "log");
    state = lag_open(argv[1], "state");

    interval = atol(argv[2]);
    n = atol(argv[3]) * 1000 / interval;

    for (i = 0; i < n; i++) {
        last = lag_last(log);
        applied = lag_applied(state);

        (void) printf("%llu %llu", (unsigned long long) last,
                      (unsigned long long) applied);

        if (argc == 5) {
            (void) printf(" %lu %lu %lu %lu %lu %lu", lag_blocks(log),
                          lag_blocks(state), lag_free(log), lag_free(state),
                          lag_entries(log, "events"),
                          lag_entries(state, "changes"));
        }

        (void) printf("\n");
        (void) fflush(stdout);

        (void) usleep((useconds_t) interval * 1000);
    }

    mdb_env_close(log);
    mdb_env_close(state);

    return 0;
}
