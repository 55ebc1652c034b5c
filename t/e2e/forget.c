/*
 * Copyright (C) nginx-nango authors
 *
 * Removes the events of a store's log up to a sequence, as pruning does.
 *
 *     forget STORE SEQUENCE
 */

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>


static int
forget(MDB_env *env, unsigned long long last)
{
    int                 i, rc;
    MDB_dbi             dbi;
    MDB_txn            *txn;
    MDB_val             key, val;
    MDB_cursor         *cursor;
    unsigned long long  sequence;

    rc = mdb_txn_begin(env, NULL, 0, &txn);

    if (rc == 0) {
        rc = mdb_dbi_open(txn, "events", 0, &dbi);
    }

    if (rc == 0) {
        rc = mdb_cursor_open(txn, dbi, &cursor);
    }

    if (rc != 0) {
        return rc;
    }

    while ((rc = mdb_cursor_get(cursor, &key, &val, MDB_FIRST)) == 0) {
        sequence = 0;

        for (i = 0; i < 8; i++) {
            sequence = sequence << 8 | ((unsigned char *) key.mv_data)[i];
        }

        if (sequence > last) {
            break;
        }

        rc = mdb_cursor_del(cursor, 0);

        if (rc != 0) {
            return rc;
        }
    }

    mdb_cursor_close(cursor);

    return (rc == 0 || rc == MDB_NOTFOUND) ? mdb_txn_commit(txn) : rc;
}


int
main(int argc, char **argv)
{
    int       rc;
    char      path[4096];
    MDB_env  *env;

    if (argc != 3) {
        fprintf(stderr, "usage: forget STORE SEQUENCE\n");
        return 2;
    }

    snprintf(path, sizeof(path), "%s/log", argv[1]);

    rc = mdb_env_create(&env);

    if (rc == 0) {
        rc = mdb_env_set_maxdbs(env, 8);
    }

    if (rc == 0) {
        rc = mdb_env_open(env, path, MDB_NOTLS, 0600);
    }

    if (rc == 0) {
        rc = forget(env, strtoull(argv[2], NULL, 10));
    }

    if (rc != 0) {
        fprintf(stderr, "%s: %s\n", path, mdb_strerror(rc));
        return 1;
    }

    mdb_env_close(env);

    return 0;
}
