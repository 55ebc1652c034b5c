/*
 * Copyright (C) nginx-nango authors
 *
 * Makes records of subscribers, of those whose name is the one given, what a
 * newer version writes, or (cut) none at all.
 *
 *     newer STORE NAME [cut]
 */

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


static int
change(MDB_env *env, const char *name, int cut)
{
    int          rc;
    char         buf[4096];
    size_t       len;
    MDB_dbi      dbi;
    MDB_txn     *txn;
    MDB_val      key, val;
    MDB_cursor  *cursor;

    rc = mdb_txn_begin(env, NULL, 0, &txn);

    if (rc == 0) {
        rc = mdb_dbi_open(txn, "subscribers", 0, &dbi);
    }

    if (rc == 0) {
        rc = mdb_cursor_open(txn, dbi, &cursor);
    }

    if (rc != 0) {
        return rc;
    }

    len = strlen(name);

    while ((rc = mdb_cursor_get(cursor, &key, &val, MDB_NEXT)) == 0) {

        if (val.mv_size < len || val.mv_size > sizeof(buf)
            || memcmp((char *) val.mv_data + val.mv_size - len, name, len)
               != 0)
        {
            continue;
        }

        memcpy(buf, val.mv_data, val.mv_size);
        val.mv_data = buf;

        if (cut) {
            val.mv_size = 20;

        } else {
            buf[0] = 2;
        }

        rc = mdb_cursor_put(cursor, &key, &val, MDB_CURRENT);

        if (rc != 0) {
            return rc;
        }
    }

    mdb_cursor_close(cursor);

    return (rc == MDB_NOTFOUND) ? mdb_txn_commit(txn) : rc;
}


int
main(int argc, char **argv)
{
    int       rc;
    char      path[4096];
    MDB_env  *env;

    if (argc < 3) {
        fprintf(stderr, "usage: newer STORE NAME [cut]\n");
        return 2;
    }

    snprintf(path, sizeof(path), "%s/state", argv[1]);

    rc = mdb_env_create(&env);

    if (rc == 0) {
        rc = mdb_env_set_maxdbs(env, 16);
    }

    if (rc == 0) {
        rc = mdb_env_open(env, path, MDB_NOTLS, 0600);
    }

    if (rc == 0) {
        rc = change(env, argv[2], argc > 3);
    }

    if (rc != 0) {
        fprintf(stderr, "newer: %s\n", mdb_strerror(rc));
        return 1;
    }

    mdb_env_close(env);

    return 0;
}
