/*
 * Copyright (C) nginx-nango authors
 *
 * How many places of readers are taken in a store's log and state, and the
 * number of the last transaction of each, as JSON.
 *
 *     readers STORE
 */

#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


/* A line is "PID THREAD TRANSACTION"; before them there is one of words. */

static int
look(const char *line, void *data)
{
    int   *places = data;
    char  *end;

    /* More than one line may come at once. */

    while (line && *line) {
        *places += (strtol(line, &end, 10) > 0);

        line = strchr(line, '\n');
        line = line ? line + 1 : NULL;
    }

    return 0;
}


static int
count(const char *store, const char *name, int *places, size_t *last)
{
    int           rc;
    char          path[4096];
    MDB_env      *env;
    MDB_envinfo   info;

    (void) snprintf(path, sizeof(path), "%s/%s", store, name);

    *places = 0;

    rc = mdb_env_create(&env);
    if (rc != 0) {
        return rc;
    }

    rc = mdb_env_open(env, path, MDB_RDONLY|MDB_NOTLS, 0);

    if (rc == 0) {
        rc = mdb_reader_list(env, look, places);
        rc = (rc < 0) ? rc : mdb_env_info(env, &info);
    }

    if (rc == 0) {
        *last = info.me_last_txnid;
    }

    mdb_env_close(env);

    return rc;
}


int
main(int argc, char **argv)
{
    int     rc, log, state;
    size_t  last_log, last_state;

    if (argc != 2) {
        (void) fprintf(stderr, "usage: readers STORE\n");
        return 2;
    }

    rc = count(argv[1], "log", &log, &last_log);

    if (rc == 0) {
        rc = count(argv[1], "state", &state, &last_state);
    }

    if (rc != 0) {
        (void) fprintf(stderr, "readers: %s\n", mdb_strerror(rc));
        return 1;
    }

    (void) printf("{\"log\":%d,\"state\":%d,\"last\":\"%zu,%zu\"}\n",
                  log, state, last_log, last_state);

    return 0;
}
