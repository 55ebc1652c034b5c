/*
 * Copyright (C) nginx-nango authors
 *
 * Holds the writer lock of a store's log, or of its state, until its input
 * ends, so that what happens to a webhook that is being committed, or to a
 * list that waits for the fold, can be looked at for as long as it takes.
 * Says "held" once it has it.
 *
 *     hold STORE [state]
 */

#include <lmdb.h>
#include <stdio.h>
#include <unistd.h>


int
main(int argc, char **argv)
{
    char      path[4096], c;
    MDB_env  *env;
    MDB_txn  *txn;

    if (argc < 2) {
        (void) fprintf(stderr, "usage: hold STORE [state]\n");
        return 2;
    }

    (void) snprintf(path, sizeof(path), "%s/%s", argv[1],
                    argc > 2 ? argv[2] : "log");

    if (mdb_env_create(&env) != 0
        || mdb_env_set_maxdbs(env, 16) != 0
        || mdb_env_open(env, path, MDB_NOTLS, 0) != 0
        || mdb_txn_begin(env, NULL, 0, &txn) != 0)
    {
        (void) fprintf(stderr, "hold: it cannot be opened\n");
        return 1;
    }

    (void) printf("held\n");
    (void) fflush(stdout);

    while (read(STDIN_FILENO, &c, 1) == 1) { /* void */ }

    mdb_txn_abort(txn);
    mdb_env_close(env);

    return 0;
}
