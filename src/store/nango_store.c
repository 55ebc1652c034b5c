/*
 * Copyright (C) nginx-nango authors
 *
 * Opening, and what has to be true before anything else may happen: log and
 * state belong together, nobody newer has written them, and no sequence that
 * the state knows can be given out again.  All of it is decided inside LMDB's
 * write transactions, since several processes start at the same time.
 *
 * A process that opened an LMDB environment twice would lose its locks at the
 * first close and overwrite the snapshots of others, so there is a list of
 * what it has open.  Entries of a parent do not count: locks do not survive
 * a fork, and a child that opens is a process of its own.
 *
 * Recovering is closing and opening again, whatever the trouble was: rare
 * enough that one way, the one that every start takes, is better than two.
 *
 * A sync that failed may have left pages that are clean in memory and old on
 * the disk, and nobody is told twice.  LMDB never relies on such pages, but for
 * the two that it begins with: if one of them is newer on the disk than what
 * is read here, the pages that it refers to must not be used again.  So opening
 * writes both again as they are, and nothing else is written before that is
 * known to be on the disk.
 */


#ifndef _GNU_SOURCE
#define _GNU_SOURCE             /* dup3() */
#endif

#include "nango_check.h"
#include "nango_tables.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>


#define NANGO_STORE_MAXDBS  32
#define NANGO_STORE_SPARE   (64 * 1024 * 1024)

/* How far ahead a file is filled with zeros. */
#define NANGO_STORE_ROOM    (4 * 1024 * 1024)

/* Less than that is a full disk. */
#define NANGO_STORE_LEFT    (1024 * 1024)

/* In ms: between attempts to open, and how long faults are remembered. */
#define NANGO_STORE_RETRY   1000
#define NANGO_STORE_PATIENCE  (60 * 1000)


/* What is in a state, seen from the log's transaction. */
typedef struct {
    int                   complete;     /* nothing has to be made */
    int                   identified;
    unsigned char         id[NANGO_STORE_ID_LEN];
    uint64_t              applied;
} nango_store_look_t;

typedef struct {
    nango_store_t        *store;
    nango_rc_e            rc;
    nango_error_t         err;
} nango_store_apart_t;


static nango_rc_e nango_store_register(nango_store_t *store,
    nango_error_t *err);
static void nango_store_unregister(nango_store_t *store);
static nango_rc_e nango_store_directories(nango_store_t *store,
    nango_error_t *err);
static nango_rc_e nango_store_attach(nango_store_t *store, nango_error_t *err);
static void *nango_store_attach_thread(void *data);
static nango_rc_e nango_store_attach_all(nango_store_t *store,
    nango_error_t *err);
static void nango_store_detach(nango_store_t *store);
static void nango_store_end(MDB_env **env);
static uint64_t nango_store_old_last(nango_store_t *store);
static nango_rc_e nango_store_again(nango_store_t *store, nango_error_t *err);
static int nango_store_wrecked(nango_store_t *store);
static nango_rc_e nango_store_environment(nango_store_t *store, MDB_env **env,
    const char *file, nango_error_t *err);
static nango_rc_e nango_store_load(nango_store_t *store, MDB_env **env,
    const char *path, const char *file, nango_error_t *err);
static nango_rc_e nango_store_check(nango_store_t *store, int rc,
    const char *text, const char *file, nango_error_t *err);
static nango_rc_e nango_store_identify(nango_store_t *store, int state,
    nango_error_t *err);
static int nango_store_settle(MDB_env *env);
static int nango_store_stat(const nango_store_t *store, const char *file,
    struct stat *sb);
static uint64_t nango_store_ms(void);
static nango_rc_e nango_store_readers(nango_store_t *store,
    nango_error_t *err);
static nango_rc_e nango_store_prepare(nango_store_t *store,
    nango_error_t *err);
static nango_rc_e nango_store_prepare_log(nango_store_t *store, MDB_txn *txn,
    nango_store_look_t *look, nango_error_t *err);
static nango_rc_e nango_store_prepare_state(nango_store_t *store,
    MDB_txn *txn, nango_error_t *err);
static nango_rc_e nango_store_look(nango_store_t *store,
    nango_store_look_t *look, nango_error_t *err);
static int nango_store_open_tables(nango_store_t *store, MDB_txn *txn,
    unsigned flags);
static nango_rc_e nango_store_schema(nango_store_t *store, MDB_txn *txn,
    MDB_dbi dbi, int make, nango_error_t *err, const char *file);
static int nango_store_get_id(MDB_txn *txn, MDB_dbi dbi,
    unsigned char id[NANGO_STORE_ID_LEN]);
static nango_rc_e nango_store_foreign(nango_store_t *store,
    nango_error_t *err);
static uint64_t nango_store_txnid(nango_store_t *store, int state);
static nango_rc_e nango_store_code(int rc);


/* Those of the state, besides its meta. */

typedef struct {
    const char           *name;
    size_t                dbi;          /* in the store */
} nango_store_table_t;

static const nango_store_table_t  nango_store_tables[] = {
    { "connections", offsetof(nango_store_t, connections) },
    { "owners", offsetof(nango_store_t, owners) },
    { "changes", offsetof(nango_store_t, changes) },
    { "tombstones", offsetof(nango_store_t, tombstones) },
    { "history", offsetof(nango_store_t, history) },
    { "environments", offsetof(nango_store_t, environments) },
    { "subscribers", offsetof(nango_store_t, subscribers) },
    { "owed", offsetof(nango_store_t, owed) },
    { "lanes", offsetof(nango_store_t, lanes) },
    { "due", offsetof(nango_store_t, due) },
    { "rows", offsetof(nango_store_t, rows) },
    { NULL, 0 }
};


static pthread_mutex_t  nango_stores_mutex = PTHREAD_MUTEX_INITIALIZER;
static nango_store_t   *nango_stores;


nango_rc_e
nango_store_open(nango_store_t **storep, const nango_store_options_t *options,
    nango_error_t *err)
{
    size_t                len, page;
    nango_rc_e            rc;
    nango_store_t        *store;
    pthread_rwlockattr_t  attr;

    *storep = NULL;

    len = strlen(options->path);

    if (options->size > SIZE_MAX / 4) {
        return nango_error_set(err, NANGO_EINVAL,
                               "\"%s\" cannot have that size", options->path);
    }

    store = calloc(1, sizeof(nango_store_t) + len + 1);
    if (store == NULL) {
        return nango_error_set(err, NANGO_ENOMEM, "no memory for \"%s\"",
                               options->path);
    }

    store->path = (char *) (store + 1);
    store->path_len = len;
    memcpy(store->path, options->path, len + 1);

    page = (size_t) sysconf(_SC_PAGESIZE);

    store->size = options->size;
    store->map_size = store->size + store->size / 8 + NANGO_STORE_SPARE;
    store->map_size = (store->map_size + page - 1) / page * page;

    store->bodies = -1;
    store->leader = -1;

    /*
     * Readers are many and short, and come again at once: without preference
     * whoever wants to recover would not get in.
     */

    (void) pthread_rwlockattr_init(&attr);

#ifdef __GLIBC__
    (void) pthread_rwlockattr_setkind_np(&attr,
                               PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
#endif

    (void) pthread_rwlock_init(&store->lock, &attr);
    (void) pthread_rwlockattr_destroy(&attr);
    (void) pthread_mutex_init(&store->mutex, NULL);

    rc = nango_store_register(store, err);

    if (rc == NANGO_OK) {
        rc = nango_store_attach(store, err);
    }

    if (rc != NANGO_OK) {
        nango_store_close(store);
        return rc;
    }

    *storep = store;

    return NANGO_OK;
}


void
nango_store_close(nango_store_t *store)
{
    if (store == NULL) {
        return;
    }

    nango_store_detach(store);
    nango_store_unregister(store);

    if (store->bodies != -1) {
        (void) close(store->bodies);
    }

    if (store->leader != -1) {
        (void) close(store->leader);
    }

    (void) pthread_mutex_destroy(&store->mutex);
    (void) pthread_rwlock_destroy(&store->lock);

    free(store);
}


static nango_rc_e
nango_store_register(nango_store_t *store, nango_error_t *err)
{
    struct stat     sb;
    nango_store_t  *other;

    if (stat(store->path, &sb) == -1) {
        return nango_store_error(store, err, errno, "stat()", NULL);
    }

    if (!S_ISDIR(sb.st_mode)) {
        return nango_store_error(store, err, ENOTDIR, "stat()", NULL);
    }

    (void) pthread_mutex_lock(&nango_stores_mutex);

    for (other = nango_stores; other; other = other->next) {

        if (other->dev == sb.st_dev && other->ino == sb.st_ino
            && other->pid == getpid())
        {
            break;
        }
    }

    if (other == NULL) {
        store->dev = sb.st_dev;
        store->ino = sb.st_ino;
        store->pid = getpid();
        store->next = nango_stores;
        nango_stores = store;
    }

    (void) pthread_mutex_unlock(&nango_stores_mutex);

    if (other != NULL) {
        return nango_error_set(err, NANGO_EINVAL,
                               "\"%s\" is open already in this process",
                               store->path);
    }

    return NANGO_OK;
}


static void
nango_store_unregister(nango_store_t *store)
{
    nango_store_t  **p;

    (void) pthread_mutex_lock(&nango_stores_mutex);

    for (p = &nango_stores; *p; p = &(*p)->next) {

        if (*p == store) {
            *p = store->next;
            break;
        }
    }

    (void) pthread_mutex_unlock(&nango_stores_mutex);
}


static nango_rc_e
nango_store_directories(nango_store_t *store, nango_error_t *err)
{
    int                 i, fd, rc, bodies;
    const char         *func, *name;

    static const char  *names[] = { "log", "state", "bodies", "temp" };

    func = "open()";
    name = NULL;

    fd = open(store->path, O_RDONLY|O_DIRECTORY|O_CLOEXEC);
    if (fd == -1) {
        return nango_store_error(store, err, errno, func, name);
    }

    for (i = 0; i < 4; i++) {

        if (mkdirat(fd, names[i], 0700) == -1 && errno != EEXIST) {
            rc = errno;
            func = "mkdir()";
            name = names[i];
            goto done;
        }
    }

    bodies = openat(fd, "bodies", O_RDONLY|O_DIRECTORY|O_CLOEXEC);

    if (bodies == -1) {
        rc = errno;
        name = "bodies";
        goto done;
    }

    /* Other threads use the number without being inside. */

    if (store->bodies == -1) {
        store->bodies = bodies;

    } else {
        rc = (dup3(bodies, store->bodies, O_CLOEXEC) == -1) ? errno : 0;

        (void) close(bodies);

        if (rc != 0) {
            func = "dup3()";
            name = "bodies";
            goto done;
        }
    }

    /* The directories themselves have to outlive a power failure. */

    func = "fsync()";
    rc = nango_sync_directory(fd);

done:

    (void) close(fd);

    return nango_store_error(store, err, rc, func, name);
}


/*
 * On a thread of its own: after a fault it ends, and with it the locks of LMDB
 * that it may have held, the writer's or the readers', before anything is
 * closed.
 */

static nango_rc_e
nango_store_attach(nango_store_t *store, nango_error_t *err)
{
    int                   rc;
    pthread_t             thread;
    nango_store_apart_t   apart;

    atomic_store(&store->trouble, NANGO_OK);

    apart.store = store;
    apart.rc = NANGO_OK;

    rc = pthread_create(&thread, NULL, nango_store_attach_thread, &apart);

    if (rc == 0) {
        (void) pthread_join(thread, NULL);

    } else {
        apart.rc = nango_store_error(store, &apart.err, rc,
                                     "pthread_create()", NULL);
    }

    if (apart.rc != NANGO_OK) {
        nango_store_detach(store);
        atomic_store(&store->trouble, NANGO_EBROKEN);

        if (err != NULL) {
            *err = apart.err;
        }

        return apart.rc;
    }

    store->generation++;
    store->attached = 1;

    return NANGO_OK;
}


static void *
nango_store_attach_thread(void *data)
{
    nango_store_apart_t *apart = data;

    nango_guard_t  guard;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        apart->rc = nango_store_attach_all(apart->store, &apart->err);

    } else {
        apart->rc = nango_store_fault(apart->store, &guard, -1, &apart->err);
    }

    nango_guard_end(&guard);

    return NULL;
}


static nango_rc_e
nango_store_attach_all(nango_store_t *store, nango_error_t *err)
{
    nango_rc_e  rc;

    rc = nango_store_directories(store, err);

    if (rc == NANGO_OK) {
        rc = nango_store_environment(store, &store->log, "log", err);
    }

    if (rc == NANGO_OK) {
        rc = nango_store_environment(store, &store->state, "state", err);
    }

    if (rc == NANGO_OK) {
        rc = nango_store_prepare(store, err);
    }

    if (rc == NANGO_OK) {
        rc = nango_store_identify(store, 0, err);
    }

    if (rc == NANGO_OK) {
        rc = nango_store_identify(store, 1, err);
    }

    return (rc == NANGO_OK) ? nango_store_readers(store, err) : rc;
}


/* Here, since an event loop can neither wait for their places nor end. */

static nango_rc_e
nango_store_readers(nango_store_t *store, nango_error_t *err)
{
    nango_rc_e       rc;
    nango_reader_t  *reader;

    rc = NANGO_OK;

    (void) pthread_mutex_lock(&store->mutex);

    for (reader = store->readers; reader; reader = nango_reader_next(reader)) {
        rc = nango_reader_place(reader, err);

        if (rc != NANGO_OK) {
            break;
        }
    }

    (void) pthread_mutex_unlock(&store->mutex);

    return rc;
}


/* Nobody is inside. */

static void
nango_store_detach(nango_store_t *store)
{
    uint64_t         last;
    nango_reader_t  *reader;

    last = nango_store_old_last(store);
    store->attached = 0;

    if (last > store->floor) {
        store->floor = last;
    }

    (void) pthread_mutex_lock(&store->mutex);

    for (reader = store->readers; reader; reader = nango_reader_next(reader)) {
        nango_reader_drop(reader);
    }

    nango_store_end(&store->state);
    nango_store_end(&store->log);

    (void) pthread_mutex_unlock(&store->mutex);
}


/* A lock file that was cut off cannot even be left. */

static void
nango_store_end(MDB_env **envp)
{
    MDB_env        *env;
    nango_guard_t   guard;

    env = *envp;
    *envp = NULL;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        mdb_env_close(env);
    }

    nango_guard_end(&guard);
}


/*
 * A log that was removed is still there for us.  The sequences that it has
 * given out are not given out again by the one that comes in its place.
 */

static uint64_t
nango_store_old_last(nango_store_t *store)
{
    int                 rc;
    MDB_txn            *txn;
    uint64_t            n;
    nango_guard_t       guard;
    volatile uint64_t   last;

    /* LMDB takes no transaction of an environment that did not open. */

    if (!store->attached) {
        return 0;
    }

    last = 0;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = mdb_txn_begin(store->log, NULL, MDB_RDONLY, &txn);

        if (rc == 0) {
            rc = nango_log_last(txn, store, &n);
            mdb_txn_abort(txn);

            if (rc == 0) {
                last = n;
            }
        }

    } else {
        last = 0;
    }

    nango_guard_end(&guard);

    return last;
}


static nango_rc_e
nango_store_environment(nango_store_t *store, MDB_env **envp,
    const char *file, nango_error_t *err)
{
    int             rc;
    char           *path, text[NANGO_CHECK_TEXT];
    size_t          size;
    nango_rc_e      code;
    nango_guard_t   guard;

    rc = nango_guard_init();
    if (rc != 0) {
        return nango_store_error(store, err, rc, "sigaction()", file);
    }

    size = store->path_len + sizeof("//data.mdb") + strlen(file);

    path = malloc(size);
    if (path == NULL) {
        return nango_store_error(store, err, ENOMEM, "malloc()", file);
    }

    (void) snprintf(path, size, "%s/%s/data.mdb", store->path, file);

    rc = nango_check_head(path, text);

    if (rc != 0) {
        free(path);
        return nango_store_check(store, rc, text, file, err);
    }

    (void) snprintf(path, size, "%s/%s", store->path, file);

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        code = nango_store_load(store, envp, path, file, err);

    } else {
        code = nango_store_fault(store, &guard, -1, err);
    }

    nango_guard_end(&guard);

    free(path);

    return code;
}


static nango_rc_e
nango_store_load(nango_store_t *store, MDB_env **envp, const char *path,
    const char *file, nango_error_t *err)
{
    int           rc, fd, dir;
    char          text[NANGO_CHECK_TEXT];
    MDB_env      *env;
    MDB_envinfo   info;

    rc = mdb_env_create(&env);
    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_env_create()", file);
    }

    *envp = env;

    nango_guard_environment(env);

    (void) mdb_env_set_maxreaders(env, NANGO_STORE_MAXREADERS);
    (void) mdb_env_set_maxdbs(env, NANGO_STORE_MAXDBS);

    rc = mdb_env_open(env, path, MDB_NOTLS, 0600);

    if (rc != 0) {

        /* nango_store_detach() closes the environment, as LMDB asks. */

        return nango_store_error(store, err, rc, "mdb_env_open()", file);
    }

    /* LMDB opens its data file, and only that, for programs to inherit. */

    if (mdb_env_get_fd(env, &fd) == 0) {
        (void) fcntl(fd, F_SETFD, FD_CLOEXEC);
    }

    /* LMDB syncs its files, but not the directory that they are in. */

    dir = open(path, O_RDONLY|O_DIRECTORY|O_CLOEXEC);
    rc = (dir == -1) ? errno : nango_sync_directory(dir);

    if (dir != -1) {
        (void) close(dir);
    }

    if (rc != 0) {
        return nango_store_error(store, err, rc, "fsync()", file);
    }

    /*
     * The map is as large as the largest that anybody has had; a smaller one
     * would only have to be recovered from.
     */

    rc = mdb_env_info(env, &info);

    if (rc == 0 && info.me_mapsize < store->map_size) {
        rc = mdb_env_set_mapsize(env, store->map_size);
    }

    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_env_set_mapsize()",
                                 file);
    }

    rc = mdb_reader_check(env, NULL);
    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_reader_check()", file);
    }

    /* The log's old events are many, and hardly anybody reads them again. */

    rc = nango_check_pages(env, envp == &store->log ? "events" : NULL, text);

    return nango_store_check(store, rc, text, file, err);
}


static nango_rc_e
nango_store_check(nango_store_t *store, int rc, const char *text,
    const char *file, nango_error_t *err)
{
    if (rc == 0 || text[0] == '\0') {
        return nango_store_error(store, err, rc, "reading", file);
    }

    return nango_error_set(err, NANGO_EDAMAGED,
                           "\"%s/%s/data.mdb\" is damaged: %s",
                           store->path, file, text);
}


static nango_rc_e
nango_store_identify(nango_store_t *store, int state, nango_error_t *err)
{
    int                  i, fd, rc;
    struct stat          sb[2], opened;
    const char          *file;

    file = state ? "state" : "log";

    rc = nango_store_stat(store, state ? "state/data.mdb" : "log/data.mdb",
                          &sb[0]);

    if (rc == 0) {
        rc = nango_store_stat(store, state ? "state/lock.mdb" : "log/lock.mdb",
                              &sb[1]);
    }

    if (rc == 0) {
        rc = mdb_env_get_fd(state ? store->state : store->log, &fd);
    }

    if (rc == 0 && fstat(fd, &opened) == -1) {
        rc = errno;
    }

    if (rc == 0
        && (opened.st_dev != sb[0].st_dev || opened.st_ino != sb[0].st_ino))
    {
        rc = ESTALE;
    }

    if (rc != 0) {
        return nango_store_error(store, err, rc, "stat()", file);
    }

    for (i = 0; i < 2; i++) {
        store->files[state][i].dev = sb[i].st_dev;
        store->files[state][i].ino = sb[i].st_ino;
    }

    return NANGO_OK;
}


nango_rc_e
nango_store_present(nango_store_t *store, int state, nango_error_t *err)
{
    int                  i, rc;
    MDB_env             *env;
    MDB_stat             stat;
    uint64_t             used;
    struct stat          sb;
    MDB_envinfo          info;
    const char          *what;
    nango_store_file_t  *file;

    static const char   *names[2][2] = {
        { "log/data.mdb", "log/lock.mdb" },
        { "state/data.mdb", "state/lock.mdb" }
    };

    what = NULL;
    used = 0;
    env = state ? store->state : store->log;

    /* Before the file's size, which others may make larger meanwhile. */

    if (mdb_env_info(env, &info) == 0 && mdb_env_stat(env, &stat) == 0) {
        used = ((uint64_t) info.me_last_pgno + 1) * stat.ms_psize;
    }

    for (i = 0; i < 2; i++) {
        file = &store->files[state][i];

        rc = nango_store_stat(store, names[state][i], &sb);

        if (rc == ENOENT || rc == ENOTDIR) {
            what = "has been removed";
            break;
        }

        /* Whatever else keeps us from looking says nothing of the file. */

        if (rc != 0) {
            continue;
        }

        if (sb.st_dev != file->dev || sb.st_ino != file->ino) {
            what = "has been replaced by another file";
            break;
        }

        if (i == 0 && (uint64_t) sb.st_size < used) {
            what = "has been cut short";
            break;
        }
    }

    if (what == NULL) {
        return NANGO_OK;
    }

    atomic_store(&store->trouble, NANGO_EBROKEN);

    return nango_error_set(err, NANGO_EBROKEN, "\"%s/%s\" %s", store->path,
                           names[state][i], what);
}


nango_rc_e
nango_store_look_after(nango_store_t *store, nango_error_t *err)
{
    int             bodies;
    struct stat     sb, opened;
    nango_rc_e      rc;
    nango_guard_t   guard;

    rc = nango_store_inside(store, err);
    if (rc != NANGO_OK) {
        return rc;
    }

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = nango_store_present(store, 0, err);

        if (rc == NANGO_OK) {
            rc = nango_store_present(store, 1, err);
        }

    } else {
        rc = nango_store_fault(store, &guard, -1, err);
    }

    nango_guard_end(&guard);

    bodies = nango_store_stat(store, "bodies", &sb);

    if (rc == NANGO_OK
        && (bodies == ENOENT
            || (bodies == 0 && fstat(store->bodies, &opened) == 0
                && (opened.st_ino != sb.st_ino
                    || opened.st_dev != sb.st_dev))
            || nango_store_stat(store, "temp", &sb) == ENOENT))
    {
        atomic_store(&store->trouble, NANGO_EBROKEN);

        rc = nango_error_set(err, NANGO_EBROKEN,
                             "\"%s/bodies\" or \"%s/temp\" has been removed "
                             "or replaced", store->path, store->path);
    }

    nango_store_leave(store);

    return rc;
}


/* 0 or errno. */

static int
nango_store_stat(const nango_store_t *store, const char *file, struct stat *sb)
{
    char  path[4096];

    memset(sb, 0, sizeof(struct stat));

    if ((size_t) snprintf(path, sizeof(path), "%s/%s", store->path, file)
        >= sizeof(path))
    {
        return ENAMETOOLONG;
    }

    return (stat(path, sb) == -1) ? errno : 0;
}


/* In a write transaction, so that nobody else commits. */

static int
nango_store_settle(MDB_env *env)
{
    int             fd, rc;
    char           *buf;
    size_t          len;
    MDB_stat        stat;

    rc = mdb_env_get_fd(env, &fd);

    if (rc == 0) {
        rc = mdb_env_stat(env, &stat);
    }

    if (rc != 0) {
        return rc;
    }

    len = 2 * (size_t) stat.ms_psize;

    buf = malloc(len);
    if (buf == NULL) {
        return ENOMEM;
    }

    errno = EIO;

    rc = (pread(fd, buf, len, 0) == (ssize_t) len
          && pwrite(fd, buf, len, 0) == (ssize_t) len
          && fdatasync(fd) == 0) ? 0 : errno;

    free(buf);

    return rc;
}


/*
 * First the log, whose transaction decides, then the state.  Nothing holds
 * the writer locks of both: a fold may take a second, and commits must not
 * wait for it.
 */

static nango_rc_e
nango_store_prepare(nango_store_t *store, nango_error_t *err)
{
    int                 rc;
    MDB_txn            *txn;
    nango_rc_e          code;
    nango_store_look_t  look;

    memset(&look, 0, sizeof(nango_store_look_t));

    rc = mdb_txn_begin(store->log, NULL, 0, &txn);
    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_txn_begin()", "log");
    }

    rc = nango_store_settle(store->log);

    code = (rc == 0) ? nango_store_prepare_log(store, txn, &look, err)
                     : nango_store_error(store, err, rc, "fdatasync()", "log");

    if (code != NANGO_OK) {
        mdb_txn_abort(txn);
        return code;
    }

    code = nango_store_commit(store, txn, err, "log");

    if (code != NANGO_OK) {
        return code;
    }

    rc = mdb_txn_begin(store->state, NULL, 0, &txn);
    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_txn_begin()", "state");
    }

    rc = nango_store_settle(store->state);

    code = nango_store_error(store, err, rc, "fdatasync()", "state");

    if (code == NANGO_OK && !look.complete) {
        code = nango_store_prepare_state(store, txn, err);
    }

    if (code != NANGO_OK || look.complete) {
        mdb_txn_abort(txn);
        return code;
    }

    return nango_store_commit(store, txn, err, "state");
}


static nango_rc_e
nango_store_prepare_log(nango_store_t *store, MDB_txn *txn,
    nango_store_look_t *look, nango_error_t *err)
{
    int            rc;
    uint64_t       last, given;
    nango_rc_e     code;
    unsigned char  id[NANGO_STORE_ID_LEN], floor[8];

    code = nango_store_look(store, look, err);
    if (code != NANGO_OK) {
        return code;
    }

    rc = mdb_dbi_open(txn, "meta", MDB_CREATE, &store->log_meta);

    if (rc == 0) {
        rc = mdb_dbi_open(txn, "events", MDB_CREATE, &store->events);
    }

    if (rc == 0) {
        rc = mdb_dbi_open(txn, "pruned", MDB_CREATE, &store->pruned);
    }

    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_dbi_open()", "log");
    }

    code = nango_store_schema(store, txn, store->log_meta, 1, err, "log");
    if (code != NANGO_OK) {
        return code;
    }

    rc = nango_store_get_id(txn, store->log_meta, id);

    if (rc == MDB_NOTFOUND) {

        if (look->identified) {
            memcpy(id, look->id, NANGO_STORE_ID_LEN);

        } else if (store->identified) {

            /* Both are gone, and others have them open too. */
            memcpy(id, store->id, NANGO_STORE_ID_LEN);

        } else if (getrandom(id, NANGO_STORE_ID_LEN, 0)
                   != NANGO_STORE_ID_LEN)
        {
            return nango_store_error(store, err, errno, "getrandom()", "log");
        }

        rc = nango_meta_put(txn, store->log_meta, "store", id,
                            NANGO_STORE_ID_LEN);
    }

    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_put()", "log");
    }

    if ((look->identified && memcmp(id, look->id, NANGO_STORE_ID_LEN) != 0)
        || (store->identified
            && memcmp(id, store->id, NANGO_STORE_ID_LEN) != 0))
    {
        return nango_store_foreign(store, err);
    }

    if (!store->identified) {
        memcpy(store->id, id, NANGO_STORE_ID_LEN);
        store->identified = 1;
    }

    rc = nango_log_last(txn, store, &last);

    given = (look->applied > store->floor) ? look->applied : store->floor;

    if (rc == 0 && given > last) {
        nango_put_le(floor, given, 8);
        rc = nango_meta_put(txn, store->log_meta, "floor", floor, 8);
    }

    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_put()", "log");
    }

    return NANGO_OK;
}


static nango_rc_e
nango_store_prepare_state(nango_store_t *store, MDB_txn *txn,
    nango_error_t *err)
{
    int            rc;
    nango_rc_e     code;
    unsigned char  id[NANGO_STORE_ID_LEN];

    rc = mdb_dbi_open(txn, "meta", MDB_CREATE, &store->state_meta);

    if (rc == 0) {
        rc = nango_store_open_tables(store, txn, MDB_CREATE);
    }

    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_dbi_open()", "state");
    }

    code = nango_store_schema(store, txn, store->state_meta, 1, err, "state");
    if (code != NANGO_OK) {
        return code;
    }

    rc = nango_store_get_id(txn, store->state_meta, id);

    if (rc == MDB_NOTFOUND) {
        memcpy(id, store->id, NANGO_STORE_ID_LEN);
        rc = nango_meta_put(txn, store->state_meta, "store", id,
                            NANGO_STORE_ID_LEN);
    }

    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_put()", "state");
    }

    if (memcmp(id, store->id, NANGO_STORE_ID_LEN) != 0) {
        return nango_store_foreign(store, err);
    }

    return NANGO_OK;
}


/*
 * Opens the tables that are there; the others are made later.  A handle is
 * kept by committing, also where there is nothing to write.
 */

static nango_rc_e
nango_store_look(nango_store_t *store, nango_store_look_t *look,
    nango_error_t *err)
{
    int          rc;
    MDB_txn     *txn;
    nango_rc_e   code;

    memset(look, 0, sizeof(nango_store_look_t));

    rc = mdb_txn_begin(store->state, NULL, MDB_RDONLY, &txn);
    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_txn_begin()", "state");
    }

    rc = mdb_dbi_open(txn, "meta", 0, &store->state_meta);

    if (rc == 0) {
        code = nango_store_schema(store, txn, store->state_meta, 0, err,
                                  "state");
        if (code != NANGO_OK) {
            mdb_txn_abort(txn);
            return code;
        }

        rc = nango_store_get_id(txn, store->state_meta, look->id);
    }

    if (rc == 0) {
        look->identified = 1;
        rc = nango_meta_u64(txn, store->state_meta, "applied",
                            &look->applied);
    }

    if (rc == 0) {
        rc = nango_store_open_tables(store, txn, 0);
    }

    if (rc != 0 && rc != MDB_NOTFOUND) {
        mdb_txn_abort(txn);
        return nango_store_error(store, err, rc, "mdb_dbi_open()", "state");
    }

    look->complete = (rc == 0);

    rc = mdb_txn_commit(txn);
    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_txn_commit()", "state");
    }

    return NANGO_OK;
}


static int
nango_store_open_tables(nango_store_t *store, MDB_txn *txn, unsigned flags)
{
    int                         rc;
    const nango_store_table_t  *table;

    rc = 0;

    for (table = nango_store_tables; rc == 0 && table->name; table++) {
        rc = mdb_dbi_open(txn, table->name, flags,
                          (MDB_dbi *) ((char *) store + table->dbi));
    }

    return rc;
}


static nango_rc_e
nango_store_schema(nango_store_t *store, MDB_txn *txn, MDB_dbi dbi, int make,
    nango_error_t *err, const char *file)
{
    int            rc;
    uint64_t       schema;
    MDB_val        key, val;
    unsigned char  buf[4];

    key = nango_val("schema", sizeof("schema") - 1);

    rc = mdb_get(txn, dbi, &key, &val);

    if (rc == MDB_NOTFOUND) {

        if (!make) {
            return NANGO_OK;
        }

        nango_put_le(buf, NANGO_STORE_SCHEMA, 4);
        rc = nango_meta_put(txn, dbi, "schema", buf, 4);

        if (rc == 0) {
            return NANGO_OK;
        }

    } else if (rc == 0 && val.mv_size != 4) {
        rc = MDB_CORRUPTED;
    }

    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_get()", file);
    }

    schema = nango_get_le(val.mv_data, 4);

    if (schema > NANGO_STORE_SCHEMA) {
        return nango_error_set(err, NANGO_EVERSION,
                               "\"%s/%s\" was written by a newer version "
                               "(schema %u, known is %u)",
                               store->path, file, (unsigned) schema,
                               NANGO_STORE_SCHEMA);
    }

    return NANGO_OK;
}


static int
nango_store_get_id(MDB_txn *txn, MDB_dbi dbi,
    unsigned char id[NANGO_STORE_ID_LEN])
{
    int      rc;
    MDB_val  key, val;

    key = nango_val("store", sizeof("store") - 1);

    rc = mdb_get(txn, dbi, &key, &val);

    if (rc == 0) {

        if (val.mv_size != NANGO_STORE_ID_LEN) {
            return MDB_CORRUPTED;
        }

        memcpy(id, val.mv_data, NANGO_STORE_ID_LEN);
    }

    return rc;
}


static nango_rc_e
nango_store_foreign(nango_store_t *store, nango_error_t *err)
{
    return nango_error_set(err, NANGO_EFOREIGN,
                           "\"%s/log\" and \"%s/state\" belong to different "
                           "stores", store->path, store->path);
}


void
nango_store_enter(nango_store_t *store)
{
    (void) pthread_rwlock_rdlock(&store->lock);
}


int
nango_store_try_enter(nango_store_t *store)
{
    return pthread_rwlock_tryrdlock(&store->lock) == 0;
}


void
nango_store_leave(nango_store_t *store)
{
    (void) pthread_rwlock_unlock(&store->lock);
}


nango_rc_e
nango_store_inside(nango_store_t *store, nango_error_t *err)
{
    nango_store_enter(store);

    if (store->log != NULL) {
        return NANGO_OK;
    }

    nango_store_leave(store);

    return nango_error_set(err, NANGO_EBROKEN,
                           "\"%s\" is closed until it can be opened again",
                           store->path);
}


nango_rc_e
nango_store_within(nango_store_t *store, int writing,
    nango_rc_e (*work)(void *data, nango_error_t *err), void *data,
    nango_error_t *err)
{
    nango_rc_e  rc;

    rc = nango_store_inside(store, err);

    if (rc != NANGO_OK) {
        return rc;
    }

    rc = nango_store_guarded(store, writing, work, data, err);

    nango_store_leave(store);

    return rc;
}


nango_rc_e
nango_store_guarded(nango_store_t *store, int writing,
    nango_rc_e (*work)(void *data, nango_error_t *err), void *data,
    nango_error_t *err)
{
    nango_rc_e     rc;
    nango_guard_t  guard;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        rc = work(data, err);

    } else {
        rc = nango_store_fault(store, &guard, writing, err);
    }

    nango_guard_end(&guard);

    return rc;
}


nango_rc_e
nango_store_begin(nango_store_t *store, int state, MDB_txn **txn,
    nango_error_t *err)
{
    int          rc, tid;
    MDB_env     *env;
    nango_rc_e   code;

    /* Who was thrown out of LMDB while it wrote would wait for itself. */

    tid = atomic_load(&store->wrecked[state]);

    if (tid != 0 && tid == (int) syscall(SYS_gettid)) {
        return nango_error_set(err, NANGO_EWRECKED,
                               "\"%s\" waits for this thread to end",
                               store->path);
    }

    env = state ? store->state : store->log;

    rc = mdb_txn_begin(env, NULL, 0, txn);

    if (rc != 0) {
        return nango_store_error(store, err, rc, "mdb_txn_begin()",
                                 state ? "state" : "log");
    }

    code = nango_store_present(store, state, err);

    if (code != NANGO_OK) {
        mdb_txn_abort(*txn);
        return code;
    }

    nango_store_room(env);

    return NANGO_OK;
}


nango_rc_e
nango_store_recover(nango_store_t *store, nango_error_t *err)
{
    nango_rc_e  rc;

    if (!nango_store_needs_recovery(store)) {
        return NANGO_OK;
    }

    rc = NANGO_OK;

    (void) pthread_rwlock_wrlock(&store->lock);

    /* Somebody else may have been quicker. */

    if (nango_store_needs_recovery(store)) {
        rc = nango_store_again(store, err);
    }

    (void) pthread_rwlock_unlock(&store->lock);

    return rc;
}


/* Opening reads a lot: what fails again and again must not do so all day. */

static nango_rc_e
nango_store_again(nango_store_t *store, nango_error_t *err)
{
    uint64_t        now, retry_at;
    nango_rc_e      rc;
    nango_error_t   refused;

    if (nango_store_wrecked(store)) {
        return nango_error_set(err, NANGO_EBROKEN,
                               "\"%s\" waits for a thread to end",
                               store->path);
    }

    now = nango_store_ms();

    (void) pthread_mutex_lock(&store->mutex);
    retry_at = store->retry_at;
    refused = store->refused;
    (void) pthread_mutex_unlock(&store->mutex);

    if (now < retry_at) {

        if (err != NULL) {
            *err = refused;
        }

        return refused.code;
    }

    nango_store_detach(store);

    rc = nango_store_attach(store, &refused);

    if (rc == NANGO_OK) {
        return NANGO_OK;
    }

    retry_at = nango_store_ms();
    now = (retry_at - now) * 10;
    retry_at += (now > NANGO_STORE_RETRY) ? now : NANGO_STORE_RETRY;

    (void) pthread_mutex_lock(&store->mutex);
    store->retry_at = retry_at;
    store->refused = refused;
    (void) pthread_mutex_unlock(&store->mutex);

    if (err != NULL) {
        *err = refused;
    }

    return rc;
}


static int
nango_store_wrecked(nango_store_t *store)
{
    int  i, tid;

    for (i = 0; i < 2; i++) {
        tid = atomic_load(&store->wrecked[i]);

        if (tid == 0) {
            continue;
        }

        if (syscall(SYS_tgkill, getpid(), tid, 0) == 0 || errno != ESRCH) {
            return 1;
        }

        atomic_store(&store->wrecked[i], 0);
    }

    return 0;
}


nango_rc_e
nango_store_fault(nango_store_t *store, const nango_guard_t *guard,
    int writing, nango_error_t *err)
{
    uint64_t    now;
    nango_rc_e  code;

    code = (writing == -1) ? NANGO_EBROKEN : NANGO_EWRECKED;

    if (writing != -1) {
        atomic_store(&store->wrecked[writing], (int) syscall(SYS_gettid));
    }

    now = nango_store_ms();

    (void) nango_error_set(err, code, "\"%s\" cannot be gone on with: %s",
                           store->path, guard->what);

    (void) pthread_mutex_lock(&store->mutex);

    /*
     * Whoever looks at what has to be opened again meets the same, and does
     * not put that off.
     */

    if (store->faulted_in == store->generation) {
        (void) pthread_mutex_unlock(&store->mutex);
        atomic_store(&store->trouble, NANGO_EBROKEN);
        return code;
    }

    store->faulted_in = store->generation;

    /* What opening does not find would come again at once. */

    if (store->faulted_at == 0
        || now - store->faulted_at > NANGO_STORE_PATIENCE + store->patience)
    {
        store->patience = 0;

    } else {
        store->patience = store->patience ? store->patience * 2
                                          : NANGO_STORE_RETRY;

        if (store->patience > NANGO_STORE_PATIENCE) {
            store->patience = NANGO_STORE_PATIENCE;
        }
    }

    store->faulted_at = now;
    store->retry_at = now + store->patience;

    (void) nango_error_set(&store->refused, NANGO_EBROKEN,
                           "\"%s\" is closed for a while: %s", store->path,
                           guard->what);

    (void) pthread_mutex_unlock(&store->mutex);

    atomic_store(&store->trouble, NANGO_EBROKEN);

    return code;
}


static uint64_t
nango_store_ms(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000 + (uint64_t) ts.tv_nsec / 1000000;
}


int
nango_store_needs_recovery(nango_store_t *store)
{
    return atomic_load(&store->trouble) != NANGO_OK;
}


const unsigned char *
nango_store_id(const nango_store_t *store)
{
    return store->id;
}


uint64_t
nango_store_size(const nango_store_t *store)
{
    return store->size;
}


uint64_t
nango_store_generation(nango_store_t *store)
{
    uint64_t       generation;
    nango_error_t  err;

    if (nango_store_inside(store, &err) != NANGO_OK) {
        return 0;
    }

    generation = store->generation;

    nango_store_leave(store);

    return generation;
}


const char *
nango_store_path(const nango_store_t *store)
{
    return store->path;
}


uint64_t
nango_store_log_txnid(nango_store_t *store)
{
    return nango_store_txnid(store, 0);
}


uint64_t
nango_store_state_txnid(nango_store_t *store)
{
    return nango_store_txnid(store, 1);
}


static uint64_t
nango_store_txnid(nango_store_t *store, int state)
{
    MDB_env        *env;
    uint64_t        txnid;
    MDB_envinfo     info;
    nango_guard_t   guard;

    if (!nango_store_try_enter(store)) {
        return 0;
    }

    env = state ? store->state : store->log;

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        txnid = (env != NULL && mdb_env_info(env, &info) == 0)
                ? info.me_last_txnid : 0;

    } else {
        (void) nango_store_fault(store, &guard, -1, NULL);
        txnid = 0;
    }

    nango_guard_end(&guard);
    nango_store_leave(store);

    return txnid;
}


int
nango_store_lead(nango_store_t *store, nango_error_t *err)
{
    char    *path;
    size_t   size;

    if (store->leading) {
        return 1;
    }

    if (store->leader == -1) {
        size = store->path_len + sizeof("/leader");

        path = malloc(size);
        if (path == NULL) {
            (void) nango_store_error(store, err, ENOMEM, "malloc()", "leader");
            return -1;
        }

        (void) snprintf(path, size, "%s/leader", store->path);

        store->leader = open(path, O_RDWR|O_CREAT|O_CLOEXEC, 0600);

        free(path);

        if (store->leader == -1) {
            (void) nango_store_error(store, err, errno, "open()", "leader");
            return -1;
        }
    }

    if (flock(store->leader, LOCK_EX|LOCK_NB) == -1) {

        if (errno == EWOULDBLOCK || errno == EINTR) {
            return 0;
        }

        (void) nango_store_error(store, err, errno, "flock()", "leader");
        return -1;
    }

    store->leading = 1;

    return 1;
}


void
nango_store_resign(nango_store_t *store)
{
    if (!store->leading) {
        return;
    }

    store->leading = 0;
    (void) flock(store->leader, LOCK_UN);
}


int
nango_store_check_readers(nango_store_t *store)
{
    int             rc, log, state;
    nango_guard_t   guard;

    if (nango_store_inside(store, NULL) != NANGO_OK) {
        return -1;
    }

    nango_guard_begin(&guard);

    if (sigsetjmp(guard.jump, 0) == 0) {
        log = 0;
        state = 0;

        rc = mdb_reader_check(store->log, &log);

        if (rc == 0) {
            rc = mdb_reader_check(store->state, &state);
        }

        if (rc != 0) {
            (void) nango_store_error(store, NULL, rc, "mdb_reader_check()",
                                     NULL);
        }

        rc = (rc == 0) ? log + state : -1;

    } else {
        (void) nango_store_fault(store, &guard, -1, NULL);
        rc = -1;
    }

    nango_guard_end(&guard);
    nango_store_leave(store);

    return rc;
}


/*
 * A sync after an append has to write the file's size and its blocks as well:
 * on ext4 a commit of the journal, twice the time of a sync after an overwrite
 * (measured: 490 to 700 us beside 260 to 295).  So the file is filled with
 * zeros some megabytes ahead.  fallocate() would not do: the first write to
 * such a block changes the file's blocks, too.
 *
 * The writer's lock, which the caller's transaction holds, makes the end of
 * the file ours alone, and nothing that was written lies beyond it.  Whatever
 * fails here is no error: LMDB appends as it would have without.
 */

void
nango_store_room(MDB_env *env)
{
    int           fd;
    off_t         used, size, end;
    ssize_t       n;
    MDB_stat      stat;
    struct stat   st;
    MDB_envinfo   info;

    static const char  zeros[64 * 1024];

    if (mdb_env_get_fd(env, &fd) != 0
        || mdb_env_info(env, &info) != 0
        || mdb_env_stat(env, &stat) != 0
        || fstat(fd, &st) == -1)
    {
        return;
    }

    used = ((off_t) info.me_last_pgno + 1) * stat.ms_psize;
    size = st.st_size;

    if (size - used >= NANGO_STORE_ROOM / 4) {
        return;
    }

    end = (size > used ? size : used) + NANGO_STORE_ROOM;

    if (end > (off_t) info.me_mapsize) {
        return;
    }

    while (size < end) {
        n = (off_t) sizeof(zeros) < end - size ? (ssize_t) sizeof(zeros)
                                               : (ssize_t) (end - size);

        n = pwrite(fd, zeros, (size_t) n, size);

        if (n <= 0) {
            /* A full disk's last blocks are better used by events. */
            if (ftruncate(fd, st.st_size) == -1) {
                /* then it is as long as it is */
            }

            return;
        }

        size += n;
    }
}


/*
 * LMDB 0.9.24 frees the transaction whether the commit succeeds or not.  If
 * the pages could not be written or synced, nothing refers to them and the
 * next transaction writes its own; if the meta page could not, LMDB refuses
 * everything from then on (MDB_PANIC) and wants to be opened again.  There is
 * no function that tells, so ask for a transaction.
 */

nango_rc_e
nango_store_commit(nango_store_t *store, MDB_txn *txn, nango_error_t *err,
    const char *file)
{
    int              rc, fd;
    MDB_env         *env;
    MDB_txn         *probe;
    nango_rc_e       code;
    struct statvfs   sv;

    env = mdb_txn_env(txn);

    rc = mdb_txn_commit(txn);
    if (rc == 0) {
        return NANGO_OK;
    }

    /* That less was written than it had is EIO to LMDB. */

    if (rc == EIO && mdb_env_get_fd(env, &fd) == 0 && fstatvfs(fd, &sv) == 0
        && (uint64_t) sv.f_bavail * sv.f_frsize < NANGO_STORE_LEFT)
    {
        rc = ENOSPC;
    }

    code = nango_store_error(store, err, rc, "mdb_txn_commit()", file);

    rc = mdb_txn_begin(env, NULL, MDB_RDONLY, &probe);

    if (rc == 0) {
        mdb_txn_abort(probe);
        return code;
    }

    if (nango_store_code(rc) != NANGO_EBROKEN) {
        return code;
    }

    atomic_store(&store->trouble, NANGO_EBROKEN);

    if (err != NULL) {
        err->code = NANGO_EBROKEN;
    }

    return NANGO_EBROKEN;
}


int
nango_meta_u64(MDB_txn *txn, MDB_dbi dbi, const char *name, uint64_t *value)
{
    int      rc;
    MDB_val  key, val;

    *value = 0;

    key = nango_val(name, strlen(name));

    rc = mdb_get(txn, dbi, &key, &val);

    if (rc == MDB_NOTFOUND) {
        return 0;
    }

    if (rc == 0) {

        if (val.mv_size != 8) {
            return MDB_CORRUPTED;
        }

        *value = nango_get_le(val.mv_data, 8);
    }

    return rc;
}


int
nango_meta_put(MDB_txn *txn, MDB_dbi dbi, const char *name, const void *data,
    size_t len)
{
    MDB_val  key, val;

    key = nango_val(name, strlen(name));
    val = nango_val(data, len);

    return mdb_put(txn, dbi, &key, &val, 0);
}


int
nango_sync_directory(int fd)
{
    /* EINVAL: a file system whose directories need none. */

    return (fsync(fd) == 0 || errno == EINVAL) ? 0 : errno;
}


nango_rc_e
nango_store_error(nango_store_t *store, nango_error_t *err, int rc,
    const char *func, const char *file)
{
    nango_rc_e   code;
    const char  *slash;

    if (rc == 0) {
        return NANGO_OK;
    }

    code = nango_store_code(rc);

    if (code == NANGO_EBROKEN || code == NANGO_ERESIZED) {
        atomic_store(&store->trouble, code);
    }

    slash = (file != NULL) ? "/" : "";
    file = (file != NULL) ? file : "";

    /* LMDB's own words begin with the name of the code. */

    if (rc > 0) {
        return nango_error_set(err, code, "%s \"%s%s%s\" failed (%d: %s)",
                               func, store->path, slash, file, rc,
                               mdb_strerror(rc));
    }

    return nango_error_set(err, code, "%s \"%s%s%s\" failed (%s)",
                           func, store->path, slash, file, mdb_strerror(rc));
}


nango_rc_e
nango_error_set(nango_error_t *err, nango_rc_e code, const char *fmt, ...)
{
    va_list  args;

    if (err == NULL) {
        return code;
    }

    err->code = code;

    va_start(args, fmt);
    (void) vsnprintf(err->text, sizeof(err->text), fmt, args);
    va_end(args);

    return code;
}


static nango_rc_e
nango_store_code(int rc)
{
    switch (rc) {

    case ENOMEM:
        return NANGO_ENOMEM;

    case MDB_MAP_FULL:
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NANGO_EFULL;

    case MDB_PANIC:
    case MDB_BAD_RSLOT:
    case MDB_BAD_TXN:
    case MDB_BAD_DBI:
        return NANGO_EBROKEN;

    case MDB_MAP_RESIZED:
        return NANGO_ERESIZED;

    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_PAGE_FULL:
    case MDB_CURSOR_FULL:
    case MDB_INVALID:
    case MDB_INCOMPATIBLE:
    case MDB_NOTFOUND:
    case MDB_KEYEXIST:
        return NANGO_EDAMAGED;

    case MDB_VERSION_MISMATCH:
        return NANGO_EVERSION;

    case MDB_BAD_VALSIZE:
        return NANGO_EINVAL;

    default:
        return NANGO_EIO;
    }
}
