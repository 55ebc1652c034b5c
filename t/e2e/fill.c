/*
 * Copyright (C) nginx-nango authors
 *
 * Appends copies of the newest event to a store's log: so many events at once
 * as would take webhooks a long time.
 *
 *     fill STORE COUNT
 */

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


static int
fill(MDB_env *env, long count)
{
    int             i, rc;
    void           *record;
    size_t          len;
    MDB_dbi         dbi;
    MDB_txn        *txn;
    MDB_val         key, val;
    MDB_cursor     *cursor;
    unsigned char   sequence[8];

    rc = mdb_txn_begin(env, NULL, 0, &txn);

    if (rc == 0) {
        rc = mdb_dbi_open(txn, "events", 0, &dbi);
    }

    if (rc == 0) {
        rc = mdb_cursor_open(txn, dbi, &cursor);
    }

    if (rc == 0) {
        rc = mdb_cursor_get(cursor, &key, &val, MDB_LAST);
    }

    if (rc != 0) {
        return rc;
    }

    len = val.mv_size;
    record = malloc(len);

    if (record == NULL || key.mv_size != sizeof(sequence)) {
        return MDB_CORRUPTED;
    }

    memcpy(record, val.mv_data, len);
    memcpy(sequence, key.mv_data, sizeof(sequence));

    while (rc == 0 && count--) {

        for (i = sizeof(sequence) - 1; ++sequence[i] == 0; i--) { /* void */ }

        key.mv_size = sizeof(sequence);
        key.mv_data = sequence;
        val.mv_size = len;
        val.mv_data = record;

        rc = mdb_cursor_put(cursor, &key, &val, MDB_APPEND);
    }

    mdb_cursor_close(cursor);
    free(record);

    return rc ? rc : mdb_txn_commit(txn);
}


int
main(int argc, char **argv)
{
    int       rc;
    char      path[4096];
    MDB_env  *env;

    if (argc != 3) {
        (void) fprintf(stderr, "usage: fill STORE COUNT\n");
        return 2;
    }

    (void) snprintf(path, sizeof(path), "%s/log", argv[1]);

    rc = mdb_env_create(&env);

    if (rc == 0) {
        rc = mdb_env_set_maxdbs(env, 16);
    }

    if (rc == 0) {
        rc = mdb_env_open(env, path, MDB_NOTLS, 0);
    }

    if (rc == 0) {
        rc = fill(env, atol(argv[2]));
    }

    mdb_env_close(env);

    if (rc != 0) {
        (void) fprintf(stderr, "fill: %s\n", mdb_strerror(rc));
        return 1;
    }

    return 0;
}
