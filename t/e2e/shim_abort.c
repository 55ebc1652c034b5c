/*
 * Copyright (C) nginx-nango authors
 *
 * For LD_PRELOAD: who has given up a write transaction of the state, after
 * which others can write, stays there for as long as the file that NANGO_ABORT
 * names exists, ten seconds at most.  A file with ".seen" behind its name says
 * that somebody does.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>


static char  file[4096];
static char  seen[4096 + 8];


static void __attribute__((constructor))
begin(void)
{
    const char  *name;

    name = getenv("NANGO_ABORT");

    if (name != NULL) {
        (void) snprintf(file, sizeof(file), "%s", name);
        (void) snprintf(seen, sizeof(seen), "%s.seen", file);
    }
}


/* A writer's is the one after the last. */

static int
is_state(MDB_txn *txn)
{
    size_t        len;
    const char   *path;
    MDB_envinfo   info;

    if (txn == NULL || mdb_env_get_path(mdb_txn_env(txn), &path) != 0
        || mdb_env_info(mdb_txn_env(txn), &info) != 0)
    {
        return 0;
    }

    len = strlen(path);

    return len > 6 && strcmp(path + len - 6, "/state") == 0
           && mdb_txn_id(txn) > info.me_last_txnid;
}


void
mdb_txn_abort(MDB_txn *txn)
{
    static void (*real)(MDB_txn *txn);

    int  i, stays;

    if (real == NULL) {
        *(void **) &real = dlsym(RTLD_NEXT, "mdb_txn_abort");
    }

    stays = (file[0] != '\0' && access(file, F_OK) == 0 && is_state(txn));

    real(txn);

    if (!stays) {
        return;
    }

    (void) close(open(seen, O_WRONLY|O_CREAT|O_CLOEXEC, 0666));

    for (i = 0; i < 1000 && access(file, F_OK) == 0; i++) {
        (void) usleep(10000);
    }
}
